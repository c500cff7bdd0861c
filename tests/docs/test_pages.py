"""The pages: each is reachable, every link leads somewhere, and what they list is all there is."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import figures

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
TEST = re.compile(r"`((?:tests|stages)/[\w/]+\.py)::(test_\w+)`")
LINK = re.compile(r"!?\[[^]]*\]\(([^)\s#]+)[^)]*\)")


def links(page: Path) -> set[Path]:
    """Return the files of this repository that a page links to."""
    found = LINK.findall(page.read_text(encoding="utf-8"))
    return {(page.parent / link).resolve() for link in found if "://" not in link}


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    assert not [link for link in links(page) if not link.exists()]


def test_every_test_that_a_page_names_exists() -> None:
    named = [(page, *found) for page in PAGES for found in TEST.findall(page.read_text())]
    assert len(named) > 20
    for page, path, name in named:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"^def {name}\(", text, re.MULTILINE), f"{page.name}: {path}::{name}"


def test_every_page_is_reachable_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            waiting += links(page)
    assert set(PAGES) <= reached


def test_the_picture_of_the_architecture_is_the_one_that_the_code_gives() -> None:
    drawn = load(ROOT / "docs/draw.py").draw()
    assert (ROOT / "docs/architecture.svg").read_text(encoding="utf-8") == drawn, (
        "run .venv/bin/python docs/draw.py"
    )


@pytest.mark.parametrize("page", figures.PAGES, ids=lambda page: page.name)
def test_the_numbers_on_a_page_are_those_of_the_one_file(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<!-- figures: " in text
    assert text == figures.rendered(text), "run .venv/bin/python -m benchmarks.figures"


def test_every_variable_is_on_the_page_of_variables() -> None:
    text = (ROOT / "docs/environment.md").read_text(encoding="utf-8")
    known = set(re.findall(r"`(PLATELINE_[A-Z0-9_]+)`", text))
    files = [ROOT / "invoke", ROOT / ".ci/run", ROOT / "tests/compose.yaml"]
    for folder in ("builder", "cli", "pipeline", "stages", "tests", "benchmarks"):
        files += (ROOT / folder).rglob("*.py")
    name = re.compile(r"PLATELINE_[A-Z0-9_]+[A-Z0-9]")
    used = {found for file in files for found in name.findall(file.read_text())}
    assert used == known
