"""A small workspace whose stage is tested in an image."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Return a copy of the targets base and testing, with a folder for a stage `small`."""
    root = tmp_path / "workspace"
    for name in ("base", "testing"):
        shutil.copytree(ROOT / "stages" / name, root / "stages" / name, symlinks=True)
    (root / "stages/small/tests").mkdir(parents=True)
    return root
