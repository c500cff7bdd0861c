"""sha256 of files, folders and plates. Standard library only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from .errors import StageError


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file as 64 hex digits. Raises StageError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StageError(f"cannot read {path}: {error.strerror or error}") from None


def file_hashes(path: Path) -> dict[str, str]:
    """Return relative name -> sha256 of every file below the folder `path` (of a file: its own).

    Links are refused: what is hashed must lie in the folder.
    """
    if not path.is_dir():
        return {path.name: file_sha256(path)}
    found = {}
    for entry in sorted(path.rglob("*")):
        if entry.is_symlink():
            raise StageError(f"{entry} is a link; a stage's files must be plain files")
        if entry.is_file():
            found[entry.relative_to(path).as_posix()] = file_sha256(entry)
    return found


def of_hashes(hashes: Mapping[str, str]) -> str:
    """Return `sha256:…` over sorted `name NUL sha256 LF`: the digest of a folder or plate."""
    digest = hashlib.sha256()
    for name in sorted(hashes):
        digest.update(f"{name}\0{hashes[name]}\n".encode())
    return "sha256:" + digest.hexdigest()


def folder_digest(path: Path) -> str:
    """Return the digest of a folder's or file's names and contents."""
    if path.is_dir():
        return of_hashes(file_hashes(path))
    return "sha256:" + file_sha256(path)
