"""The sandbox whose processes are jobs of Slurm."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from builder.errors import BuilderError
from builder.sandbox.process import Exit, Process
from builder.sandbox.unpack import folders
from builder.store import Store
from pipeline.errors import PipelineError
from pipeline.run import places
from pipeline.run.record import Record
from pipeline.run.slurm import ending, queue, submission
from pipeline.run.slurm.array import Arrays, loop_of
from pipeline.run.slurm.queue import Queue, Unreachable, Word


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Slurm:
    """Runs processes as jobs; what it keeps of them lies in `folder`, which nodes must see.

    Seconds: `every` between two questions to Slurm, `lag` until a shared folder shows what another
    machine wrote, `patience` for a controller that does not answer.
    """

    store: Store
    folder: Path
    record: Record
    queue: Queue
    arrays: Arrays
    say: Callable[[str], object] = _print
    name: str = "slurm"
    every: float = 5.0
    lag: float = 90.0
    patience: float = 3600.0
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @staticmethod
    def find(
        store: Store, folder: Path, record: Record, environ: Mapping[str, str] = os.environ
    ) -> Slurm:
        """Return the Slurm of this machine for a run with the folder `folder`.

        Raises PipelineError where it has none, or its controller does not answer.
        """
        given = submission.environment(environ)
        try:
            queue.answers(given)
        except PipelineError as error:
            raise PipelineError(
                f"the engine slurm cannot run here: {error}; SLURM_CONF names the cluster's "
                "slurm.conf where it is not in /etc/slurm"
            ) from None
        jobs = Queue(given)
        arrays = Arrays(jobs, folder, queue.largest_array(given))
        made = Slurm(store, folder, record, jobs, arrays)
        if ignored := submission.ignored(environ):
            made.say(f"not handed to Slurm: {', '.join(ignored)} (docs/slurm.md)")
        return made

    def start(
        self, process: Process, stdout: BinaryIO | int | None = None, stdin: bytes = b""
    ) -> Job:
        """Return the job of `process`, which `wait` submits; its output is copied to `stdout`.

        Raises BuilderError where the image is damaged.
        """
        assert not stdin, "a job has no stdin"
        assert not process.ports, "a job has no ports"
        # Once, here: else all nodes would unpack the same layers at the same time.
        folders(self.store, process.image)
        sink = open(stdout, "wb", closefd=False) if isinstance(stdout, int) else stdout  # noqa: SIM115
        return Job(self, process, sink)

    def attach(self, process: Process) -> Exit:  # noqa: ARG002 - of the protocol
        """Raise BuilderError: a job has no terminal."""
        raise BuilderError("a job of Slurm has no terminal; use --engine bubblewrap")


class Job:
    """A process that is, or will be, a job. All is done by the thread that waits."""

    def __init__(self, slurm: Slurm, process: Process, stdout: BinaryIO | None) -> None:
        self.ports: Mapping[int, int] = {}
        self._slurm, self._process, self._stdout = slurm, process, stdout
        self._title = slurm.record.update(process.needs.name).title
        self._stopping = threading.Event()
        self._waiting = threading.Lock()  # one thread waits, another may stop
        self._end: Exit | Exception | None = None
        self._folder = Path()
        self._copied, self._beats, self._beaten = 0, 0, 0.0
        self._away = 0.0
        self._said = ""
        self._began = 0.0

    def wait(self) -> Exit:
        """Wait for the end and return how it came.

        Raises PipelineError where Slurm refuses the job, loses it, or does not answer for too long.
        """
        with self._waiting:
            if self._end is None:
                try:
                    self._end = self._run()
                except Exception as error:  # noqa: BLE001 - raised below, each time
                    self._end = error
            if isinstance(self._end, Exception):
                raise self._end
            return self._end

    def stop(self, grace: float = 10.0) -> Exit:
        """Cancel the job and wait until it is gone; Slurm kills at once what runs on the node."""
        del grace
        self._stopping.set()
        return self.wait()

    def _run(self) -> Exit:
        job = ""
        try:
            job = self._submit()
            return self._watch(job) if job else Exit(code=143, signal=15)
        finally:
            self._copy()
            self._slurm.arrays.forget(job)
            # With its folder goes the lease: a job that is still there ends by itself.
            shutil.rmtree(self._folder, ignore_errors=True)

    def _submit(self) -> str:
        """Submit the job and return its number; "" where it was stopped before."""
        until, pause = time.monotonic() + self._slurm.patience, 1.0
        while not self._stopping.is_set():
            self._folder = self._new_folder()
            loop = loop_of(self._process.needs.name)
            options = submission.options(self._process, self._slurm.queue.environ)
            try:
                return self._slurm.arrays.submit(loop, options, self._title, self._folder)
            except Unreachable as error:
                # Slurm may have taken it all the same: such a job finds no lease, and ends.
                shutil.rmtree(self._folder, ignore_errors=True)
                if time.monotonic() > until:
                    raise
                self._tell(f"{error}; trying again")
            self._stopping.wait(pause)
            pause = min(2 * pause, 30)
        return ""

    def _new_folder(self) -> Path:
        home = places.step_folder(self._slurm.folder, self._process.needs.name)
        folder = home / f"job-{next(self._slurm.numbers)}"
        folder.mkdir(mode=0o700, parents=True)
        document = submission.to_document(self._process, self._slurm.store, self._slurm.folder)
        (folder / submission.PROCESS).touch(mode=0o600)
        (folder / submission.PROCESS).write_text(json.dumps(document))
        (folder / submission.LEASE).write_text("0")
        return folder

    def _watch(self, job: str) -> Exit:
        since, pause = time.monotonic(), 0.05
        while True:
            self._copy()
            if (found := self._found()) is not None:
                return self._ended(found, job, since)
            if self._stopping.is_set():
                return self._cancel(job, since)
            self._beat()
            word = self._word(job, since, self._slurm.every)
            if word is not None and (word.over or not word.state):
                return self._lost(word, job, since)
            self._hear(word, job)
            self._stopping.wait(pause)
            pause = min(1.2 * pause, 1.0)

    def _word(self, job: str, since: float, within: float) -> Word | None:
        """Return what Slurm says; None where it does not answer now. Raises when that lasts."""
        try:
            word = self._slurm.queue.word(job, since, within)
        except Unreachable as error:
            self._away = self._away or time.monotonic()
            if time.monotonic() - self._away > self._slurm.patience:
                raise PipelineError(
                    f"{error} since {self._slurm.patience / 60:.0f} minutes; its job {job} was "
                    f"given up and ends by itself; {ending.AGAIN}"
                ) from None
            self._tell(f"{error}; the job {job} goes on")
            self._stopping.wait(1)
            return None
        self._away = 0.0
        return word

    def _hear(self, word: Word | None, job: str) -> None:
        """Let the record and the user know where the job is."""
        name, record = self._process.needs.name, self._slurm.record
        if not self._began and (self._folder / submission.NODE).exists():
            self._began = time.monotonic()
            record.update(name, state="running")
        if word is None:
            return
        if word.state == "PENDING" and word.reason in ending.NEVER:
            self._stopping.set()
            self._cancel(job, 0)
            raise PipelineError(
                f"Slurm would never start its job {job} ({word.reason}); choose another partition "
                "(SBATCH_PARTITION) or less time (SBATCH_TIMELIMIT), or change the package's limits"
            )
        if word.state == "PENDING" and word.reason not in ("", "None"):
            self._tell(f"waits in Slurm's queue ({word.reason}), job {job}")
        elif word.state not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"):
            self._tell(f"Slurm says {word.state}, job {job}")

    def _tell(self, text: str) -> None:
        if text != self._said:
            self._said = text
            with suppress(OSError, ValueError):
                self._slurm.say(f"{self._title}: {text}")

    def _beat(self) -> None:
        """Change the lease every few seconds."""
        if time.monotonic() - self._beaten > self._slurm.every:
            self._beats, self._beaten = self._beats + 1, time.monotonic()
            with suppress(OSError):  # a full disk, which the step will tell; the job waits minutes
                (self._folder / submission.LEASE).write_text(str(self._beats))

    def _copy(self) -> None:
        """Add what the step printed since the last time to its log."""
        with suppress(FileNotFoundError), (self._folder / submission.LOG).open("rb") as log:
            log.seek(self._copied)
            while self._stdout is not None and (data := log.read(1 << 20)):
                self._copied += len(data)
                self._stdout.write(data)
                self._stdout.flush()

    def _found(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self._folder / submission.EXIT).read_text())
        except FileNotFoundError:
            return None
        return found

    def _ended(self, found: Mapping[str, Any], job: str, since: float) -> Exit:
        """Return the end that the node wrote, when all that the step left can be seen here."""
        if "error" in found:
            raise PipelineError(f"on the node {found['node']}: {found['error']}")
        until = time.monotonic() + self._slurm.lag
        while lacking := ending.lacking(found["left"]):
            if time.monotonic() > until or self._stopping.wait(0.5):
                raise PipelineError(
                    f"{lacking} was written on the node, but this machine does not see it after "
                    f"{self._slurm.lag:.0f} s; see that both mount the same folder"
                )
        ended = Exit(**found["exit"])
        if not self._began:  # it was so short that nobody saw it run
            self._began, started = time.monotonic(), time.time() - ended.seconds
            self._slurm.record.update(self._process.needs.name, state="running", started=started)
        if ended.signal in (9, 15) and not (ended.timed_out or ended.out_of_memory or ended.broke):
            # Slurm signals all processes of a job that it ends; it says why once the job is over.
            until = time.monotonic() + 10
            while time.monotonic() < until and not self._stopping.wait(0.2):
                word = self._word(job, since, 0.5)
                if word is not None and (word.over or not word.state):
                    self._copy()
                    self._copy_slurm()
                    return ending.by_slurm(word, job, ended.seconds) or ended
        return ended

    def _lost(self, word: Word, job: str, since: float) -> Exit:
        """Return why a job ended that has left no end of its own, or does not show it yet."""
        told = word.state in ("", "COMPLETED", "FAILED")  # the others: Slurm ended it
        until = time.monotonic() + (self._slurm.lag if told else 1)
        while time.monotonic() < until and not self._stopping.wait(0.2):
            with suppress(OSError):
                list(self._folder.iterdir())  # so that a network's file system looks again
            if (found := self._found()) is not None:
                return self._ended(found, job, since)
        self._copy()
        self._copy_slurm()
        seconds = time.monotonic() - self._began if self._began else 0.0
        if (ended := ending.by_slurm(word, job, seconds)) is not None:
            return ended
        where = f" on the node {word.node}" if word.node else ""
        state = f"Slurm says {word.state}" if word.state else "Slurm does not know it any more"
        raise PipelineError(
            f"its job {job} ended{where} without a result ({state}); see that the nodes have "
            f"{self._slurm.folder}, {self._slurm.store.root}, {submission.ROOT} and "
            f"{sys.executable} at these paths"
        )

    def _copy_slurm(self) -> None:
        """Add what Slurm itself wrote about the job to the step's log."""
        with suppress(FileNotFoundError):
            data = (self._folder / submission.SLURM_LOG).read_bytes()
            if self._stdout is not None:
                self._stdout.write(data)
                self._stdout.flush()

    def _cancel(self, job: str, since: float) -> Exit:
        """End the job, and wait until Slurm says that it has."""
        with suppress(OSError):
            (self._folder / submission.LEASE).unlink()
        until, sent = time.monotonic() + 60, False
        while time.monotonic() < until:
            with suppress(Unreachable):
                if not sent:
                    self._slurm.queue.cancel(job)
                    sent = True
                word = self._slurm.queue.word(job, since, 0.2)
                if word.over or not word.state:
                    return Exit(code=143, signal=15)
            time.sleep(0.2)
        failure = f"Slurm does not say that its job {job} ended; run `scancel {job}`"
        self._tell(failure)
        raise PipelineError(failure)
