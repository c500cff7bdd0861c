"""Recipes are Dockerfiles; what is not supported is refused with file, line and a way out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.build.make import build
from builder.build.workspace import Workspace
from builder.dockerfile import copying, instructions, recipe
from builder.dockerfile.dockerignore import Ignore
from builder.dockerfile.shellwords import expand, split
from builder.errors import BuilderError
from builder.oci.entry import Entry
from builder.oci.overlay import NOTHING
from builder.sandbox.unpack import image_entries
from builder.store import Store
from tests.builder.conftest import Make


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("FROM base\nRUN apt-get update\n", r"Dockerfile:2: RUN is not supported: .*debian\.in"),
        ("FROM base\n\n# note\nONBUILD COPY a b\n", r"Dockerfile:4: ONBUILD"),
        ("COPY a b\n", r"Dockerfile:1: COPY comes before the first FROM"),
        ("FROM base\nCOPY --parents a b\n", r"Dockerfile:2: COPY --parents is not supported"),
        ("", r"Dockerfile:1: there is no FROM"),
        ("FROM a b c d\n", r"Dockerfile:1: FROM is"),
    ],
)
def test_what_is_not_supported_is_refused_with_its_line(text: str, says: str) -> None:
    with pytest.raises(BuilderError, match=says):
        recipe.parse(text, "Dockerfile")


def test_a_continued_instruction_stands_at_its_first_line() -> None:
    parsed = recipe.parse('FROM base AS one\nENV a=1 \\\n    b=2\nCMD ["x"]\n', "Dockerfile")
    (stage,) = parsed.stages
    assert (stage.base, stage.alias) == ("base", "one")
    assert [(i.name, i.line) for i in stage.instructions] == [("ENV", 2), ("CMD", 4)]
    assert recipe.pairs(stage.instructions[0], {}) == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$a/${a}", "1/1"),
        (r"\$a", "$a"),
        ('\'$a\' "$a" "\\$a"', "$a 1 $a"),
        ("${none:-x}", "x"),
        ("${none-$a}${empty-x}${empty:-y}", "1y"),
        ("${a:+y}${none:+z}${empty+e}", "ye"),
        ("${a:-{}", "1"),
        ("${none:-'}'}", "}"),
        ("$none.", "."),
        ("a$", "a$"),
        ("$ $-|$$x $1ab $éa $_", "$ |x ab  "),
    ],
)
def test_variables_expand_as_docker_expands_them(text: str, expanded: str) -> None:
    assert expand(text, {"a": "1", "empty": ""}) == expanded


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("${a", r"in \$\{a…\} there are :-word, :\+word and :\?message"),
        ("${a#b}", r"there are :-word"),
        ("${}", r"no name"),
        ("${none:-x", r"a } is missing at the end"),
        ("'a", r"a ' is missing at the end"),
        ('"a', r'a " is missing at the end'),
        ("${none:?say it}", r"none must be set: say it"),
        ("${empty:?}", r"empty must be set: it is empty"),
    ],
)
def test_what_does_not_end_or_is_not_known_is_refused(text: str, says: str) -> None:
    with pytest.raises(BuilderError, match=says):
        expand(text, {"a": "1", "empty": ""})


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("30s", 30 * 10**9), ("1m30s", 90 * 10**9), ("1.5h", 5400 * 10**9), ("500ms", 5 * 10**8)],
)
def test_durations_are_those_of_go(text: str, nanoseconds: int) -> None:
    assert instructions.nanoseconds(text) == nanoseconds


@pytest.mark.parametrize(
    ("instruction", "says"),
    [
        ("HEALTHCHECK --interval=30 CMD x", r"'30' is not a duration such as 30s"),
        ("HEALTHCHECK --retries=few CMD x", r"--retries=few is no number from 1 on"),
        ("HEALTHCHECK curl x", r"HEALTHCHECK is `HEALTHCHECK CMD command` or `HEALTHCHECK NONE`"),
        ("EXPOSE http", r"EXPOSE http is no port such as 8080"),
        ("EXPOSE 70000", r"EXPOSE 70000 is no port"),
        ("ENV a", r"'a' is not key=value"),
        ("ENV a=${b", r"in \$\{b…\} there are"),
        ("LABEL a='b", r"a ' is missing at the end"),
        ("COPY one", r"COPY needs a source and a destination"),
        ("COPY --chmod=rwx one /", r"--chmod=rwx is not an octal number such as 0755"),
        ("COPY --chown=me one /", r"me: the image's /etc/passwd has no 'me'; write the number"),
        ("COPY --chown=7:us one /", r"7:us: the image's /etc/group has no 'us'; write the number"),
        ("COPY --link --chown=me one /", r"--chown=me with --link, .*; write the number"),
        ("USER me\nWORKDIR /a", r"me: the image's /etc/passwd has no 'me'"),
        ("COPY --from=nobody one /", r"'nobody' is no target and no earlier stage"),
        ("COPY --from=wheels some /", r"only the whole context can be copied"),
        ("COPY <<EOF /x", r"COPY with a here-document is not supported: put it in a file"),
        ("FROM --platform=linux/arm64 scratch", r"the image that is built here is for linux/amd64"),
        ("RUN true", r"RUN is not supported: .*`debian.in` and COPY --from=debian"),
        ('SHELL ["x"]', r"SHELL is not supported: write CMD and ENTRYPOINT in exec form"),
        ("MAINTAINER me", r"MAINTAINER is not supported: use LABEL"),
        ("ONBUILD USER 7", r"ONBUILD is not supported: write the instruction"),
        ("NONSENSE", r"NONSENSE .*see docs/builder.md"),
        ("USER", r"USER needs a value"),
        ("USER $WHO", r"USER \$WHO is empty, because WHO has no value here; write `ARG WHO=value`"),
        ("ARG WHO\nUSER ${WHO}", r"USER \$\{WHO\} is empty, because WHO has no value"),
        ("USER $WHO:7", r"USER ':7' has no user, which would be root's; write user or user:group"),
        ("USER 7:$WHO", r"USER '7:' has no group"),
        ("COPY --chown=$X one /", r"--chown= \$X is empty, because X has no value"),
        ("COPY --chown=7:$X one /", r"--chown= '7:' has no group"),
        ("COPY --chown= one /", r"--chown= is empty; write a value"),
        ("COPY --chmod=$X one /", r"--chmod= \$X is empty, because X has no value"),
        ("COPY --from=$X one /", r"--from= \$X is empty, because X has no value"),
        ("COPY --link=yes one /", r"--link=yes is not understood; write true or false"),
        ("COPY $X /", r"COPY \$X is empty, because X has no value"),
        ("COPY one $X", r"COPY \$X is empty, because X has no value"),
        ('COPY ["", "/"]', r"COPY is empty; write a value"),
        ("WORKDIR $X", r"WORKDIR \$X is empty, because X has no value"),
        ("EXPOSE 80 $X", r"EXPOSE \$X is empty, because X has no value"),
        ("VOLUME $X", r"VOLUME \$X is empty, because X has no value"),
        ("STOPSIGNAL $X$Y", r"STOPSIGNAL \$X\$Y is empty, because X and Y has no value"),
        ("FROM $X", r"FROM \$X is empty, because X has no value"),
        ("COPY [o /", r"in '\[o' a \[ does not end"),
    ],
)
def test_each_refusal_names_file_line_and_way_out(
    make: Make, store: Store, instruction: str, says: str
) -> None:
    with pytest.raises(BuilderError, match=r"^stages/a/Dockerfile:[34]: .*" + says):
        build(make(f"# a comment\nFROM scratch\n{instruction}\n", one="1"), store)


def test_what_a_file_cuts_short_is_not_lost() -> None:
    for end in ("", "\n", " \\", " \\\n", " \\\n\n", " \\\n# a comment", " \\\n\n# a comment\n"):
        (stage,) = recipe.parse("FROM scratch\nUSER 7" + end, "Dockerfile").stages
        assert [i.value.strip() for i in stage.instructions] == ["7"], end
    with pytest.raises(BuilderError, match=r"Dockerfile:2: USER needs a value"):
        recipe.parse("FROM scratch\nUSER", "Dockerfile")


def test_an_argument_may_be_empty_on_purpose(make: Make, store: Store) -> None:
    recipe = "FROM scratch\nENV A=1\nARG A=\nENV B=x$A C=${A-unset}\n"
    config = build(make(recipe), store)["a"].image.config["config"]
    assert config["Env"][-2:] == ["B=x", "C="]


def test_a_directive_that_is_not_supported_is_refused() -> None:
    with pytest.raises(BuilderError, match=r"Dockerfile:2: escape=` is not supported"):
        recipe.parse("# syntax=docker/dockerfile:1\n# escape=`\nFROM scratch\n", "Dockerfile")
    recipe.parse("# a comment\n# escape=`\nFROM scratch\n", "Dockerfile")


def test_a_byte_order_mark_changes_nothing(make: Make, store: Store) -> None:
    plain = {"one": "1", "hidden": "2", ".dockerignore": "hidden\n"}
    marked = {**plain, ".dockerignore": "\ufeffhidden\n"}
    images = [
        build(make(f"{mark}FROM scratch\nCOPY . /\n", root, **files), store)["a"].image
        for mark, root, files in (("", "plain", plain), ("\ufeff", "marked", marked))
    ]
    for image in images:
        assert "hidden" not in {entry.path for entry in image_entries(store, image)}
        assert "one" in {entry.path for entry in image_entries(store, image)}


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ("ok\n!\n", r"\.dockerignore:2: ! stands alone"),
        ("a[b\n", r"\.dockerignore:1: in 'a\[b' a \[ does not end"),
        ("a\\\n", r"\.dockerignore:1: .* ends with \\"),
        ("d\\ir\n", r"\.dockerignore:1: in .* stands before 'i'; leave"),
        ("[z-a]\n", r"\.dockerignore:1: .*is not a pattern"),
    ],
)
def test_a_rule_that_is_not_understood_is_refused_with_its_line(
    make: Make, rules: str, says: str
) -> None:
    with pytest.raises(BuilderError, match=says):
        make("FROM scratch\n", **{".dockerignore": rules})


NFC, NFD = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(("typed", "there"), [(NFC, NFD), (NFD, NFC)])
@pytest.mark.parametrize("source", ["{}.txt", "d/{}.txt", "{}/x", "d/{}", "[a-d]/{}.t?t", "{}*"])
def test_a_source_that_looks_like_a_file_is_told_apart(
    make: Make, store: Store, typed: str, there: str, source: str
) -> None:
    files = {f"{there}.txt": "", f"d/{there}.txt": "", f"{there}/x": "", f"d/{there}/x": ""}
    workspace = make(f"FROM scratch\nCOPY {source.format(typed)} /\n", **files)
    says = r"Dockerfile:2: .*; '.*caf.*' looks alike, but .* another Unicode form than the recipe's"
    with pytest.raises(BuilderError, match=says) as refused:
        build(workspace, store)
    assert ascii(there)[1:-1] in str(refused.value), "letter by letter"
    build(make(f"FROM scratch\nCOPY {source.format(there)} /\n", **files), store)


@pytest.mark.parametrize(("typed", "there"), [(NFC, NFD), (NFD, NFC)])
@pytest.mark.parametrize(
    "rules", ["{}", "d/{}*", "**/{}/x", "*\n!{}/x", "*\n!d/{}.txt", "d/*\n!d/{}", "{}\n!d"]
)
def test_a_rule_that_looks_like_a_name_is_told_apart(
    make: Make, store: Store, typed: str, there: str, rules: str
) -> None:
    files = {f"{there}.txt": "", f"d/{there}.txt": "", f"{there}/x": "", f"d/{there}/x": ""}
    recipe = "FROM scratch\nCOPY . /\n"
    last = rules.count("\n") + (not rules.endswith("!d"))
    workspace = make(recipe, **files, **{".dockerignore": rules.format(typed)})
    with pytest.raises(BuilderError, match=(
        rf"\.dockerignore:{last}: '.*caf.*' looks like a rule for '.*caf.*', but their letters"
    )):  # fmt: skip
        build(workspace, store)
    build(make(recipe, **files, **{".dockerignore": rules.format(there)}), store)


def test_a_rule_of_another_form_that_changes_nothing_is_left_alone(
    make: Make, store: Store
) -> None:
    rules = f"{NFC}\n{NFD}\n**/*.t?t\n"
    workspace = make(
        "FROM scratch\nCOPY . /\n", **{NFC: "", f"d/{NFD}.txt": "", ".dockerignore": rules}
    )
    image = build(workspace, store)["a"].image
    assert not [e.path for e in image_entries(store, image) if not e.path.isascii()]


WORD = st.text(alphabet="ab $\\\"' \t=", min_size=1)


@given(st.lists(WORD, max_size=4))
def test_words_in_single_quotes_come_back_as_they_were(found: list[str]) -> None:
    quoted = ["'" + word.replace("'", "'\\''") + "'" for word in found]
    assert [expand(word, {"a": "1"}) for word in split(" ".join(quoted))] == found


PARTS = st.sampled_from(["", ".", "..", "a", "b", "c"])
TARGETS = st.dictionaries(
    st.sampled_from(["a", "b", "a/b", "b/a", "c/a"]),
    st.lists(PARTS, min_size=1, max_size=4).map("/".join),
)


@given(st.lists(PARTS, max_size=6).map("/".join), TARGETS)
def test_a_followed_path_stays_inside_and_holds_no_link(path: str, links: dict[str, str]) -> None:
    try:
        found = copying.follow(path, links.get)
    except BuilderError as error:
        assert "links in a circle" in str(error)  # noqa: PT017
        return
    parts = found.split("/") if found else []
    assert not {"", ".", ".."} & set(parts)
    assert not any("/".join(parts[: depth + 1]) in links for depth in range(len(parts)))


@given(st.text(alphabet=st.characters(exclude_characters="$\\'\"")))
def test_text_without_dollar_backslash_or_quote_is_left_alone(text: str) -> None:
    assert expand(text, {"a": "1"}) == text


@pytest.mark.parametrize(
    ("rules", "source"),
    [
        ("hid\n!hid/secret\n", "hid/secret"),
        ("hid\n!hid/secret\n", "hid/secret/key"),
        ("hid\n!hid/secret\n", "hid/*"),
        ("hid\n!hid/inner\n", "hid/inner"),
        ("d/hid\n!d/hid/secret\n", "d/hid/secret/key"),
        ("d\n!d/hid/secret\n", "d/hid/secret"),
    ],
)
def test_a_hidden_link_leads_nowhere(
    make: Make, store: Store, tmp_path: Path, rules: str, source: str
) -> None:
    """A rule lets something in below the link, which leads out of the repository."""
    (tmp_path / "victim/secret").mkdir(parents=True)
    (tmp_path / "victim/secret/key").write_text("secret")
    (tmp_path / "victim/inner").symlink_to("secret/key")
    workspace = make(f"FROM scratch\nCOPY {source} /leak/\n", **{".dockerignore": rules, "d/x": ""})
    for link in ("hid", "d/hid"):
        (workspace.root / link).symlink_to(tmp_path / "victim")
    with pytest.raises(BuilderError, match=r"Dockerfile:2: .*or \.dockerignore hides it"):
        build(workspace, store)


@pytest.mark.parametrize("name", ["stages/a/Dockerfile", ".dockerignore"])
def test_a_recipe_that_is_a_link_out_of_the_repository_is_not_read(
    make: Make, tmp_path: Path, name: str
) -> None:
    root = make("FROM scratch\n").root
    (tmp_path / "passwd").write_text("root:x:0:0\n")
    (root / name).unlink(missing_ok=True)
    (root / name).symlink_to(tmp_path / "passwd")
    with pytest.raises(BuilderError, match=f"{name}: a link leads out of the repository") as found:
        assert Workspace.load(root).target("a").recipe
    assert "root:x" not in str(found.value)


def test_a_name_with_a_backslash_comes_back_from_the_image(make: Make, store: Store) -> None:
    name = r"system-systemd\x2dcrypt.slice"
    workspace = make("FROM scratch\nCOPY odd/ /\n", **{f"odd/{name}": "x"})
    image = build(workspace, store)["a"].image
    assert name in {entry.path for entry in image_entries(store, image)}


def latin(root: Path) -> None:
    Path(os.fsdecode(os.fsencode(root / "src") + b"/caf\xe9")).write_text("x")


def latin_target(root: Path) -> None:
    (root / "src/link").symlink_to(os.fsdecode(b"caf\xe9"))


def special(root: Path) -> None:
    os.mkfifo(root / "src/pipe")


def outside(root: Path) -> None:
    (root / "src/out").symlink_to("../../elsewhere")


def circle(root: Path) -> None:
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("one")


@pytest.mark.parametrize(
    ("change", "source", "says"),
    [
        (special, "src/", r"src/pipe: not a file, folder or link; move it out of the context"),
        (outside, "src/", r"src/out: the link leaves the repository, to ../../elsewhere"),
        (outside, "src/out", r"src/out: the link leaves the repository"),
        (latin, "src/", r"the name b'src/caf\\xe9' is not UTF-8; rename the file"),
        (latin, "src/caf*", r"the name b'src/caf\\xe9' is not UTF-8; rename the file"),
        (latin_target, "src", r"the name b'caf\\xe9' is not UTF-8"),
        (circle, "one/x", r"'one/x' leads through links in a circle"),
        (circle, "none", r"'none' is not there \(or .dockerignore hides it\)"),
        (circle, "no*", r"nothing matches 'no\*' \(or .dockerignore hides it\)"),
        (circle, "src stages", r"several files go to '/to', which must end with /"),
    ],
)
def test_what_cannot_be_copied_is_refused_with_its_line(
    make: Make, store: Store, change: Callable[[Path], None], source: str, says: str
) -> None:
    workspace = make(f"FROM scratch\nCOPY {source} /to\n", **{"src/run": "x"})
    change(workspace.root)
    with pytest.raises(BuilderError, match=r"^stages/a/Dockerfile:2: " + says):
        build(workspace, store)


def test_a_workspace_that_cannot_be_read_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(BuilderError, match=r"x/a/Dockerfile: the target a is in .* rename one"):
        make("FROM scratch\n", "one", **{"stages/x/a/Dockerfile": "FROM scratch\n"})
    root = make("FROM scratch\n", "two").root
    (root / "stages/a/Dockerfile").write_bytes(b"FROM scratch\nENV a=\xff\n")
    with pytest.raises(BuilderError, match=r"^stages/a/Dockerfile: the recipe cannot be read"):
        assert Workspace.load(root).target("a").recipe
    with pytest.raises(BuilderError, match=r"has no stages/\*/Dockerfile; is it the repository"):
        Workspace.load(tmp_path / "two" / "stages")


def test_rules_for_one_recipe_alone_are_refused(make: Make) -> None:
    workspace = make("FROM scratch\n", **{"stages/a/Dockerfile.dockerignore": "*\n"})
    with pytest.raises(BuilderError, match=r"a/Dockerfile.dockerignore: .* move them to"):
        assert workspace.target("a").recipe


def test_a_pattern_of_many_stars_takes_no_longer_than_one_of_one() -> None:
    """Each star more multiplied the time, up to days."""
    began = time.process_time()
    names = ["a" * 255, "/".join(["a" * 30] * 100)]
    for pattern in (
        "*a" * 60 + "b",
        "**/a/" * 30 + "b",
        "**/*a*a*a/" * 12 + "b",
        "a**" * 3 + "**b",
    ):
        rules = Ignore.parse(pattern)
        assert not any(rules.hides(name) for name in names)
    assert time.process_time() - began < 2
    with pytest.raises(BuilderError, match=r"\.dockerignore:1: .*too many \*\* within names"):
        Ignore.parse("a**b**c**d**e**f")


def test_a_file_that_is_copied_keeps_everything_else_that_is_known_of_it() -> None:
    values: dict[str, Any] = {field.name: f"its {field.name}" for field in fields(Entry)}
    values |= {"kind": "file", "path": "a/x"}
    taken = [copying.Taken("a", "a", (Entry("a", "dir"), Entry(**values)))]
    copy = copying.Copy(("a",), "/b", "/", "7:8", 0o600)
    placed = copying.place(copy, taken, NOTHING)
    assert placed[-1] == replace(Entry(**values), path="b/x", uid=7, gid=8, mode=0o600)
