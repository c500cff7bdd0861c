"""Entries written below a folder: every name is looked up from there, and no link is followed.

The kernel's own look-up does it: each folder on the way is opened from the one before, and a link
in its place is an error (openat(2), O_NOFOLLOW).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO, Self

from builder.oci.entry import Entry

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20


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
    """The folders below `root`, opened one from the other; all on the way to the last stay open."""

    def __init__(self, root: Path, *, make: bool = True) -> None:
        self._open = [os.open(root, _FOLDER)]
        self._parts: list[str] = []
        self._path = ""
        self._make = make

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for folder in self._open:
            os.close(folder)

    def folder(self, path: str) -> int:
        """Return a descriptor of the folder `path`, valid until the next call."""
        if path == self._path:
            return self._open[-1]
        parts = path.split("/") if path else []
        both = zip(parts, self._parts, strict=False)
        shared = sum(1 for _ in takewhile(lambda names: names[0] == names[1], both))
        while len(self._parts) > shared:
            self._path = self._path.rpartition("/")[0]
            self._parts.pop()
            os.close(self._open.pop())
        for name in parts[shared:]:
            self._open.append(self._enter(name))
            self._parts.append(name)
            self._path = "/".join(self._parts)
        return self._open[-1]

    def _enter(self, name: str) -> int:
        if self._make:
            with suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=self._open[-1])
                made = os.open(name, _FOLDER, dir_fd=self._open[-1])
                os.fchmod(made, 0o755)  # whatever the umask
                return made
        return os.open(name, _FOLDER, dir_fd=self._open[-1])


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
    try:
        with entry.open() as stream:
            while chunk := stream.read(_CHUNK):
                _write(opened, chunk)
        os.fchmod(opened, entry.mode & 0o1777 | 0o400)
    finally:
        os.close(opened)


def _write(file: int, data: bytes) -> None:
    """Write all of `data`: the kernel takes a part where the disk is full, and refuses the rest."""
    while (written := os.write(file, data)) < len(data):
        data = data[written:]


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
