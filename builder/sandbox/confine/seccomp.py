"""System calls that nothing inside an image needs, refused by the kernel.

A filter in the classic BPF that seccomp(2) takes; the layout of struct seccomp_data and the values
are those of linux/seccomp.h, linux/filter.h and the x86-64 table of system calls. The choice is
that of Docker's default profile: https://docs.docker.com/engine/security/seccomp/.
"""

from __future__ import annotations

import errno
import functools
import platform
import struct
from collections.abc import Iterable

_LOAD, _EQUAL, _ABOVE, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND = 0, 4, 16, 24
_X86_64 = 0xC000003E
_X32 = 0x40000000
_NEW_NAMESPACES = 0x7E020080  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET,TIME}

# Number -> name, of Linux on x86-64.
REFUSED = {
    103: "syslog", 134: "uselib", 136: "ustat", 139: "sysfs", 153: "vhangup",
    154: "modify_ldt", 155: "pivot_root", 156: "_sysctl", 159: "adjtimex", 161: "chroot",
    163: "acct", 164: "settimeofday", 165: "mount", 166: "umount2", 167: "swapon", 168: "swapoff",
    169: "reboot", 170: "sethostname", 171: "setdomainname", 172: "iopl", 173: "ioperm",
    174: "create_module", 175: "init_module", 176: "delete_module", 177: "get_kernel_syms",
    178: "query_module", 179: "quotactl", 180: "nfsservctl", 212: "lookup_dcookie",
    227: "clock_settime", 246: "kexec_load", 248: "add_key", 249: "request_key", 250: "keyctl",
    272: "unshare", 298: "perf_event_open", 300: "fanotify_init", 304: "open_by_handle_at",
    305: "clock_adjtime", 308: "setns", 313: "finit_module", 320: "kexec_file_load", 321: "bpf",
    323: "userfaultfd", 425: "io_uring_setup", 426: "io_uring_enter", 427: "io_uring_register",
    428: "open_tree", 429: "move_mount", 430: "fsopen", 431: "fsconfig", 432: "fsmount",
    433: "fspick", 442: "mount_setattr", 443: "quotactl_fd",
}  # fmt: skip
_CLONE, _CLONE3, _SOCKET, _IOCTL = 56, 435, 41, 16
# AF_PACKET reads the wire, AF_ALG and AF_VSOCK reach the kernel's cryptography and the machine's
# host; TIOCSTI and TIOCLINUX type into the caller's terminal.
_FAMILIES = (17, 38, 40)
_TERMINAL = (0x5412, 0x541C)


@functools.cache
def program(machine: str = platform.machine()) -> bytes:
    """Return the filter as bwrap's --seccomp takes it; empty for what is not x86-64.

    clone3 is answered as by a kernel without it, since its flags cannot be seen: the C library then
    calls clone. Programs of other architectures are refused, since their numbers differ.
    """
    if machine != "x86_64":
        return b""
    # What is not decided falls through; the three answers stand at the end.
    checks = [
        (_LOAD, _ARCHITECTURE, "", ""), (_EQUAL, _X86_64, "", "unknown"),
        (_LOAD, _NUMBER, "", ""), (_ABOVE, _X32, "unknown", ""), (_EQUAL, _CLONE3, "unknown", ""),
    ]  # fmt: skip
    for low, high in _ranges(REFUSED):
        if low == high:
            checks.append((_EQUAL, low, "refuse", ""))
        else:  # below the range to the next check, above it likewise
            checks += [(_ABOVE, low, "", "2"), (_ABOVE, high + 1, "", "refuse")]
    for call, place, code, values in (
        (_CLONE, _FIRST, _ANY_BIT, (_NEW_NAMESPACES,)),
        (_SOCKET, _FIRST, _EQUAL, _FAMILIES),
        (_IOCTL, _SECOND, _EQUAL, _TERMINAL),
    ):
        inside = [(_LOAD, place, "", ""), *((code, value, "refuse", "") for value in values)]
        inside.append((_RETURN, _ALLOW, "", ""))
        checks += [(_EQUAL, call, "", str(len(inside) + 1)), *inside]
    answers = {"allow": _ALLOW, "refuse": _ERROR | errno.EPERM, "unknown": _ERROR | errno.ENOSYS}
    places = {name: len(checks) + n for n, name in enumerate(answers)}

    def jump(at: int, to: str) -> int:
        return int(to) - 1 if to.isdigit() else places[to] - at - 1 if to else 0

    lines = [
        struct.pack("<HBBI", code, jump(at, yes), jump(at, no), value)
        for at, (code, value, yes, no) in enumerate(checks)
    ]
    return b"".join([*lines, *(struct.pack("<HBBI", _RETURN, 0, 0, a) for a in answers.values())])


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return the first and last of each run of consecutive numbers."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found
