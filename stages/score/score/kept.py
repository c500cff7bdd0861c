"""The tables of scored plates on the workspace, each by the digest of its folder.

    <workspace>/<workspace_name>/scores/<64 hex digits>/

So the last step of a screen is handed digests alone, and knows that it reads what was scored.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from common import digest
from common.errors import StageError
from common.workspace import checked, workspace_root

_AGAIN = "run again with the parameter fresh set to a new text"


def folder_of(workspace: str, of: str) -> Path:
    """Return where the workspace keeps the tables with the digest `of`.

    Raises StageError without a workspace, and for what is no digest.
    """
    root = workspace_root()
    if not workspace or not root.is_dir():
        raise StageError(
            "the tables of a screen's plates are kept on the workspace: "
            + ("set workspace_name" if not workspace else f"nothing is mounted at {root}")
        )
    name = of.removeprefix("sha256:")
    if len(name) != 64 or not set(name) <= set("0123456789abcdef"):
        raise StageError(f"{of!r} is no digest of a plate's tables; {_AGAIN}")
    return root / checked(workspace) / "scores" / name


def keep(folder: Path, workspace: str) -> str:
    """Copy a plate's tables to the workspace, whole or not at all; return their digest.

    Raises OSError where it cannot be written.
    """
    found = digest.folder_digest(folder)
    target = folder_of(workspace, found)
    if target.is_dir() and digest.folder_digest(target) == found:
        return found
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.rmtree(target, ignore_errors=True)  # damaged
        shutil.copytree(folder, unfinished)
        try:
            unfinished.rename(target)
        except OSError:
            if not target.is_dir():  # another run may have made the same
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return found


def kept(workspace: str, of: str) -> Path:
    """Return the folder with the digest `of`; raises StageError where it is gone or was changed."""
    folder = folder_of(workspace, of)
    if not folder.is_dir():
        raise StageError(f"the workspace has no tables {of} ({folder}); {_AGAIN}")
    if digest.folder_digest(folder) != of:
        raise StageError(f"the tables in {folder} were changed; {_AGAIN}")
    return folder
