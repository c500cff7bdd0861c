"""Finished steps by fingerprint: a folder each, whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder import canonical


def content_digest(path: Path) -> str:
    """Return the sha256 over names, link targets and contents below `path`; "" where nothing is."""
    if path.is_file():
        return _file(path)
    if not path.exists():
        return ""
    found = {}
    for folder, folders, files in os.walk(path):
        for name in [*files, *folders]:
            item = Path(folder, name)
            shown = item.relative_to(path).as_posix()
            if item.is_symlink():
                found[shown] = "-> " + str(item.readlink())
            else:
                found[shown] = _file(item) if item.is_file() else "folder"
    return canonical.sha256(canonical.dumps(found))


def _file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class Cache:
    """Results of steps below `root`, one folder a fingerprint: result.json and out/."""

    root: Path

    def get(self, fingerprint: str, out: Path) -> dict[str, Any] | None:
        """Bring the outputs of a finished step to `out` and return its result, or None.

        An entry whose files are not what they were is removed and counts as none.
        """
        entry = self.root / fingerprint
        try:
            result: dict[str, Any] = json.loads((entry / "result.json").read_bytes())
            shutil.copytree(entry / "out", out, symlinks=True, dirs_exist_ok=True)
        except (OSError, ValueError):
            return None
        if content_digest(out) != result["content"]:
            shutil.rmtree(entry, ignore_errors=True)
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            return None
        return result

    def put(self, fingerprint: str, out: Path, result: dict[str, Any]) -> None:
        """Keep the outputs of a step that succeeded."""
        self.root.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=self.root, prefix="new-"))
        try:
            shutil.copytree(out, temporary / "out", symlinks=True)
            document = {**result, "content": content_digest(out)}
            (temporary / "result.json").write_text(json.dumps(document))
            temporary.rename(self.root / fingerprint)
        except OSError:
            pass  # another run was faster, or the disk is full: a cache may lack an entry
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
