"""The environment of `servers.py`, made once in the cache, and the process that runs in it."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError

HERE = Path(__file__).parent
BUCKET, KEY = "mlpipeline", "plateline"  # as servers.py makes it
_PYTHONS = ("python3.11", "python3.10")  # the last that ml-metadata has wheels for


@dataclass(frozen=True)
class Services:
    """The servers that answer, by their ports on loopback: `grpc` and `objects` (S3)."""

    process: subprocess.Popen[str]
    grpc: int
    objects: int
    log: Path

    def executions(self, run: str) -> list[dict[str, Any]]:
        """Return what the metadata store knows of a run; raises PipelineError where it ended."""
        found: list[dict[str, Any]] = json.loads(_ask(self.process, f"{run}\n", self.log))
        return found


def environment(folder: Path, say: Callable[[str], object]) -> Path:
    """Return the Python of `servers.py`, made from requirements.lock at first use.

    Every package is checked by its hash. Raises PipelineError where there is no such Python, or pip
    cannot install; `say` hears of each package.
    """
    lock = (HERE / "requirements.lock").read_text()
    python, stamp = folder / "bin" / "python", folder / "requirements.lock"
    if stamp.exists() and stamp.read_text() == lock:
        return python
    found = next(filter(None, map(shutil.which, _PYTHONS)), None)
    if found is None:
        raise PipelineError(
            f"the engine kfp needs {' or '.join(_PYTHONS)} on PATH, which ml-metadata has packages "
            "for; install one of them, or use another engine"
        )
    say(f"making {folder} for the metadata and object stores, once (about 300 MB)")
    shutil.rmtree(folder, ignore_errors=True)
    _follow([found, "-m", "venv", str(folder)], say)
    _follow(
        [str(python), "-m", "pip", "--disable-pip-version-check", "--no-color", "install",
         "--progress-bar", "off", "--require-hashes", "--no-deps", "--only-binary", ":all:",
         "-r", str(HERE / "requirements.lock")],
        say,
    )  # fmt: skip
    stamp.write_text(lock)
    return python


def _follow(command: list[str], say: Callable[[str], object]) -> None:
    """Run a command and say what it collects; raises PipelineError with its last words."""
    lines = []
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    ) as started:  # fmt: skip
        assert started.stdout is not None
        for line in started.stdout:
            lines.append(line.strip())
            if match := re.match(r"Collecting (\S+)", line):
                say(f"  {match[1]}")
    if started.returncode:
        raise PipelineError(
            f"{' '.join(command[:4])} … failed: {' '.join(lines[-3:]) or 'it said nothing'}; "
            "see that a package index can be reached, as for ./invoke"
        )


@contextmanager
def serve(folder: Path, say: Callable[[str], object]) -> Iterator[Services]:
    """Start the servers on what earlier runs left in `folder`, and end them afterwards.

    Raises PipelineError where they do not start, or another run uses the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    python = environment(folder / "python", say)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PipelineError(
                f"another run with the engine kfp uses {folder}; wait for its end"
            ) from None
        log = folder / "servers.log"
        with log.open("w") as sink:
            started = subprocess.Popen(
                [str(python), "-I", str(HERE / "servers.py"), str(folder), BUCKET],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink, text=True,
                start_new_session=True,
            )  # fmt: skip
        try:
            yield Services(started, **json.loads(_ask(started, "", log)), log=log)
        finally:
            _end(started)


def _ask(process: subprocess.Popen[str], line: str, log: Path) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(line)
        process.stdin.flush()
        answer = process.stdout.readline()
    except OSError:
        answer = ""
    if not answer:
        last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise PipelineError(f"the servers of the engine kfp ended: {last[0]} ({log})")
    return answer


def _end(process: subprocess.Popen[str]) -> None:
    """Let the servers end, which they do when their input ends; what hangs is killed."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()
