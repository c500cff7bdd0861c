"""The processes that outlive the bwrap that started them: their end, and what memory they took.

bwrap ends without waiting for the first process inside, so that the kernel's account of what ran
there would be lost with it. As a subreaper this process inherits that first process instead.
Source: prctl(2), PR_SET_CHILD_SUBREAPER; getrusage(2), ru_maxrss.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal

_PR_SET_CHILD_SUBREAPER = 36


@functools.cache
def adopt() -> bool:
    """Become the parent of descendants whose own has ended; False where the kernel says no."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return int(prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) == 0


def peak(pid: int) -> int | None:
    """Wait for the inherited process `pid` and all below it; return their peak in bytes.

    That is the largest resident size which one of them had. None where it was not inherited. What
    still runs is killed: the bwrap that it should die with may have ended before it had said so.
    """
    try:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            os.kill(pid, signal.SIGKILL)
        _, _, usage = os.wait4(pid, 0)
    except ChildProcessError:
        return None
    return usage.ru_maxrss * 1024
