"""The memory that a tree of processes holds, from /proc: for where no control group counts it.

Source: https://docs.kernel.org/filesystems/proc.html (status, smaps_rollup).
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_MEMORY_FILES = ("/memfd:", "/dev/shm/", "/tmp/")  # noqa: S108 - folders of memory inside


def children(pid: int) -> list[int]:
    """Return the processes that `pid`, whichever of its threads, started and that are there."""
    found: list[int] = []
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - paths are slow here
            with suppress(OSError), open(f"/proc/{pid}/task/{task}/children") as file:  # noqa: PTH123
                found += map(int, file.read().split())
    return found


def tree(pid: int, most: int = 1 << 22) -> list[int]:
    """Return `pid` and all processes below it; where there are more than `most`, not all."""
    found: list[int] = []
    waiting = [pid]
    while waiting and len(found) <= most:
        found.append(waiting.pop())
        waiting += children(found[-1])
    return found


def held(pid: int, limit: int) -> int:
    """Return the bytes that `pid` and all below it hold, shared pages once.

    That is their private memory, and the larger of what they map of shared memory and what lies in
    the files of memory: /tmp and /dev/shm inside, and those that a process only has open. Asking
    for each process's share is slow, so it is asked only where the plain sum, in which pages that a
    fork shares count twice, is above `limit`.
    """
    processes = tree(pid)
    files = _files(processes)
    total = sum(_field(one, "status", ("RssAnon:", "RssShmem:")) for one in processes)
    if total + files <= limit:
        return total + files
    private = sum(_field(one, "smaps_rollup", ("Pss_Anon:",)) for one in processes)
    return private + max(
        files, sum(_field(one, "smaps_rollup", ("Pss_Shmem:",)) for one in processes)
    )


def _files(processes: list[int]) -> int:
    """Return the bytes in files of memory, each file once."""
    sizes: dict[tuple[int, int], int] = {}
    used: dict[int, int] = {}
    for pid in processes:
        for folder in ("tmp", "dev/shm"):
            with suppress(OSError):
                path = f"/proc/{pid}/root/{folder}"
                disk, device = os.statvfs(path), os.stat(path).st_dev  # noqa: PTH116
                used[device] = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
        with suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
                file = f"/proc/{pid}/fd/{name}"
                with suppress(OSError):
                    if os.readlink(file).startswith(_MEMORY_FILES):  # noqa: PTH115
                        seen = os.stat(file)  # noqa: PTH116
                        sizes[seen.st_dev, seen.st_ino] = seen.st_blocks * 512
    # What is open in /tmp is in that file system's own account already.
    return sum(used.values()) + sum(
        size for (device, _), size in sizes.items() if device not in used
    )


def peak(pid: int) -> int:
    """Return the largest resident size that `pid` or one below it has had so far, in bytes."""
    return max(_field(one, "status", ("VmHWM:",)) for one in tree(pid))


def _field(pid: int, file: str, names: tuple[str, ...]) -> int:
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return 0  # it has ended
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(names))
