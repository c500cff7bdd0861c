"""A stage's tests run inside its image, and a pass is remembered until something changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from builder.build.stage_tests import run_tests
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.sandbox.bubblewrap import Bubblewrap
from builder.store import Store

ROOT = Path(__file__).parents[3]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Return a copy of the project's base and testing targets, and a stage `small` with a test."""
    root = tmp_path / "workspace"
    for name in ("base", "testing"):
        shutil.copytree(ROOT / "stages" / name, root / "stages" / name, symlinks=True)
    (root / "stages/small/tests").mkdir(parents=True)
    (root / "stages/small/Dockerfile").write_text('FROM base\nCMD ["python3"]\n')
    (root / "stages/small/tests/test_it.py").write_text(
        "import os, sys\n"
        "def test_where(): assert sys.version_info[:2] == (3, 13) and os.getuid() == 65532\n"
        "def test_other(): assert True\n"
    )
    return Workspace.load(root)


def test_a_pass_is_remembered_until_a_test_or_an_argument_changes(workspace: Workspace) -> None:
    store = Store.open()
    sandbox = Bubblewrap(store)
    test = workspace.root / "stages/small/tests/test_it.py"
    # Unique to this run, since a pass is remembered in the user's store.
    test.write_text(test.read_text() + f"# {workspace.root}\n")
    assert not run_tests(workspace, store, sandbox, "small").cached
    assert run_tests(workspace, store, sandbox, "small").cached
    assert not run_tests(workspace, store, sandbox, "small", ["-k", "where"]).cached
    test.write_text(test.read_text().replace("assert True", "assert False"))
    for _ in range(2):
        failed = run_tests(workspace, store, sandbox, "small")
        assert (failed.code, failed.cached) == (1, False)


def test_a_target_without_tests_says_so(workspace: Workspace) -> None:
    store = Store.open()
    with pytest.raises(BuilderError, match="base has no tests"):
        run_tests(workspace, store, Bubblewrap(store), "base")
