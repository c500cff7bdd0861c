"""The table of attacks has one source, and is only called held where tests ran and passed."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import BuilderError
from cli import attacks

HEAD = "## Attacks\n\n| attack | ends in | tried by |\n|---|---|---|\n"


def test_every_attack_of_the_page_names_tests_that_are_there() -> None:
    assert len(attacks.listed()) > 20


@pytest.mark.parametrize(
    ("row", "says"),
    [("| a | b | `tests/cli/test_attacks.py::test_gone` |", "test_gone, which is gone"),
     ("| a | b | `tests/cli/gone.py::test_x` |", "which is gone"),
     ("| a | b | `tests/cli/` |", "names no test"), ("", "no table of attacks")],
)  # fmt: skip
def test_a_row_without_a_test_is_refused(tmp_path: Path, row: str, says: str) -> None:
    (tmp_path / "page.md").write_text(HEAD + row + "\n")
    with pytest.raises(BuilderError, match=says):
        attacks.listed(tmp_path / "page.md")


@pytest.mark.parametrize(
    ("lines", "held"),
    [
        (["PASSED tests/x/test_a.py::test_one[p]", "PASSED tests/x/test_a.py::test_two"], True),
        (["PASSED ../tests/test_a.py::test_one", "PASSED ../tests/test_a.py::test_two"], True),
        (["PASSED tests/x/test_a.py::test_one"], False),
        (["PASSED test_a.py::test_one", "SKIPPED test_a.py::test_two"], False),
        (["PASSED test_a.py::test_one[p]", "FAILED test_a.py::test_one[q] - x",
          "PASSED test_a.py::test_two"], False),
        (["ERROR tests/x/test_a.py", "1 error in 3 s"], False),
        ([], False),
    ],
)  # fmt: skip
def test_an_attack_is_held_where_all_its_tests_ran_and_passed(lines: list[str], held: bool) -> None:
    tests = (("tests/x/test_a.py", "test_one"), ("tests/x/test_a.py", "test_two"))
    (done,) = attacks.judged([attacks.Attack("a", "b", tests)], lines)
    assert done.held is held


def test_seconds_are_those_of_its_tests() -> None:
    (done,) = attacks.judged(
        [attacks.Attack("a", "b", (("tests/x/test_a.py", "test_one"),))],
        ["0.25s setup    tests/x/test_a.py::test_one[p]",
         "1.50s call     tests/x/test_a.py::test_one[p]",
         "9.00s call     tests/x/test_a.py::test_two"],
    )  # fmt: skip
    assert done.seconds == 1.75
