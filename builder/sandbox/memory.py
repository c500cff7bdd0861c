"""The memory that a tree of processes holds, from /proc.

Source: https://docs.kernel.org/filesystems/proc.html (status, smaps_rollup).
"""

from __future__ import annotations

from pathlib import Path


def children(pid: int) -> list[int]:
    """Return the processes that `pid` started and that are still there."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def held(pid: int, limit: int) -> int:
    """Return the bytes that `pid` and all below it hold, shared pages once.

    Asking for each process's share is slow, so it is asked only where the plain sum, in which
    pages that a fork shares count twice, is above `limit`.
    """
    tree = _tree(pid)
    total = sum(_field(one, "status", ("RssAnon:", "RssShmem:")) for one in tree)
    if total <= limit:
        return total
    return sum(_field(one, "smaps_rollup", ("Pss_Anon:", "Pss_Shmem:")) for one in tree)


def peak(pid: int) -> int:
    """Return the largest resident size that `pid` or one below it has had so far, in bytes."""
    return max(_field(one, "status", ("VmHWM:",)) for one in _tree(pid))


def _tree(pid: int) -> list[int]:
    return [pid, *(one for child in children(pid) for one in _tree(child))]


def _field(pid: int, file: str, names: tuple[str, ...]) -> int:
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return 0  # it has ended
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(names))
