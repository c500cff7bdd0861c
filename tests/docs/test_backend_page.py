"""Each line of the page on the backend says how it is known, and names a test that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "backend.md").read_text(encoding="utf-8")
LINES = [
    line
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith(("| part |", "|---"))
]
TESTS = {
    name
    for file in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
}


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split("|")[1].strip()[:40])
def test_a_line_says_how_it_is_known_and_which_test_holds_it(line: str) -> None:
    _, _, here, backend, test, _ = (cell.strip() for cell in line.split("|"))
    assert here
    assert re.match(r"(seen (2\.17\.0|Argo 4\.0\.5)|read|not known)(\W|$)", backend), backend
    assert test.strip("`") in TESTS
