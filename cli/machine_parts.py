"""What this machine has of what plateline can use, and how to get the rest on Debian and Ubuntu."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from builder.errors import BuilderError
from builder.store import Store, default_root
from cli import engine

_LEAST_FREE = 5 << 30


@dataclass(frozen=True)
class Check:
    """A part of the machine: what was found ('' = missing), what it is for, and Debian's packages.

    `required` parts are needed by the demo; the others by some task or test. `lacks` says why it
    is missing and what mends that, where packages do not.
    """

    name: str
    found: str
    use: str
    packages: tuple[str, ...] = ()
    required: bool = False
    lacks: str = ""


def checks() -> list[Check]:
    """Look at this machine; raises BuilderError where the store cannot be written."""
    return [
        Check("python", sys.version.split()[0] if sys.version_info >= (3, 11) else "",
              "all tasks", ("python3", "python3-venv"), required=True),
        *_engines(),
        _slurm(),
        _gpu(),
        Check("limits of a step", _limits(), "memory, processes"),
        Check("network of a step", _network(), "a step that asks for the network"),
        Check("disk", _disk(), f"at least 5 GB for the store {default_root()}", required=True),
        Check("git", _program("git"), "the commit in a package", ("git",), required=True),
        *(
            Check(name, _program(program), use, packages)
            for name, program, use, packages in (
                ("docker-registry", "docker-registry", "tests: a registry", ("docker-registry",)),
                ("docker-compose", "docker-compose", "tests: tests/compose.yaml",
                 ("docker-compose",)),
                ("skopeo", "skopeo", "tests: other tools take our images", ("skopeo",)),
                ("umoci", "umoci", "tests: other tools take our images", ("umoci",)),
                ("podman", "podman", "tests: other tools take our images", ("podman",)),
                ("htpasswd", "htpasswd", "tests: a registry with passwords", ("apache2-utils",)),
                ("busybox", "busybox", "tests: a small image", ("busybox-static",)),
                ("qemu", "qemu-aarch64-static", "tests: images for arm64", ("qemu-user-static",)),
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


def _engines() -> list[Check]:
    """Look for what can run an image; one of them is required."""
    from builder.sandbox import engines

    found = list(engines.lacking(Store.open()))
    none = not any(version for _, version, _ in found)
    uses = {
        "bubblewrap": ("run images without a daemon", ()),
        "podman": ("--engine podman", ()),
        "docker": ("--engine docker, builder=docker, tests", ("docker.io", "iptables")),
    }
    return [
        Check(
            name if name == "bubblewrap" else f"{name} engine", version, uses[name][0],
            # An engine that is there and refuses is not mended by installing it.
            () if shutil.which("dockerd") else uses[name][1],
            required=none and name == "bubblewrap", lacks=lacks,
        )
        for name, version, lacks in found
    ]  # fmt: skip


def _slurm() -> Check:
    """Look for Slurm's programs, and for a controller that answers them."""
    from pipeline.errors import PipelineError
    from pipeline.run.slurm import queue, submission

    use, packages = "--engine slurm; tests: a cluster of one node", ("slurm-wlm", "munge")
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    programs = ("sbatch", "squeue", "scancel", "scontrol")
    if not all(map(shutil.which, programs)):
        return Check("slurm", "", use, packages)
    try:
        found = f"{queue.answers(submission.environment(os.environ))}, its controller answers"
    except PipelineError:
        daemons = all(shutil.which(name, path=path) for name in ("slurmctld", "slurmd", "munged"))
        found = "no controller answers" + ("; enough for the tests" if daemons else "")
    return Check("slurm", found, use)


def _gpu() -> Check:
    """Look for a GPU and its driver; a machine with neither lacks nothing."""
    from builder.sandbox import gpu

    use = "run --gpus"
    try:
        return Check("gpu", str(gpu.find()), use)
    except BuilderError as error:
        there = gpu.nodes(os.listdir("/dev")) or shutil.which("nvidia-smi")  # noqa: PTH208
        return Check("gpu", "", use, lacks=str(error) if there else "")


def _limits() -> str:
    """Return what holds a step to its limits here."""
    from builder.sandbox.confine import cgroup

    place = cgroup.here()
    if place is not None:
        return f"cgroup v{place.version}"
    return "watched, 10 times a second (`systemd-run --user --scope ./invoke …` gives a cgroup)"


def _network() -> str:
    """Return what a step that asks for the network reaches of this machine under bubblewrap."""
    from builder.sandbox.confine import landlock

    sockets = (
        "not its abstract sockets"
        if landlock.works()
        else ("its abstract sockets (Linux 6.12 with Landlock keeps them away)")
    )
    return f"shares this machine's: its loopback too, {sockets}"


def _engine() -> bool:
    """Tell whether a Docker Engine answers."""
    from builder.sandbox.docker import Docker

    try:
        Docker(Store.open()).client.close()
    except BuilderError:
        return False
    return True


def fix(
    missing: list[Check], say: Callable[[str], None], ask: Callable[[], bool] = lambda: True
) -> None:
    """Install what `missing` needs, and start the engine where nothing else does.

    The commands are shown by `say` first, and nothing is done where `ask` says no. Raises
    BuilderError where this is not Debian or Ubuntu, not root, or where a command fails.
    """
    packages = sorted({package for check in missing for package in check.packages})
    start = any(check.name == "docker engine" for check in missing) and not _engine()
    commands = []
    if packages:
        commands = ["apt-get update -qq", "apt-get install -y -qq " + " ".join(packages)]
        if not shutil.which("apt-get"):
            raise BuilderError(
                "doctor --fix installs with apt-get, which is missing; install by hand: "
                + " ".join(packages)
            )
    for command in [*commands, *(["dockerd"] if start else [])]:
        say(f"to run as root: {command}")
    if not commands and not start:
        return
    if os.geteuid() != 0:
        raise BuilderError("doctor --fix must be root; run the commands above with sudo")
    if not ask():
        say("nothing was changed")
        return
    for command in commands:
        say(command)
        _apt(command.split()[1:])
    if start:
        engine.start(_engine, say)


def _apt(words: list[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(["apt-get", *words], env=environment, capture_output=True, check=False)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()[-800:]
        raise BuilderError(f"apt-get {' '.join(words)} failed: {reason}")
