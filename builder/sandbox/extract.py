"""Entries written below a folder: every name is looked up from there, and no link is followed.

The kernel's own look-up does it: each folder on the way is opened from the one before, and a link
in its place is an error (openat(2), O_NOFOLLOW).
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self

from builder.oci.entry import Entry

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def extract(root: Path, entries: Iterable[Entry]) -> None:
    """Write `entries` below `root`, each under its parents, which are made where they are missing.

    Owners are not kept: what is written is the caller's. Special bits but the sticky one are
    dropped, and the owner may always read. Raises OSError where the disk refuses, or where a link
    or a file is in a parent's place.
    """
    with _Below(root) as below:
        for entry in entries:
            folder, _, name = entry.path.rpartition("/")
            if entry.kind == "dir":
                os.fchmod(below.folder(entry.path), entry.mode & 0o1777 | 0o700)
            elif entry.kind == "symlink":
                _again(name, below.folder(folder))
                os.symlink(entry.target, name, dir_fd=below.folder(folder))
            elif entry.kind == "hardlink":
                _link(below, entry)
            else:
                _file(entry, name, below.folder(folder))


def open_below(root: Path, path: str) -> BinaryIO:
    """Open the file `path` below `root` for reading; raises OSError where a link is on the way."""
    with _Below(root, make=False) as below:
        folder, _, name = path.rpartition("/")
        found = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=below.folder(folder)
        )
        if not stat.S_ISREG(os.fstat(found).st_mode):
            os.close(found)
            raise OSError(f"{path} below {root} is not a file")
        return os.fdopen(found, "rb")


class _Below:
    """The folders below `root`, opened one from the other; the last one stays open."""

    def __init__(self, root: Path, *, make: bool = True) -> None:
        self._root = os.open(root, _FOLDER)
        self._path, self._last = "", os.dup(self._root)
        self._make = make

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._root)
        os.close(self._last)

    def folder(self, path: str) -> int:
        """Return a descriptor of the folder `path`, valid until the next call."""
        if path == self._path:
            return self._last
        if self._path and path.startswith(self._path + "/"):
            here, rest = self._last, path[len(self._path) + 1 :]
        else:
            os.close(self._last)
            here, rest = os.dup(self._root), path
        self._path, self._last = "", here  # closed in any case
        for name in rest.split("/") if rest else ():
            there = self._enter(name)
            os.close(self._last)
            self._last = there
        self._path = path
        return self._last

    def _enter(self, name: str) -> int:
        try:
            return os.open(name, _FOLDER, dir_fd=self._last)
        except FileNotFoundError:
            if not self._make:
                raise
        os.mkdir(name, 0o755, dir_fd=self._last)
        made = os.open(name, _FOLDER, dir_fd=self._last)
        os.fchmod(made, 0o755)  # whatever the umask
        return made


def _again(name: str, folder: int) -> None:
    """Remove what a later entry of the same path replaces; a folder is left, and refused."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def _file(entry: Entry, name: str, folder: int) -> None:
    try:
        opened = os.open(name, _NEW, 0o600, dir_fd=folder)
    except FileExistsError:
        _again(name, folder)
        opened = os.open(name, _NEW, 0o600, dir_fd=folder)
    with os.fdopen(opened, "wb") as sink, entry.open() as stream:
        shutil.copyfileobj(stream, sink, 1 << 20)
        os.fchmod(opened, entry.mode & 0o1777 | 0o400)


def _link(below: _Below, entry: Entry) -> None:
    folder, _, name = entry.path.rpartition("/")
    source, _, old = entry.target.rpartition("/")
    with _kept(below.folder(source)) as there:
        if not stat.S_ISREG(os.stat(old, dir_fd=there, follow_symlinks=False).st_mode):
            raise OSError(f"{entry.path} is a hard link to {entry.target}, which is not a file")
        here = below.folder(folder)
        _again(name, here)
        os.link(old, name, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)


@contextmanager
def _kept(folder: int) -> Iterator[int]:
    copy = os.dup(folder)
    try:
        yield copy
    finally:
        os.close(copy)
