"""Small workspaces that need neither Debian nor PyPI."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from builder.build.workspace import Workspace

Make = Callable[..., Workspace]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that writes a workspace: the Dockerfile of target `a`, and more files."""

    def write(dockerfile: str, root: str = "workspace", **files: str) -> Workspace:
        folder = tmp_path / root
        for name, text in {"stages/a/Dockerfile": dockerfile, **files}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return Workspace.load(folder)

    return write
