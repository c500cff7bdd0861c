"""Small recipes with their context, as hypothesis makes them up, in every supported form."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

# Names in the context: what a shell, Go's filepath.Match or a Dockerfile reads in a way of its own.
_NAMES = (
    "a", "b", "c.txt", "sp ace", "q'uote", 'dq"', "[x]", "s*r", "w?y", "$V", "é", "-d", "..x",
    ".h", "#h", "!n", "a=b", "{x}", "~", "x,y", "@", ":", "%41", "B", "back\\s", "a.b.c",
    "--from=x", "ß", "n\u202fb",
)  # fmt: skip
_PLAIN = _NAMES[:3]
# Pieces of a value: quoted and escaped text, and the ways to name a variable that all engines know.
_PIECES = (
    "a", "b", "é", "x.y", "-", "_", ":", "=", "%", ",", "~", "@", "+", "!", "'x y'", '"x y"',
    "\\ ", "''", '""', "\\$", '\\"', "\'", "\\\\", "\\a", "$V", "${V}", '"$V"', "'$V'", '"\\$V"',
    '"a\\b"', '"\'"', '\'"\'', "${W:-d}", "${NONE:-d e}", "${EMPTY:-x}",
    "${V:+p}", "${EMPTY:+p}", "${NONE:+p}", "${V:-${W}}",
    "${NONE:-${W}}", "${NONE:-'a b'}", '${NONE:-"$V"}', "${V:?m}", "$NONE", "$W", "${W}y", "$V$W",
    '"${NONE:-x y}"', "${NONE:-\\}}", "$V_x", "{", "}", "[", "]", "#", "*", "?", "/", "<", ">",
    "|", "&", ";", "(", ")", "`",
)  # fmt: skip
_WILD = (
    "'", '"', "\\", "$", "${", "$$", "$1", "$1a", "$@", "${V#a}", "${V%b}", "${V/a/b}", "$é",
    "${V:}", "${V:?}", "${NONE:?m}", "\t", " ", "  ",
)  # fmt: skip
_WORDS = ("x", "y", "/x", "/x/y", "z/", "/z/", ".", "./", "..", "../x", "/", "/x/../y", "x//y/")


@dataclass(frozen=True)
class Example:
    """A recipe, its context (files by content, links by target) and its .dockerignore."""

    recipe: str
    files: dict[str, str]
    links: dict[str, str]
    programs: frozenset[str]
    rules: str | None


def value(pieces: int = 4) -> st.SearchStrategy[str]:
    """Return a value of ENV, LABEL or ARG."""
    piece = st.one_of(*[st.sampled_from(_PIECES)] * 40, st.sampled_from(_WILD))
    return st.lists(piece, max_size=pieces).map("".join)


@st.composite
def spelled(draw: Any, name: str) -> str:
    """Return `name` as it may stand in a COPY: escaped, quoted, partly a pattern, or as it is."""
    way = draw(st.integers(0, 9))
    if way < 5:
        return "".join("\\" + c if c in "\"'$\\ " else c for c in name)
    if way == 5:
        return name
    if way == 6:
        return '"' + "".join("\\" + c if c in '"$\\' else c for c in name) + '"'
    if way == 7:
        return "".join("\\\\" + c if c in "[]*?" else c for c in name)
    at = draw(st.integers(0, max(0, len(name) - 1)))
    cut = draw(st.sampled_from(["*", "?", f"[{name[at : at + 1]}]", "[^q]", "[a-z]", "*/*", "**"]))
    return name[:at] + cut + name[at + 1 :]


@st.composite
def destinations(draw: Any) -> str:
    """Return where a COPY goes."""
    base = draw(st.sampled_from((*_WORDS, "$V", "/${W:-w}/", "/l/", "/l/x", "/e/f/", '"/q"', "é/")))
    return str(base)


@st.composite
def copies(draw: Any, paths: list[str], stages: list[str]) -> str:
    """Return a COPY from the context or an earlier stage."""
    flags = []
    if stages and draw(st.booleans()):
        flags.append("--from=" + draw(st.sampled_from(stages)))
        choices = st.sampled_from(["/", "/etc", "etc/", "/*", "/etc/*", "/e*/", "*/pass*", "/x"])
        sources = draw(st.lists(choices, min_size=1, max_size=2))
    else:
        path = st.sampled_from([*paths, ".", "*", "/", "./", "*/*", "?"])
        sources = draw(st.lists(path.flatmap(spelled), min_size=1, max_size=3))
        around = st.sampled_from(["{}"] * 9 + ["./{}", "/{}", "{}/", "../{}"])
        sources = [draw(around).format(source) for source in sources]
    if draw(st.integers(0, 3)) == 0:
        owners = ["1", "1:2", "0:5", "$N:3", "me", "me:team", '"7":8', "${NONE:-9}"]
        flags.append("--chown=" + draw(st.sampled_from(owners)))
    if draw(st.integers(0, 3)) == 0:
        flags.append("--chmod=" + draw(st.sampled_from(["600", "0755", "777", "0444"])))
    to = draw(destinations())
    if len(sources) > 1 and draw(st.integers(0, 9)):
        to = to.rstrip("/") + "/"
    name = draw(st.sampled_from(["COPY", "COPY", "COPY", "copy", "Copy"]))
    if draw(st.integers(0, 4)) == 0:
        words = [*sources, to]
        if draw(st.booleans()):
            words = [word.replace("\\", "") for word in words]
        return " ".join([name, *flags, json.dumps(words, ensure_ascii=draw(st.booleans()))])
    space = draw(st.sampled_from([" ", " ", "  ", "\t", " \\\n  ", " \\\n# a comment\n "]))
    return space.join([name, *flags, *sources, to])


@st.composite
def commands(draw: Any) -> str:
    """Return what follows CMD or ENTRYPOINT: shell form, exec form, or what is nearly that."""
    if draw(st.booleans()):
        words = draw(st.lists(st.sampled_from(["a", "b c", "$V", "é", "\\", '"', ""]), max_size=3))
        text = json.dumps(words, ensure_ascii=draw(st.booleans()))
        return str(draw(st.sampled_from(["{}", "{}", " {} ", "{} \\\n", "[{}"])).format(text))
    words = ["run", "$V", "'a b'", '"a  b"', "\\", "&&", "[", "# c", "\\\n  on", "['a']", "é", "  "]
    return " ".join(draw(st.lists(st.sampled_from(words), min_size=1, max_size=4))).strip() or "x"


@st.composite
def instructions(draw: Any, paths: list[str], stages: list[str]) -> str:
    """Return one instruction."""
    key = st.sampled_from(["V", "W", "K", "L.m", "x-y", "EMPTY", '"k k"', "$V", "N2"])
    pair = st.builds("{}={}".format, key, value())
    pairs = st.lists(pair, min_size=1, max_size=3).map(" ".join)
    gaps = st.lists(pair, min_size=1, max_size=3).map(" \\\n\n # c\n   ".join)
    ports = ["80", "81/udp", "82-84", "85/TCP", "$P", "86 87", '"88"', "90-91/udp", "092"]
    exposed = st.lists(st.sampled_from(ports), min_size=1, max_size=2).map(" ".join)
    users = st.sampled_from(["1", "2:3", "me", "$N", '"4:5"', "${NONE:-6}", "me:team"])
    declared = st.sampled_from(["V", "TARGETARCH", "G", "NONE", "H"])
    folder = st.one_of(st.sampled_from(_WORDS), value().filter(str.strip))
    check = st.sampled_from(["CMD", "--interval=1m5s --retries=3 CMD"])
    ways = [
        *[copies(paths, stages)] * 6,
        st.builds("ENV {}".format, pairs),
        st.builds("ENV {}".format, gaps),
        st.builds("env {} {}".format, st.sampled_from(["V", "K"]), value(5).filter(str.strip)),
        st.builds("LABEL {}".format, pairs),
        st.builds("LABEL {} {}".format, st.sampled_from(["k", "l"]), value().filter(str.strip)),
        st.builds("ARG {}".format, st.one_of(pair, declared)),
        st.builds("WORKDIR {}".format, folder),
        st.builds("USER {}".format, users),
        st.builds("EXPOSE {}".format, exposed),
        st.builds("VOLUME {}".format, st.sampled_from(["/v", "/v /w", '["/v v"]', "$V", "v"])),
        st.builds("STOPSIGNAL {}".format, st.sampled_from(["9", "SIGINT", "$N", "INT"])),
        st.builds("CMD {}".format, commands()),
        st.builds("ENTRYPOINT {}".format, commands()),
        st.builds("HEALTHCHECK {} {}".format, check, commands()),
        st.just("HEALTHCHECK NONE"),
        st.sampled_from(["# a comment", "", "  # another \\", "\t", "#ENV V=no"]),
    ]  # fmt: skip
    return str(draw(st.one_of(*ways)))


@st.composite
def contexts(draw: Any) -> tuple[dict[str, str], dict[str, str], frozenset[str]]:
    """Return files by path, links by path, and which files are programs."""
    name = st.one_of(st.sampled_from(_PLAIN), st.sampled_from(_NAMES))
    path = st.lists(name, min_size=1, max_size=3).map("/".join)
    files: dict[str, str] = {}
    for found in draw(st.lists(path, min_size=2, max_size=8, unique=True)):
        if not any(f"{a}/".startswith(f"{b}/") for f in files for a, b in ((f, found), (found, f))):
            files[found] = draw(st.sampled_from(["", "1", "two\n"]))
    links: dict[str, str] = {}
    for number in range(draw(st.integers(0, 2))):
        target = draw(st.sampled_from([*files, *(f.split("/")[0] for f in files), "nowhere", "/x"]))
        links[f"l{number}"] = target
    programs = draw(st.sets(st.sampled_from(sorted(files))))
    return files, links, frozenset(programs)


@st.composite
def rule_files(draw: Any, paths: list[str]) -> str:
    """Return the text of a .dockerignore."""
    names = st.sampled_from([*paths, "*", "**", "*/*", "**/a", "a/**", "[a-b]", "?"])
    before = st.sampled_from(["", "", "!", "/", "./", "**/", " "])
    after = st.sampled_from(["", "", "/", "\r", " "])
    lines = st.builds("{}{}{}".format, before, names.flatmap(spelled), after)
    return "\n".join(draw(st.lists(lines, max_size=4))) + "\n!accounts\n"


@st.composite
def examples(draw: Any) -> Example:
    """Return a recipe of one to three stages over a context of a few files."""
    files, links, programs = draw(contexts())
    paths = sorted({*files, *links, *(f.rpartition("/")[0] for f in files if "/" in f)})
    lines = draw(
        st.lists(st.sampled_from(["ARG G=g", "ARG H", "# first", "ARG B=${G}s"]), max_size=2)
    )
    names: list[str] = []
    for number in range(draw(st.integers(1, 3))):
        base = draw(st.sampled_from(["scratch", *names])) if names else "scratch"
        name = f"s{number}"
        lines.append(
            draw(st.sampled_from(["FROM {} AS {}", "from {} as {}", "FROM  {}  As {}"])).format(
                base, name
            )
        )
        if base == "scratch":
            lines += ["ARG N=7 P=99", 'ARG V=va W="w w" EMPTY=', "COPY accounts /etc/"]
        earlier = [*names, *map(str, range(number))]
        lines += draw(st.lists(instructions(paths, earlier), max_size=7))
        names.append(name)
    # BuildKit passes over a stage that nothing uses, with its errors.
    lines += [f"COPY --from={name} / /{name}/" for name in names[:-1]]
    end = draw(st.sampled_from(["\n", "\n", "", " \\\n", "\r\n"]))
    rules = draw(st.one_of(st.none(), rule_files(paths)))
    text = (end if end == "\r\n" else "\n").join(lines) + end
    return Example(text, files, links, programs, rules)


def written(example: Example, root: Path) -> Path:
    """Write the workspace of an example and return its root; its recipe is that of target `a`."""
    files = {
        **example.files,
        "stages/a/Dockerfile": example.recipe,
        "accounts/passwd": "root:x:0:0::/:/\nme:x:1000:1001:Me:/home/me:/bin/sh\n",
        "accounts/group": "root:x:0:\nteam:x:2000:me\n",
    }
    if example.rules is not None:
        files[".dockerignore"] = example.rules
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
        path.chmod(0o755 if name in example.programs else 0o644)
    for name, target in example.links.items():
        (root / name).symlink_to(target)
    return root
