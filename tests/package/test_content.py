"""The package stage's image holds what the stage imports, and nothing else of the builder."""

from __future__ import annotations

from pathlib import Path

import grimp
import pytest

from builder.build.make import plans
from builder.build.workspace import Workspace
from builder.store import Store

ROOT = Path(__file__).parents[2]
ROOMS = ("builder.oci", "builder.store", "builder.registry")
BESIDE = ("builder", "builder.errors", "builder.folders", "builder.platform")


def keys(workspace: Workspace, store: Store) -> dict[str, str]:
    return {name: plan.key for name, plan in plans(workspace, store).items()}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(tmp_path_factory.mktemp("store"))


def changed_keys(monkeypatch: pytest.MonkeyPatch, store: Store, file: Path) -> set[str]:
    """Return the targets whose key changes with `file`; nothing is written."""
    from builder.build.planner import Planner

    before = keys(Workspace.load(ROOT), store)
    hashed = Planner.hash
    monkeypatch.setattr(
        Planner, "hash", lambda self, path: "0" * 64 if path == file else hashed(self, path)
    )
    after = keys(Workspace.load(ROOT), store)
    monkeypatch.undo()
    return {name for name, key in before.items() if after[name] != key}


def test_what_the_stage_imports_is_in_its_image(
    monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    assert changed_keys(monkeypatch, store, ROOT / "builder/registry/client.py") == {"package"}
    graph = grimp.build_graph("builder")
    for room in ROOMS:
        outside = {
            name
            for name in graph.find_upstream_modules(room, as_package=True)
            if not name.startswith(ROOMS) and name not in BESIDE
        }
        assert not outside, f"{room} needs {outside}, which the image does not hold"


def test_no_other_module_of_the_floors_reaches_the_key_of_any_image(
    monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    """All of them at once: one hash that changes would change a key."""
    from builder.build.planner import Planner

    beside = ("__init__.py", *(f"{name.removeprefix('builder.')}.py" for name in BESIDE[1:]))
    held = {ROOT / "builder" / name for name in beside}
    held |= {path for room in ROOMS for path in (ROOT / room.replace(".", "/")).rglob("*.py")}
    others = {
        path
        for floor in ("builder", "pipeline", "cli")
        for path in (ROOT / floor).rglob("*.py")
        if path not in held
    }
    assert len(others) > 60
    before = keys(Workspace.load(ROOT), store)
    hashed = Planner.hash
    monkeypatch.setattr(
        Planner, "hash", lambda self, path: "0" * 64 if path in others else hashed(self, path)
    )
    assert keys(Workspace.load(ROOT), store) == before
