"""One writer at a time: a lock file on a volume that several runs, and machines, may mount.

The kernel's lock on the file (flock(2)) ends with its process, however that ends, and is seen from
every container of a machine, where numbers of processes are not the same. Of another machine the
file's time tells, which its owner renews. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import StageError

STALE_AFTER = 600.0  # seconds without a sign of life from a lock's owner
_BEAT = 30.0


class Held:
    """A lock that is held: the open file, and its path."""

    def __init__(self, path: Path, file: int) -> None:
        self._path = path
        self._file = file

    def is_ours(self) -> bool:
        """Tell whether the lock file is still the one that was made here."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._file))
        except OSError:
            return False

    def check(self) -> None:
        """Raise StageError where another run took the lock over, since this one seemed dead."""
        if not self.is_ours():
            raise StageError(
                f"another run took over {self._path} while this one gave no sign of life; start "
                "this run again, or use another workspace_name"
            )


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[Held]:
    """Hold the lock file beside `folder`; it says who writes there and since when.

    A lock whose process on this very machine is gone, or whose owner elsewhere gave no sign of life
    for `STALE_AFTER` seconds, is taken over. Raises StageError where another run holds it or where
    the workspace cannot be written.
    """
    path = folder.with_name(f".{folder.name}.lock")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(error.errno, "it is a file") from None
        file = _take(path, folder)
    except OSError as error:
        raise StageError(
            f"the workspace {path.parent} cannot be written: {error.strerror or error}; check the "
            "volume, or run with an empty workspace_name"
        ) from None
    held, done = Held(path, file), threading.Event()
    beat = threading.Thread(target=_keep_alive, args=(file, done), daemon=True)
    beat.start()
    try:
        yield held
    finally:
        done.set()
        beat.join()
        if held.is_ours():
            path.unlink(missing_ok=True)
        os.close(file)


def _take(path: Path, folder: Path) -> int:
    """Return the lock file, made and locked; a dead owner's is removed first."""
    for _ in range(2):
        try:
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            _refuse_or_clear(path, folder)
            continue
        fcntl.flock(file, fcntl.LOCK_EX)
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time(),
                 "run": os.environ.get("PLATELINE_RUN", "")}  # fmt: skip
        os.write(file, json.dumps(owner).encode())
        return file
    raise StageError(f"another run has just begun to write {folder}; wait for it")


def _keep_alive(file: int, done: threading.Event) -> None:
    while not done.wait(_BEAT):
        with contextlib.suppress(OSError):
            os.utime(file)


def _refuse_or_clear(path: Path, folder: Path) -> None:
    """Remove a dead owner's lock; raises StageError that names one that lives."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        silent = time.time() - os.fstat(file).st_mtime
        owner = _owner(file)
        # With the kernel's lock on it nobody else can be about to clear the same file.
        free = _free(file)
        # An owner says who it is when it has the kernel's lock, so one that says so and lacks it is
        # gone. Of one that has yet to say so nothing is known.
        gone = owner.get("host") == socket.gethostname()
        if not free or not (gone or silent > STALE_AFTER):
            raise _held_by(owner, silent, folder)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(file)):
                path.unlink()
    finally:
        os.close(file)


def _free(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _owner(file: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(file, 4096, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _held_by(owner: dict[str, Any], silent: float, folder: Path) -> StageError:
    who = str(owner.get("run") or f"process {owner.get('pid', 'unknown')}")[:200]
    host = str(owner.get("host", "unknown"))[:200]
    try:
        since = f", for {(time.time() - float(owner['since'])) / 60:.0f} minutes"
    except (KeyError, TypeError, ValueError):
        since = ""
    return StageError(
        f"another run writes {folder}: {who} on {host}"
        f"{since}, last seen {silent:.0f} s ago; wait for it, or use another workspace_name"
    )
