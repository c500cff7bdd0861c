"""The rounds of a loop, submitted together: one job array for those that ask for the same.

Source: https://slurm.schedmd.com/job_array.html.
"""

from __future__ import annotations

import itertools
import re
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.run.slurm import submission
from pipeline.run.slurm.queue import Queue

# A step of a loop is called LOOP.ROUND.STEP.
_ROUND = re.compile(r"\.\d+\.")


def loop_of(name: str) -> str:
    """Return what all rounds of a loop call their step of this name; "" for one of no loop.

    >>> loop_of("for-loop-1.0.train"), loop_of("summary")
    ('for-loop-1.*.train', '')
    """
    found = _ROUND.sub(".*.", name)
    return found if found != name else ""


@dataclass
class _Together:
    """Jobs that wait for one submission: their folders, and its number when it has one."""

    folders: list[Path] = field(default_factory=list)
    number: Future[str] = field(default_factory=Future)


class Arrays:
    """Submits jobs to `queue`; `folder` is the run's, and an array has `largest` jobs at most."""

    def __init__(self, queue: Queue, folder: Path, largest: int, gather: float = 0.5) -> None:
        self._queue, self._folder, self._largest, self._gather = queue, folder, largest, gather
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._open: dict[tuple[str, ...], _Together] = {}
        self._links: dict[str, Path] = {}

    def submit(self, loop: str, options: Sequence[str], title: str, folder: Path) -> str:
        """Submit the job of `folder` and return its number; raises as `Queue.submit`.

        Of a `loop`, those that come within `gather` seconds with the same options are one array,
        and the number is ARRAY_INDEX.
        """
        if not loop or self._largest < 2:
            return self._alone(options, title, folder)
        asked = (loop, *options)
        with self._lock:
            found = self._open.get(asked)
            first = found is None or len(found.folders) >= self._largest
            together = _Together() if found is None or first else found
            self._open[asked] = together
            index = len(together.folders)
            together.folders.append(folder)
        if first:
            time.sleep(self._gather)
            with self._lock:
                if self._open.get(asked) is together:
                    del self._open[asked]
            try:
                together.number.set_result(self._send(together, loop, options, title))
            except BaseException as error:  # noqa: BLE001 - raised below, in each thread
                together.number.set_exception(error)
        number = together.number.result()
        return number if len(together.folders) == 1 else f"{number}_{index}"

    def forget(self, job: str) -> None:
        """Remove what `submit` left of a job that has ended."""
        with self._lock:
            link = self._links.pop(job, None)
        if link:
            link.unlink(missing_ok=True)
            with suppress(OSError):  # others are still there
                link.parent.rmdir()
                link.parent.parent.rmdir()

    def _alone(self, options: Sequence[str], title: str, folder: Path) -> str:
        own = submission.named(title, folder / submission.SLURM_LOG)
        return self._queue.submit([*options, *own], submission.script(folder))

    def _send(self, together: _Together, loop: str, options: Sequence[str], title: str) -> str:
        if len(together.folders) == 1:
            return self._alone(options, title, together.folders[0])
        # Slurm and the script say which job it is by a number: each has a link to its folder.
        home = self._folder / "arrays" / str(next(self._numbers))
        home.mkdir(parents=True)
        try:
            links = [home / str(index) for index in range(len(together.folders))]
            for link, folder in zip(links, together.folders, strict=True):
                link.symlink_to(folder.absolute())
            number = self._queue.submit(
                [*options, *submission.named(loop.rpartition(".")[2], home, array=len(links))],
                submission.array_script(home),
            )
        except BaseException:
            shutil.rmtree(home)
            raise
        with self._lock:
            self._links |= {f"{number}_{index}": link for index, link in enumerate(links)}
        return number
