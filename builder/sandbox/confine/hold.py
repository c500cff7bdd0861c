"""The limits of one process in an image, kept by a control group where there may be one.

Elsewhere the tree of processes is looked at ten times a second, and the kernel's own limit on the
number of processes is set, which does not count for root.
"""

from __future__ import annotations

import os
import resource
import shutil
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from builder.sandbox.confine import cgroup, memory
from builder.sandbox.confine.limits import Limits

EVERY = 0.1


class Hold:
    """Limits for one tree of processes: its `memory` in bytes, and those of `Limits.read`.

    `output` is what it prints to, `folders` are those that it may write to.
    """

    def __init__(
        self, memory: int | None, output: BinaryIO | int | None, folders: Sequence[Path]
    ) -> None:
        """Raise BuilderError where a limit in the environment is not a number."""
        self._memory = memory
        self._limits = Limits.read()
        self._folders = folders
        self._group: cgroup.Group | None = None
        self._first = 0
        number = output if isinstance(output, int) or output is None else output.fileno()
        self._log = None
        if number is not None and number >= 0 and stat.S_ISREG(os.fstat(number).st_mode):
            self._log = os.dup(number)
            self._began = os.fstat(number).st_size

    def take(self, first: int) -> None:
        """Hold the process `first` and all that it will start."""
        self._first = first
        # Moving a process takes milliseconds, so only a limit on memory asks for a group.
        if self._memory is not None and (place := cgroup.here()) is not None:
            try:
                self._group = cgroup.Group(place, self._memory, self._limits.processes)
                self._group.add(first)
            except OSError:  # it was no place after all
                self.release()
        if self._group is None:
            most = self._limits.processes
            with suppress(OSError, ValueError):
                resource.prlimit(first, resource.RLIMIT_NPROC, (most, most))

    def out_of_memory(self) -> bool:
        """Tell whether the processes hold, or were killed for, more than their memory."""
        if self._memory is None or self._group is not None:
            return self.ran_out()
        return memory.held(self._first, self._memory) > self._memory

    def ran_out(self) -> bool:
        """Tell whether the kernel has killed a process for want of memory; asked at the end."""
        return self._group is not None and self._group.ran_out()

    def broken(self) -> str:
        """Return which other limit is broken now, in words, or ''."""
        limits = self._limits
        if self._log is not None and os.fstat(self._log).st_size - self._began > limits.log:
            return f"it printed more than {limits.log} bytes (PLATELINE_STEP_LOG)"
        if (
            self._group is None
            and len(memory.tree(self._first, limits.processes)) > limits.processes
        ):
            return f"it has more than {limits.processes} processes (PLATELINE_STEP_PROCESSES)"
        for folder in self._folders:
            with suppress(OSError):
                if shutil.disk_usage(folder).free < limits.free:
                    return (
                        f"the disk of {folder} has less than {limits.free} bytes free "
                        "(PLATELINE_STEP_FREE); free some space there"
                    )
        return ""

    def release(self) -> None:
        """Let go after the processes have ended."""
        if self._group is not None:
            self._group.remove()
            self._group = None
        if self._log is not None:
            os.close(self._log)
            self._log = None
