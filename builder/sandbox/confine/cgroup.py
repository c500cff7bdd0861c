"""Control groups: limits on memory and processes that nothing inside escapes.

Memory files (/dev/shm, memfd) count, and so does a child of whichever thread. Sources:
https://docs.kernel.org/admin-guide/cgroup-v2.html (Delegation Containment),
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html.
"""

from __future__ import annotations

import functools
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_CONTROLLERS = ("memory", "pids")
_PREFIX = "plateline-"


@dataclass(frozen=True, slots=True)
class Place:
    """The folders in which this process may make groups; with version 2 both are the same."""

    version: int
    memory: Path
    pids: Path

    def __str__(self) -> str:
        return f"cgroup v{self.version} below {self.memory}"


def find(proc: Path = Path("/proc/self")) -> Place | None:
    """Return where this process may make groups, or None; pure but for reading `proc` and below."""
    try:
        mounts = list(_mounts((proc / "mountinfo").read_text()))
        own = [line.split(":", 2) for line in (proc / "cgroup").read_text().splitlines()]
    except (OSError, ValueError):
        return None
    folders: dict[str, Path] = {}
    for _, names, path in own:
        for kind, root, point, options in mounts:
            if not names and kind == "cgroup2":
                if found := _second(point, _within(point, root, path)):
                    return Place(2, found, found)
            elif names and kind == "cgroup":
                for name in set(names.split(",")) & options & set(_CONTROLLERS):
                    folders[name] = _within(point, root, path)
    if all(name in folders and os.access(folders[name], os.W_OK) for name in _CONTROLLERS):
        return Place(1, folders["memory"], folders["pids"])
    return None


@functools.cache
def here() -> Place | None:
    """Return what `find` finds, once; groups that killed processes left there are removed."""
    place = find()
    if place is not None:
        for folder in {place.memory, place.pids}:
            for old in folder.glob(_PREFIX + "*"):
                if not Path("/proc", old.name.split("-")[1]).exists():
                    with suppress(OSError):
                        old.rmdir()  # the kernel refuses where a process is in it
    return place


def _mounts(text: str) -> Iterator[tuple[str, str, Path, set[str]]]:
    """Yield type, root, mount point and options of each mount (proc_pid_mountinfo(5))."""
    for line in text.splitlines():
        front, _, back = line.partition(" - ")
        words, tail = front.split(), back.split()
        yield tail[0], words[3], Path(words[4]), set(tail[-1].split(","))


def _within(point: Path, root: str, path: str) -> Path:
    """Return the folder of the group `path` below the mount `point`, which shows `root`."""
    inside = os.path.relpath(path, root)
    folder = point if inside.startswith("..") else point / inside
    return folder if folder.is_dir() else point


def _second(point: Path, own: Path) -> Path | None:
    """Return the nearest group above that hands both controllers on and may be written.

    A process may be moved where the caller may write to the group above both places.
    """
    for folder in (own, *own.parents):
        with suppress(OSError):
            given = (folder / "cgroup.subtree_control").read_text().split()
            writable = all(os.access(p, os.W_OK) for p in (folder, folder / "cgroup.procs"))
            if set(_CONTROLLERS) <= set(given) and writable:
                return folder
        if folder == point:
            break
    return None


class Group:
    """A group with limits, for one process and all that it starts; `memory` in bytes."""

    def __init__(self, place: Place, memory: int | None, processes: int) -> None:
        """Make the group; raises OSError where the kernel refuses."""
        name = f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        self._version = place.version
        self._folders = [place.pids / name]
        if memory is not None and place.memory != place.pids:
            self._folders.append(place.memory / name)
        self._memory = place.memory / name
        try:
            for folder in self._folders:
                folder.mkdir()
            (place.pids / name / "pids.max").write_text(str(processes))
            if memory is not None:
                self._bound(memory)
        except OSError:
            self.remove()
            raise

    def _bound(self, memory: int) -> None:
        if self._version == 2:
            (self._memory / "memory.max").write_text(str(memory))
            wishes = {"memory.swap.max": "0", "memory.oom.group": "1"}
        else:
            (self._memory / "memory.limit_in_bytes").write_text(str(memory))
            wishes = {"memory.memsw.limit_in_bytes": str(memory)}
        for file, text in wishes.items():
            with suppress(OSError):  # a kernel without swap accounting has no such file
                (self._memory / file).write_text(text)

    def add(self, pid: int) -> None:
        """Move a process into the group; raises OSError where the kernel refuses."""
        for folder in self._folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def ran_out(self) -> bool:
        """Tell whether the kernel has killed a process for want of memory."""
        file = "memory.events" if self._version == 2 else "memory.oom_control"
        try:
            lines = (self._memory / file).read_text().splitlines()
        except OSError:
            return False
        return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in lines)

    def remove(self) -> None:
        """Remove the group after its processes have ended."""
        for folder in self._folders:
            for _ in range(20):
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError:  # the kernel is not done with the last one
                    time.sleep(0.005)
                else:
                    break
