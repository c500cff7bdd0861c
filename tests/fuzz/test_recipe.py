"""Fuzz jobs: a Dockerfile, and a .dockerignore."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from builder.dockerfile import adding, instructions, recipe
from builder.dockerfile.dockerignore import Ignore, glob_pattern
from builder.errors import BuilderError

pytestmark = pytest.mark.slow

_RECIPE = b"""# a comment
ARG base=scratch
FROM --platform=linux/amd64 ${base} AS one
ENV A=1 B="x y" C='$A'
ARG tag
WORKDIR /app/$tag
COPY --from=wheels --chown=65532:65532 --chmod=0755 a b* ./
COPY ["a", "b"]
ADD --checksum=sha256:0123456789012345678901234567890123456789012345678901234567890123 https://a.example/b /c
ADD https://a.example/b.git#0123456789012345678901234567890123456789:sub /d
LABEL a=b \\
      c="d"
USER 1000:1000
EXPOSE 8080 8000-8010/udp
VOLUME /a
ENTRYPOINT ["a", "b"]
HEALTHCHECK --interval=30s --retries=3 CMD ["a"]
STOPSIGNAL SIGTERM
CMD python3 -m x
"""
_WORDS = [
    b"FROM ", b"ARG ", b"COPY ", b"ADD ", b"RUN ", b"ONBUILD ", b"EXPOSE ", b"HEALTHCHECK ", b"ENV ",
    b"${", b"${a:-${b:-", b"}", b"\\\n", b"\\", b'"', b"'", b"[", b"]", b"<<EOF", b"--from=", b"=",
    b"\r\n", b"\xef\xbb\xbf", b"#", b"# escape=`\n", b"99999999999999999999", b"http://[", b"://", b".git#",
]  # fmt: skip


def read_recipe(text: str) -> None:
    found = recipe.parse(text, "stages/x/Dockerfile")
    given = recipe.arguments(found)
    for stage in found.stages:
        config: instructions.Config = {}
        seen: set[str] = set()
        variables = dict(given)
        for step in stage.instructions:
            try:
                known = instructions.apply(config, step, variables, seen)
                if step.name == "ARG":
                    variables |= recipe.declared(step, variables, {})
                elif step.name == "ADD":
                    adding.parse(recipe.words(step, variables)[:-1], step.flags)
                elif not known:
                    recipe.words(step, variables)
            except BuilderError as error:
                raise recipe.refuse(found.path, step.line, error) from None
            seen.add(step.name)


def test_a_dockerfile(fuzz) -> None:
    texts = fuzz.mutated([_RECIPE], _WORDS).map(lambda d: d.decode("utf-8", "replace"))
    lines = st.lists(
        st.tuples(
            st.sampled_from([w.decode() for w in _WORDS[:9]]),
            st.text(st.sampled_from("aA0$/{}[]\"'\\:-+?=,. \t\r#<@*é\0"), max_size=24),
        ).map("".join), max_size=6,
    )  # fmt: skip
    made = lines.map(lambda found: "FROM scratch\n" + "\n".join(found))
    fuzz.run(read_recipe, texts | made, refusal=BuilderError, names="stages/x/Dockerfile:")


_PATHS = ["a", "a/b", "a/b/c.txt", "b/.git/x", "a" * 120, "/".join("a" * 12), "é/\udcff", "[x]"]


def read_ignore(text: str) -> None:
    rules = Ignore.parse(text)
    for path in _PATHS:
        rules.hides(path)
        rules.hides_in_seen(path)
        rules.may_let_in(path)


def test_a_dockerignore(fuzz) -> None:
    sample = b"# comment\n.git\n**/*.pyc\n!a/b/**\n/docs/*.md\n[a-c]?/x\n\\!odd\n"
    words = [
        b"**/",
        b"**",
        b"*",
        b"?",
        b"[",
        b"[^",
        b"]",
        b"-",
        b"\\",
        b"!",
        b"/",
        b"..",
        b"*a" * 12,
    ]
    texts = fuzz.mutated([sample], words).map(lambda d: d.decode("utf-8", "surrogateescape"))
    made = st.lists(st.text(st.sampled_from("*a?b/[]^-\\!. é|(+"), max_size=40), max_size=4)
    fuzz.run(read_ignore, texts | made.map("\n".join), refusal=BuilderError, names=".dockerignore:")


def test_a_pattern_of_copy(fuzz) -> None:
    def match(text: str) -> None:
        pattern = glob_pattern(text, deep=False)
        for path in _PATHS:
            pattern.fullmatch(path)

    made = st.lists(st.sampled_from(["*", "a", "*a", "?", "[a-c]", "[^a]", "/", "\\", "[", "é"]))
    fuzz.run(match, made.map("".join), refusal=BuilderError, names="")
