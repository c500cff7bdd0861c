"""The files of a new stage are enough for its image, and its tests pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from builder.build.workspace import Workspace
from builder.errors import BuilderError
from cli.scaffold import new_stage

ROOT = Path(__file__).parents[2]
TESTS = """
import sys, pytest
sys.path[:0] = [{common!r}, {stage!r}]
raise SystemExit(pytest.main(["-q", "-p", "no:cacheprovider", {tests!r}]))
"""


def test_its_recipe_is_a_target_and_its_tests_pass(tmp_path: Path) -> None:
    new_stage(tmp_path, "letters")
    assert list(Workspace.load(tmp_path).targets) == ["letters"]
    folder = tmp_path / "stages/letters"
    code = TESTS.format(common=str(ROOT / "stages"), stage=str(folder), tests=str(folder / "tests"))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["", "Train", "my-stage", "json", "class", "common", "../x", "é"])
def test_a_name_that_is_no_module_and_no_image_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BuilderError, match=r"cannot be called|is a stage or folder"):
        new_stage(tmp_path, name)
    assert not list(tmp_path.rglob("*"))


def test_a_stage_that_is_there_is_left_alone(tmp_path: Path) -> None:
    new_stage(tmp_path, "letters")
    with pytest.raises(BuilderError, match="there is a stage or folder letters already"):
        new_stage(tmp_path, "letters")
