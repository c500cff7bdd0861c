"""Opening what lies below a folder, without ever following a link out of it.

A step decides what its output folder holds, so a path below it is resolved by the kernel and
relative to a descriptor (openat2 with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS, Linux 5.6:
https://man7.org/linux/man-pages/man2/openat2.2.html); on a kernel without it, part by part with
O_NOFOLLOW.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from pipeline.errors import PipelineError

_OPENAT2 = 437  # of every architecture
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
_SPECIAL = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
_KINDS = {
    stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip


class Refused(PipelineError):  # noqa: N818 - what was done about it says more
    """A name, path or file that is not allowed. Trying again does not mend it."""


class _How(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64),
    )  # fmt: skip


def parts(name: str) -> list[str]:
    """Return the parts of a relative path; raises Refused where one leads elsewhere."""
    found = name.split("/")
    if any(part in ("", ".", "..") for part in found) or "\0" in name:
        raise Refused(
            f"the path {name!r} must lead down only: no leading /, no empty part, no . and no .."
        )
    return found


def descriptor(root: Path, name: str, flags: int = os.O_RDONLY) -> int:
    """Return a descriptor of `root`/`name`; the caller closes it.

    Raises Refused where a part of the name is a symbolic link or leads out, FileNotFoundError where
    nothing is there, and OSError as `open` does. `root` itself may be a link: it is the caller's.
    """
    found = parts(name)
    flags |= os.O_CLOEXEC
    if not flags & os.O_PATH:
        flags |= os.O_NONBLOCK  # to open a pipe must not wait for its other end
    base = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            return _openat2(base, name, flags)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM):
                raise
            return _by_parts(base, found, flags)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EXDEV):
            raise Refused(
                f"{root / name} is or passes through a symbolic link, which is not followed"
            ) from None
        raise OSError(error.errno, os.strerror(error.errno or 0), str(root / name)) from None
    finally:
        os.close(base)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _openat2(base: int, name: str, flags: int) -> int:
    how = _How(flags, 0, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS)
    for _ in range(100):  # EAGAIN: something was renamed meanwhile, so the kernel cannot be sure
        made = _libc().syscall(
            ctypes.c_long(_OPENAT2), ctypes.c_int(base), ctypes.c_char_p(os.fsencode(name)),
            ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how)),
        )  # fmt: skip
        if made >= 0:
            return int(made)
        if ctypes.get_errno() != errno.EAGAIN:
            break
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _by_parts(base: int, names: list[str], flags: int) -> int:
    here = os.dup(base)
    try:
        for name in names[:-1]:
            inner = _one(here, name, os.O_PATH | os.O_CLOEXEC)
            os.close(here)
            here = inner
        return _one(here, names[-1], flags)
    finally:
        os.close(here)


def _one(folder: int, name: str, flags: int) -> int:
    made = os.open(name, flags | os.O_NOFOLLOW, dir_fd=folder)
    if stat.S_ISLNK(os.fstat(made).st_mode):  # which O_PATH opens
        os.close(made)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return made


@contextmanager
def opened(root: Path, name: str) -> Iterator[BufferedReader]:
    """Yield the regular file `root`/`name` for reading; raises as `descriptor` does."""
    found = descriptor(root, name)
    mode = os.fstat(found).st_mode
    if not stat.S_ISREG(mode):
        os.close(found)
        raise Refused(f"{root / name} is {_kind(mode)}, not a file")
    with os.fdopen(found, "rb") as stream:
        yield stream


def read(root: Path, name: str, limit: int) -> bytes:
    """Return the content of the regular file `root`/`name`; raises Refused above `limit` bytes."""
    with opened(root, name) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise Refused(f"{root / name} is larger than the {limit / 2**20:.0f} MiB that are read")
    return data


def kind(root: Path, name: str) -> str:
    """Return "file", "folder" or "" (nothing is there); raises Refused for anything else."""
    try:
        found = descriptor(root, name, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    try:
        mode = os.fstat(found).st_mode
    finally:
        os.close(found)
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    raise Refused(f"{root / name} is {_kind(mode)}, neither a file nor a folder")


def make_folder(root: Path, name: str) -> None:
    """Make the folder `root`/`name` and those above it where they are missing."""
    here = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts(name):
            with suppress(FileExistsError):
                os.mkdir(part, 0o777, dir_fd=here)
            inner = os.open(
                part, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here
            )
            os.close(here)
            here = inner
    except NotADirectoryError:
        raise Refused(f"{root / name} passes through a link or a file") from None
    finally:
        os.close(here)


def check_tree(folder: Path) -> None:
    """Check that only files and folders lie below `folder`, strip special bits, make it readable.

    Raises Refused that names the first link, pipe, socket or device.
    """
    for found, mode in _tidied(folder, readable=True):
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            target = f" to {(folder / found).readlink()}" if stat.S_ISLNK(mode) else ""
            raise Refused(
                f"it left {found}, which is {_kind(mode)}{target}; outputs may hold files and "
                "folders only: write the content itself"
            )


def strip_special_bits(folder: Path, since: float) -> None:
    """Take set-user-ID, set-group-ID and sticky from what changed below `folder` after `since`.

    `since` is in seconds since 1970. What belongs to others is left alone.
    """
    for _ in _tidied(folder, readable=False, since=since):
        pass


def empty(folder: Path) -> None:
    """Remove all that lies below `folder`, whatever its kind and mode."""
    if not any(os.scandir(folder)):
        return
    for _ in _tidied(folder, readable=True):
        pass
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            Path(entry.path).unlink()


def entries(folder: Path) -> Iterator[tuple[str, os.stat_result, int]]:
    """Yield each name below `folder` (relative), what it is, and a descriptor of its own folder.

    A folder comes before what is in it; no link is followed; what vanishes meanwhile is left out.
    Raises Refused for folders in folders that are too many to walk.
    """
    try:
        for path, folders, files, here in os.fwalk(folder):
            for name in sorted([*folders, *files]):
                with suppress(FileNotFoundError):
                    status = os.stat(name, dir_fd=here, follow_symlinks=False)
                    yield os.path.relpath(Path(path, name), folder), status, here
    except RecursionError:
        raise Refused(f"{folder} holds folders within folders, too many to walk") from None


def _tidied(folder: Path, *, readable: bool, since: float = 0.0) -> Iterator[tuple[str, int]]:
    """Yield every name below `folder` (relative) with its mode, special bits taken away."""
    if readable:
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) & ~_SPECIAL | 0o700)
    for path, status, here in entries(folder):
        mode, wanted = status.st_mode, stat.S_IMODE(status.st_mode)
        if not stat.S_ISLNK(mode) and status.st_ctime >= since:
            wanted &= ~_SPECIAL
            if readable:
                wanted |= 0o700 if stat.S_ISDIR(mode) else 0o400
            if wanted != stat.S_IMODE(mode) and os.geteuid() in (0, status.st_uid):
                _chmod(path.rpartition("/")[2], here, wanted)
        yield path, mode


def _chmod(name: str, folder: int, mode: int) -> None:
    # fchmodat cannot refuse a link before Linux 6.6; a descriptor of the very file can.
    found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        if not stat.S_ISLNK(os.fstat(found).st_mode):
            Path(f"/proc/self/fd/{found}").chmod(mode)
    finally:
        os.close(found)


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "a folder" if stat.S_ISDIR(mode) else "of another kind")
