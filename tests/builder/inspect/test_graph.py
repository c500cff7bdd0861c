"""Who stands on whom, as text and pictures, and what a range of git's history touches."""

from __future__ import annotations

import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.inspect import graph
from builder.inspect.affected import changed_since, with_changed_tests
from builder.store import Store
from tests.builder.conftest import Make

RECIPES = {
    "stages/b/Dockerfile": "ARG on=a\nFROM $on AS inner\nCOPY b.txt /\nFROM a\n"
    "COPY --from=inner /b.txt /\n",
    "stages/c/Dockerfile": "FROM scratch\nCOPY --from=b /b.txt /c.txt\n",
    "stages/a/tests/test_a.py": "",
    "src": "x",
    "b.txt": "b",
}


def _acyclic(size: int) -> st.SearchStrategy[graph.Needs]:
    below = [
        st.frozensets(st.sampled_from([f"t{m}" for m in range(n)] or ["t0"])) for n in range(size)
    ]
    return st.fixed_dictionaries(
        {f"t{n}": b if n else st.just(frozenset()) for n, b in enumerate(below)}
    )


LAYERED = st.integers(1, 12).flatmap(_acyclic)


def test_from_and_copy_from_make_dependents(make: Make) -> None:
    found = graph.needs(make("FROM scratch\nCOPY src /\n", **RECIPES))
    assert graph.dependents(found) == {"a": ["b"], "b": ["c"], "c": []}


def test_targets_that_need_each_other_are_named() -> None:
    with pytest.raises(BuilderError, match=r"targets need each other: a -> b -> a"):
        graph.text({"a": frozenset("b"), "b": frozenset("a")})


@given(LAYERED)
def test_everything_is_drawn_to_the_right_of_what_it_stands_on(needs: graph.Needs) -> None:
    root = ElementTree.fromstring(graph.svg(needs))
    name = "{http://www.w3.org/2000/svg}"
    labels = [element.text for element in root.iter(f"{name}text")]
    boxes = [(int(e.get("x", "")), int(e.get("y", ""))) for e in root.iter(f"{name}rect")]
    at = dict(zip(labels, boxes, strict=True))
    assert sorted(at) == sorted(needs)
    assert len(set(boxes)) == len(needs), "two boxes in one place"
    assert all(at[below][0] < at[above][0] for above in needs for below in needs[above])
    arrows = sum(map(len, needs.values()))
    assert len(root.findall(f"{name}path")) == arrows
    assert graph.mermaid(needs).count("-->") == arrows


@pytest.fixture
def repository(make: Make) -> Workspace:
    workspace = make("# the first\nFROM scratch\nCOPY src /\n", **RECIPES)
    for command in ("init -q", "add .", "-c user.name=n -c user.email=e commit -q -m first"):
        subprocess.run(["git", *command.split()], cwd=workspace.root, check=True)
    return workspace


@pytest.mark.parametrize(
    ("changed", "text", "touched"),
    [
        ("stages/a/Dockerfile", "# a comment\nFROM scratch\nCOPY src /\n", ""),
        ("stages/a/Dockerfile", "FROM scratch\nENV a=1\nCOPY src /\n", "abc"),
        ("src", "changed", "abc"),
        ("b.txt", "changed", "bc"),
        ("README", "new", ""),
        ("stages/a/tests/test_b.py", "new", ""),
    ],
)
def test_a_range_touches_the_targets_whose_keys_it_changes(
    repository: Workspace, store: Store, changed: str, text: str, touched: str
) -> None:
    (repository.root / changed).write_text(text)
    found = changed_since(Workspace.load(repository.root), store, "HEAD")
    assert {name for name, differs in found.items() if differs} == set(touched)
    assert with_changed_tests(repository, "HEAD") == ({"a"} if "/tests/" in changed else set())


def test_a_file_that_is_gone_touches_what_copied_it(repository: Workspace, store: Store) -> None:
    (repository.root / "stages/b/Dockerfile").write_text("FROM a\n")
    (repository.root / "b.txt").unlink()
    (repository.root / "stages/c/Dockerfile").write_text("FROM scratch\nCOPY --from=a /src /\n")
    found = changed_since(Workspace.load(repository.root), store, "HEAD")
    assert found == {"a": False, "b": True, "c": True}


@pytest.mark.parametrize("again", [True, False], ids=["mended since", "still bad"])
def test_a_recipe_that_could_not_be_read_counts_as_touched_and_no_other(
    repository: Workspace, store: Store, again: bool
) -> None:
    (repository.root / "stages/c/Dockerfile").write_text("FROM scratch\nRUN no\n")
    command = "-c user.name=n -c user.email=e commit -q -a -m second"
    subprocess.run(["git", *command.split()], cwd=repository.root, check=True)
    if again:
        (repository.root / "stages/c/Dockerfile").write_text(RECIPES["stages/c/Dockerfile"])
    found = changed_since(Workspace.load(repository.root), store, "HEAD")
    assert found == {"a": False, "b": False, "c": True}


def test_the_working_tree_and_the_index_stay_as_they_are(
    repository: Workspace, store: Store
) -> None:
    def status() -> bytes:
        command = ["git", "status", "--porcelain"]
        return subprocess.run(command, cwd=repository.root, check=True, capture_output=True).stdout

    (repository.root / "src").write_text("changed")
    before = status()
    changed_since(repository, store, "HEAD")
    assert status() == before


@pytest.mark.parametrize("revision", ["nowhere", "--help"])
def test_a_revision_that_git_does_not_know_is_named(
    repository: Workspace, store: Store, revision: str
) -> None:
    with pytest.raises(BuilderError, match=r"git rev-parse in .* failed: .*revision"):
        changed_since(repository, store, revision)


def test_without_git_the_folder_is_named(make: Make, store: Store, tmp_path: Path) -> None:
    workspace = make("FROM scratch\nCOPY src /\n", src="x")
    with pytest.raises(BuilderError, match=r"git rev-parse in .*workspace failed"):
        changed_since(workspace, store, "HEAD")
