"""Recipes are Dockerfiles; what is not supported is refused with file, line and a way out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder import recipe
from builder.errors import BuilderError


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("FROM base\nRUN apt-get update\n", r"Dockerfile:2: RUN is not supported: .*debian\.in"),
        ("FROM base\n\n# note\nONBUILD COPY a b\n", r"Dockerfile:4: ONBUILD"),
        ("COPY a b\n", r"Dockerfile:1: COPY comes before the first FROM"),
        ("FROM base\nCOPY --link a b\n", r"Dockerfile:2: COPY --link is not supported"),
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
    assert recipe.pairs(stage.instructions[0], "", {}) == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$a/${a}", "1/1"),
        (r"\$a", "$a"),
        ("${none:-x}", "x"),
        ("${a:+y}${none:+z}", "y"),
        ("$none.", "."),
    ],
)
def test_variables_expand_as_docker_expands_them(text: str, expanded: str) -> None:
    assert recipe.expand(text, {"a": "1"}) == expanded


@given(st.text(alphabet=st.characters(exclude_characters="$\\")))
def test_text_without_dollar_or_backslash_is_left_alone(text: str) -> None:
    assert recipe.expand(text, {"a": "1"}) == text
