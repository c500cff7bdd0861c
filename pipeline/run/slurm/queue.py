"""Slurm's queue, asked by its own programs: sbatch, squeue and scancel.

Accounting (sacct) is not needed. States: https://slurm.schedmd.com/squeue.html, JOB STATE CODES.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.errors import PipelineError

# Of slurm_errno.h: what a controller says, or is said of one, that may answer later.
_AWAY = re.compile(
    r"Unable to contact slurm controller|Zero Bytes were transmitted|Socket timed out|"
    r"Communication connection failure|temporarily un|Resource temporarily|Connection refused|"
    r"Could not establish a configuration source|backup controller|Protocol authentication error",
    re.IGNORECASE,
)
_ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL",
          "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"}  # fmt: skip
_ANSWER = 60  # seconds for a program to answer


class Unreachable(PipelineError):  # noqa: N818 - a state, which may pass
    """Slurm's controller does not answer now."""


@dataclass(frozen=True, slots=True)
class Word:
    """What Slurm says of a job: its state, the reason for it, the node; "" = it knows no such."""

    state: str = ""
    reason: str = ""
    node: str = ""

    @property
    def over(self) -> bool:
        """Tell whether the job has ended."""
        return self.state in _ENDED


def words(text: str) -> dict[str, Word]:
    """Return job -> what is said of it in the lines of squeue with the format `%i|%T|%r|%N`."""
    found = {}
    for line in text.splitlines():
        job, *said = [part.strip() for part in line.split("|", 3)]
        if len(said) == 3:
            found[job] = Word(*said)
    return found


@dataclass
class Queue:
    """The jobs of this user, asked about all at once, so that many steps are one question."""

    environ: Mapping[str, str]
    _words: Mapping[str, Word] = field(default_factory=dict)
    _asked: float = float("-inf")
    _failure: tuple[float, str] = (float("-inf"), "")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def submit(self, options: Sequence[str], script: str) -> str:
        """Submit a job and return its number.

        Raises Unreachable, after which Slurm may have the job or not, and PipelineError where Slurm
        refuses it.
        """
        # --parsable gives `number` or `number;cluster`.
        number = _call(["sbatch", *options], self.environ, script).strip().partition(";")[0]
        if not number.isdigit():
            raise PipelineError(f"sbatch gave {number!r} in place of a job's number")
        return number

    def word(self, job: str, since: float, within: float) -> Word:
        """Return what Slurm says of `job`, which it has `since` a monotonic time.

        An answer that is not older than `within` seconds does, and so does a failure to get one: a
        controller that hangs must not hold up one step after the other. Raises Unreachable,
        PipelineError.
        """
        with self._lock:
            if self._asked < since or time.monotonic() - self._asked > within:
                failed, why = self._failure
                if time.monotonic() - failed <= within:
                    raise Unreachable(why)
                asked = time.monotonic()
                # --array: a line for each job of an array that waits.
                command = ["squeue", "--noheader", "--array", "--states=all",
                           f"--user={os.geteuid()}", "--format=%i|%T|%r|%N"]  # fmt: skip
                try:
                    self._words = words(_call(command, self.environ))
                except Unreachable as error:
                    self._failure = (time.monotonic(), str(error))
                    raise
                self._asked = asked
            return self._words.get(job, Word())

    def cancel(self, job: str) -> None:
        """End a job; one that has ended already is no error. Raises as `word`."""
        _call(["scancel", job], self.environ)


def answers(environ: Mapping[str, str]) -> str:
    """Return the version of the controller that answers.

    Raises PipelineError where Slurm's programs are missing, and Unreachable.
    """
    return _setting("SLURM_VERSION", environ) or "of an unknown version"


def largest_array(environ: Mapping[str, str]) -> int:
    """Return how many jobs an array may have: Slurm's MaxArraySize, 0 for none. Raises as above."""
    found = _setting("MaxArraySize", environ)
    return int(found) if found.isdigit() else 0


def _setting(name: str, environ: Mapping[str, str]) -> str:
    """Return a setting of the cluster, "" where it has none of that name."""
    text = _call(["scontrol", "show", "config"], environ)
    found = re.search(rf"^{name}\s*=\s*(\S+)", text, re.MULTILINE)
    return found[1] if found else ""


def _call(command: list[str], environ: Mapping[str, str], given: str = "") -> str:
    try:
        # In a session of its own: Ctrl-C must not end sbatch between a job and its number.
        done = subprocess.run(
            command, input=given, env=dict(environ), capture_output=True, encoding="utf-8",
            errors="replace", check=False, timeout=_ANSWER, start_new_session=True,
        )  # fmt: skip
    except FileNotFoundError:
        raise PipelineError(
            f"there is no program {command[0]}; run this on a machine that can submit jobs to Slurm"
        ) from None
    except subprocess.TimeoutExpired:
        raise Unreachable(f"{command[0]} did not answer for {_ANSWER} s") from None
    if not done.returncode:
        return done.stdout
    said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
    last = said[-1].removeprefix(f"{command[0]}: ").removeprefix("error: ")
    if _AWAY.search(done.stderr):
        raise Unreachable(f"Slurm's controller does not answer ({last})")
    raise PipelineError(f"{command[0]} refused: {last}")
