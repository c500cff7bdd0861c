"""Keeps a process with the host's network from the host's abstract Unix sockets.

They belong to a network namespace and to no file system, so nothing else hides them. Run as a
program, it confines itself and becomes the program that it is given: `landlock.py PROGRAM …`.
Source: https://docs.kernel.org/userspace-api/landlock.html, "Scope flags" (ABI 6, Linux 6.12).
Standard library only.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
import sys

# The numbers are the same on every architecture (asm-generic/unistd.h).
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_ASK_VERSION = 1
_SCOPE_ABSTRACT_UNIX_SOCKET = 1
_PR_SET_NO_NEW_PRIVS = 38
_FIRST_WITH_SCOPES = 6


@functools.cache
def version() -> int:
    """Return the kernel's version of Landlock, 0 where there is none."""
    size, flags = ctypes.c_size_t(0), ctypes.c_uint32(_ASK_VERSION)
    return max(0, int(_libc().syscall(_CREATE_RULESET, None, size, flags)))


def works() -> bool:
    """Tell whether abstract sockets can be kept away here."""
    return version() >= _FIRST_WITH_SCOPES


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def confine() -> None:
    """Keep this process, and all that it starts, from abstract sockets of others; for good.

    Raises OSError where the kernel refuses.
    """
    libc = _libc()
    # struct landlock_ruleset_attr: accesses to files and to the network, which stay; the scopes.
    rules = struct.pack("=QQQ", 0, 0, _SCOPE_ABSTRACT_UNIX_SOCKET)
    ruleset = libc.syscall(_CREATE_RULESET, rules, ctypes.c_size_t(len(rules)), ctypes.c_uint32(0))
    done = ruleset >= 0 and libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    if not done or libc.syscall(_RESTRICT_SELF, ruleset, ctypes.c_uint32(0)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    os.close(ruleset)


if __name__ == "__main__":
    confine()
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606 - the very program that was asked for
