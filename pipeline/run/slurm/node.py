"""What a job runs on its node: the step's process by bubblewrap, watched for its run's sake.

    python -m pipeline.run.slurm.node FOLDER

FOLDER has the process and its lease, a number that the run keeps changing. Where the lease has
gone, or has stood still for minutes, nobody waits for the step any more, and it ends: what was
given up does not go on writing beside the next attempt, and a run that was killed leaves no job.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

from builder.errors import BuilderError
from builder.sandbox.bubblewrap import Bubblewrap
from builder.store import Store
from pipeline.run.slurm import submission

_EVERY = 0.5
_STILL = 300.0  # seconds for which a lease may stand still


def main(folder: Path) -> int:
    """Run the process of `folder` to its end, and leave there how it came."""
    wanted: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: wanted.append(number))
    lease = Lease(folder / submission.LEASE)
    if lease.over():
        return 1  # given up before it began
    try:
        document = json.loads((folder / submission.PROCESS).read_text())
        (folder / submission.PROCESS).unlink()  # it may have values of secrets
        write(folder / submission.NODE, socket.gethostname())
        began = (folder / submission.NODE).stat().st_ctime_ns
        _check_folders([document["store"], *(source for source, _, _ in document["mounts"])])
        store = Store.open(Path(document["store"]))
        with (folder / submission.LOG).open("ab") as log:
            running = Bubblewrap(store).start(submission.from_document(document, store), log)
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(running.wait)
                while not wait([waiting], _EVERY).done:
                    if wanted or lease.over():
                        # Slurm, or the run, ended it and says why: there is no end of its own.
                        running.stop(grace=0)
                        return 1
                ended = waiting.result()
        left = listed([Path(path) for path in document["own"]], began)
        write(folder / submission.EXIT, json.dumps(submission.exit_document(ended, left)))
        return min(ended.code, 255)
    except (BuilderError, OSError) as error:
        with suppress(OSError):
            write(
                folder / submission.EXIT,
                json.dumps({"error": str(error), "node": socket.gethostname()}),
            )
        return 1


class Lease:
    """The number in a file, and since when it has been the same."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last, self._since = "", time.monotonic()

    def over(self) -> bool:
        """Tell whether the file is gone, or was not changed for `_STILL` seconds."""
        try:
            now = self._path.read_text()
        except FileNotFoundError:
            return True
        except OSError:  # the shared folder does not answer for a while
            now = self._last
        if now != self._last:
            self._last, self._since = now, time.monotonic()
        return time.monotonic() - self._since > _STILL


def listed(folders: Iterable[Path], since: int) -> dict[str, dict[str, int]]:
    """Return folder -> name -> size of what changed in `folders` since a time in ns (ctime)."""
    found: dict[str, dict[str, int]] = {}
    for top in folders:
        for root, _, names in os.walk(top):
            for name in names:
                status = Path(root, name).lstat()
                if status.st_ctime_ns >= since:
                    found.setdefault(root, {})[name] = status.st_size
    return found


def write(path: Path, text: str) -> None:
    """Write a file that is whole as soon as it has its name."""
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.rename(path)


def _check_folders(paths: Iterable[str]) -> None:
    for path in paths:
        if not Path(path).exists():
            raise BuilderError(
                f"there is no {path}; it must lie in a folder that all nodes share, at this path"
            )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
