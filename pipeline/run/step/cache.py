"""Finished steps by fingerprint: a folder each, whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.oci import canonical
from pipeline.errors import PipelineError
from pipeline.run import beneath


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

    def get(self, fingerprint: str, out: Path, claims: Mapping[str, Path]) -> dict[str, Any] | None:
        """Bring the outputs of a finished step to `out` and return its result, or None.

        An entry whose files are not what they were is removed and counts as none; so is one of a
        step whose files in a claim of `claims` are not there any more as it left them.
        """
        entry = self.root / fingerprint
        try:
            result: dict[str, Any] = json.loads((entry / "result.json").read_bytes())
            if claims and not _still_there(
                json.loads((entry / "claims.json").read_bytes()), claims
            ):
                raise ValueError
            shutil.copytree(entry / "out", out, symlinks=True, dirs_exist_ok=True)
        except (OSError, ValueError):
            return None
        if content_digest(out) != result["content"]:
            shutil.rmtree(entry, ignore_errors=True)
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            return None
        with suppress(OSError):
            os.utime(entry)  # for `gc` to see that it was of use
        return result

    def put(self, fingerprint: str, out: Path, result: dict[str, Any]) -> None:
        """Keep the outputs of a step that succeeded."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(dir=self.root, prefix="new-"))
        except OSError:
            return  # as below
        try:
            shutil.copytree(out, temporary / "out", symlinks=True)
            document = {**result, "content": content_digest(out)}
            (temporary / "result.json").write_text(json.dumps(document))
            shutil.rmtree(self.root / fingerprint, ignore_errors=True)
            temporary.rename(self.root / fingerprint)
        except OSError:
            pass  # another run was faster, or the disk is full: a cache may lack an entry
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def left(
        self, fingerprint: str, claims: Mapping[str, Path], began: float, ended: float
    ) -> None:
        """Add to an entry which files of `claims` changed last while its step ran.

        Called when the whole run has ended: what the step's neighbours changed meanwhile and
        removed again is then gone, and what a later step took over has a later time. Without this
        an entry of a step that can write to claims is not used.
        """
        found = {
            claim: {
                name: _below(folder, name)
                for name in _changed(folder, began - _TICK, ended + _TICK)
            }
            for claim, folder in claims.items()
        }
        with suppress(OSError):
            (self.root / fingerprint / "claims.json").write_text(json.dumps(found))


_TICK = 0.02  # seconds by which the clock of a file system can be behind


def _still_there(found: Mapping[str, Mapping[str, str]], claims: Mapping[str, Path]) -> bool:
    return found.keys() == claims.keys() and all(
        _below(claims[claim], name) == digest
        for claim, files in found.items()
        for name, digest in files.items()
    )


def _changed(folder: Path, began: float, ended: float) -> list[str]:
    """Return the files below `folder`, no links, whose last change fell into a time."""
    return sorted(
        name
        for name, status, _ in beneath.entries(folder)
        if stat.S_ISREG(status.st_mode) and began <= status.st_ctime <= ended
    )


def _below(folder: Path, name: str) -> str:
    """Return the digest of a file of a claim; "" where none is there: steps can change it."""
    try:
        with beneath.opened(folder, name) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, PipelineError):
        return ""
