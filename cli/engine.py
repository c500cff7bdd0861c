"""The Docker Engine that `doctor --fix` starts, and its end.

Which process it is stands in a folder that only this user may enter. A number alone may be another
process's by now, so the start time and the program are compared, through a descriptor of the
process (pidfd_open(2)), before it is sent a signal.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from builder.errors import BuilderError
from builder.store import default_root

# Seconds in which an engine ends the containers that run in it, and itself.
_PATIENCE = 30


def folder() -> Path:
    """Return the folder of the engine's log and record, made at first use.

    Raises BuilderError where it is a link, another user's, or open to others.
    """
    path = default_root().parent / "engine"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise BuilderError(f"{path} is not this user's alone; remove it and try again")
    return path


def start(answers: Callable[[], bool], say: Callable[[str], None]) -> None:
    """Start dockerd and wait until it `answers`; raises BuilderError where it does not."""
    program = shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise BuilderError("there is no dockerd; install docker.io")
    log = folder() / "dockerd.log"
    say(f"starting {program}; its log is {log}")
    with log.open("wb") as sink:
        started = subprocess.Popen(
            [program], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
        )
    record = {"pid": started.pid, "started": _started(started.pid), "program": program}
    (folder() / "dockerd.json").write_text(json.dumps(record))
    for _ in range(120):
        if answers():
            return
        if started.poll() is not None:
            break
        time.sleep(0.5)
    raise BuilderError(f"the Docker engine does not answer; see {log}")


def stop() -> bool:
    """End the engine that `start` started, and wait until it is gone; tell whether there was one.

    Before that another one would not start. Raises BuilderError where it does not end, and where
    the folder is open to others.
    """
    path = folder() / "dockerd.json"
    try:
        record = json.loads(path.read_text())
        process = os.pidfd_open(int(record["pid"]))
    except (FileNotFoundError, ProcessLookupError, ValueError, KeyError, TypeError):
        path.unlink(missing_ok=True)
        return False
    try:
        program = os.path.realpath(f"/proc/{record['pid']}/exe")
        ours = program == os.path.realpath(record["program"]) and (
            _started(int(record["pid"])) == record["started"]
        )
        if not ours:
            path.unlink()
            return False
        signal.pidfd_send_signal(process, signal.SIGTERM)
        if not select.select([process], [], [], _PATIENCE)[0]:
            raise BuilderError(
                f"the Docker engine, process {record['pid']}, was told to end and still runs after "
                f"{_PATIENCE} s; see {folder() / 'dockerd.log'}"
            )
    finally:
        os.close(process)
    path.unlink()
    return True


def _started(pid: int) -> str:
    """Return when a process started, in the kernel's ticks since the machine's start (proc(5))."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]
