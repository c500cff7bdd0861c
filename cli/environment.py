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
# A package of a lock, with its hashes.
_BLOCK = re.compile(r"(?m)^[A-Za-z0-9].*==.*\n(?:[ \t]+.*\n)*")
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
            # Made anew also where a killed process left half of it.
            pip = _make(folder) if lock == TASKS else [str(folder / "bin/python"), "-m", "pip"]
            _install(pip, root / lock, wanted.decode())
            whole = stamp.with_name(f"{lock}.whole")
            whole.write_bytes(wanted)
            whole.replace(stamp)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
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


def _make(folder: Path) -> list[str]:
    """Make a virtual environment and return what starts pip for it.

    The lock has a pip. It is installed by the one in the wheel that comes with Python, which needs
    not be installed itself before: https://pip.pypa.io/en/stable/installation/ (pip in a zip file).
    """
    import ensurepip
    import sysconfig

    places = (
        sysconfig.get_config_var("WHEEL_PKG_DIR"),
        Path(ensurepip.__file__).parent / "_bundled",
    )
    wheels = [wheel for place in places if place for wheel in Path(place).glob("pip-*.whl")]
    make = [sys.executable, "-m", "venv", str(folder)]
    subprocess.run([*make, "--without-pip"] if wheels else make, check=True)
    return [str(folder / "bin/python"), *([f"{wheels[0]}/pip"] if wheels else ["-m", "pip"])]


def _install(pip: list[str], lock: Path, text: str) -> None:
    """Install the packages that `text`, the content of `lock`, pins, and print how far pip is.

    The lock is complete, so nothing needs to be resolved: --no-deps, and two pips at once, of
    which none is installed or replaced meanwhile. Python compiles a module when it is first
    imported; most never are: --no-compile.
    """
    import itertools
    import tempfile
    import threading
    from concurrent.futures import ThreadPoolExecutor

    blocks = _BLOCK.findall(text)
    replaced = "-m" in pip and any(block.startswith("pip==") for block in blocks)
    parts = [blocks] if replaced or len(blocks) == 1 else [blocks[::2], blocks[1::2]]
    found, offline = itertools.count(1), threading.Event()

    def install(part: list[str]) -> int:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.writelines(part)
            file.flush()
            command = [
                *pip, "--disable-pip-version-check", "--no-color", "install", "--progress-bar=off",
                "--no-compile", "--require-hashes", "--no-deps", "-r", file.name,
            ]  # fmt: skip
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                errors="replace", env={**os.environ, "PYTHONUNBUFFERED": "1"},
            ) as running:  # fmt: skip
                for line in running.stdout or ():
                    if line.startswith("Collecting") and (number := next(found)) % 20 == 0:
                        _say(f"{number} of at most {len(blocks)} packages")
                    if _NO_NETWORK.search(line):
                        offline.set()
                    if _SAID.match(line):
                        print(line.rstrip(), file=sys.stderr)
        return running.returncode

    with ThreadPoolExecutor(len(parts)) as pool:
        failed = any([*pool.map(install, parts)])
    if failed:
        raise SystemExit(
            f"invoke: pip could not install {lock.name}: "
            + ("the package index was not reached; connect this machine to it, or set PIP_INDEX_URL"
               if offline.is_set() else "see its message above")
        )  # fmt: skip


def _say(text: str) -> None:
    print(f"invoke: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    install(_ROOT / ".venv", TASKS)
