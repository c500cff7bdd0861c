"""`.venv`, what the tasks import: installed from the locks at first use and when one changes.

`./invoke` starts this file by the machine's own Python, before there is a package to import.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TASKS = "requirements.lock"
DEVELOPMENT = "requirements-dev.lock"
_ROOT = Path(__file__).resolve().parent.parent
_PIN = re.compile(r"(?m)^[A-Za-z0-9].*==")
# What pip prints where a download failed: the rest of its many lines says no more.
_SAID = re.compile(r"ERROR|.*rror:|\s+(Expected|Got)\b")
_NO_NETWORK = re.compile(r"NewConnectionError|NameResolutionError|ConnectTimeout|ProxyError")


def development_tools() -> None:
    """Install what tests and lints code, where a task asks for it first.

    Nothing is done in a Python that `./invoke` did not make: it is left to whoever made it. Raises
    SystemExit where pip cannot install it.
    """
    folder = Path(sys.prefix)
    if (folder / TASKS).exists():
        install(folder, DEVELOPMENT)


def install(folder: Path, lock: str, root: Path = _ROOT) -> None:
    """Install the lock file `lock` of `root` into the virtual environment `folder`, made if needed.

    Does nothing where that was done; one of several processes does it and the others wait. Raises
    SystemExit where it cannot be done.
    """
    wanted = (root / lock).read_bytes()
    stamp = folder / lock
    if _read(stamp) == wanted:
        return
    try:
        folder.mkdir(exist_ok=True)
        with _alone(folder):
            if _read(stamp) == wanted:
                return
            _say(f"installing {lock} into {folder}, once")
            if lock == TASKS:  # also where a killed process left half of it
                subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            _pip(folder / "bin/python", root / lock, wanted.decode())
            whole = stamp.with_name(f"{lock}.whole")
            whole.write_bytes(wanted)
            whole.replace(stamp)
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"invoke: `{' '.join(map(str, error.cmd))}` failed") from None
    except OSError as error:
        raise SystemExit(f"invoke: cannot install {lock} into {folder}: {error}") from None


def _read(stamp: Path) -> bytes | None:
    try:
        return stamp.read_bytes()
    except FileNotFoundError:
        return None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process installs into `folder`; a killed one leaves nothing locked."""
    with (folder / "installing").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"another process installs into {folder}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _pip(python: Path, lock: Path, text: str) -> None:
    """Install the packages that `text`, the content of `lock`, pins, and print how far pip is.

    The lock is complete, so nothing needs to be resolved: --no-deps. Python compiles a module
    when it is first imported; most never are: --no-compile.
    """
    command = [
        str(python), "-m", "pip", "--disable-pip-version-check", "--no-color", "install",
        "--progress-bar=off", "--no-compile", "--require-hashes", "--no-deps", f"-r{lock}",
    ]  # fmt: skip
    count, found, offline = len(_PIN.findall(text)), 0, False
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as pip:  # fmt: skip
        for line in pip.stdout or ():
            if line.startswith("Collecting"):
                found += 1
                if found % 20 == 0:
                    _say(f"{found} of at most {count} packages")
            offline = offline or bool(_NO_NETWORK.search(line))
            if _SAID.match(line):
                print(line.rstrip(), file=sys.stderr)
    if pip.returncode:
        raise SystemExit(
            f"invoke: pip could not install {lock.name}: "
            + ("the package index was not reached; connect this machine to it, or set PIP_INDEX_URL"
               if offline else "see its message above")
        )  # fmt: skip


def _say(text: str) -> None:
    print(f"invoke: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    install(_ROOT / ".venv", TASKS)
