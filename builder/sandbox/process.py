"""What to run in an image, and how it ended, as data; and the protocol of what runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from builder import oci
from builder.errors import BuilderError
from builder.sandbox.gpu import Gpus


@dataclass(frozen=True, slots=True)
class Mount:
    """A host folder or file seen at the absolute path `target` inside."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Needs:
    """What a cluster's queue is told of a process, and this machine's engines do not look at.

    `name` is the step's; `cpus` and `memory` (bytes) are to be set aside for it, 0 = not said.
    """

    name: str = ""
    cpus: float = 0.0
    memory: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A command in an image: read-only root, private /tmp, and no network unless asked.

    A `command` replaces the image's entry point and command, as in Kubernetes; `user`, `workdir`
    and `env` default to (or add to) the image's. `timeout` in seconds; `memory` in bytes, for all
    its processes together. `ports` maps a port that a server listens on to the environment
    variable that moves it, for sandboxes that share the host's loopback. `gpus` are of the host.
    """

    image: oci.Image
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    workdir: str = ""
    user: str = ""
    network: bool = False
    timeout: float | None = None
    memory: int | None = None
    ports: Mapping[int, str] = field(default_factory=dict)
    needs: Needs = Needs()
    gpus: Gpus | None = None

    def words(self) -> list[str]:
        """Return the command to execute; raises BuilderError where there is none."""
        config = self.image.config.get("config", {})
        own = [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]
        own = list(self.command) or own
        if not own:
            raise BuilderError(f"the image {self.image.digest} has no command; give one")
        return own

    def environment(self) -> dict[str, str]:
        """Return the image's environment with the process's own on top."""
        image = dict(e.split("=", 1) for e in self.image.config.get("config", {}).get("Env") or [])
        return {**image, **self.env}


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: its exit code, the signal that killed it, or the limit that it broke.

    `max_rss` is the peak resident size in bytes where the sandbox sees it. `broke` says which limit
    other than time and memory it was killed for; `advice` what mends that, where the sandbox knows.
    """

    code: int
    signal: int | None = None
    timed_out: bool = False
    max_rss: int | None = None
    seconds: float = 0.0
    out_of_memory: bool = False
    broke: str = ""
    advice: str = ""

    def __str__(self) -> str:
        if self.out_of_memory:
            return "killed because it used more than its memory limit"
        if self.broke:
            return f"killed because {self.broke}"
        if self.timed_out:
            return f"stopped after its time limit, {self.seconds:.0f} s"
        if self.signal:
            return f"killed by signal {self.signal}"
        return f"exit code {self.code}"


class Running(Protocol):
    """A process that was started."""

    @property
    def ports(self) -> Mapping[int, int]:
        """The loopback ports of this machine that lead to the process's own."""

    def wait(self) -> Exit:
        """Wait for the end (or the time limit) and return how it came."""

    def stop(self, grace: float = 10.0) -> Exit:
        """Ask it to end with SIGTERM, and kill it after `grace` seconds."""


class Sandbox(Protocol):
    """Runs processes in images: bubblewrap, podman or a Docker Engine.

    `start` and `attach` raise BuilderError where the image is damaged or the engine refuses.
    """

    @property
    def name(self) -> str:
        """What `--engine` calls it."""

    def start(
        self, process: Process, stdout: BinaryIO | int | None = None, stdin: bytes = b""
    ) -> Running:
        """Start `process`; both its output streams go to `stdout`."""

    def attach(self, process: Process) -> Exit:
        """Run `process` on the caller's own stdin and stdout to its end."""


def run(
    sandbox: Sandbox, process: Process, stdout: BinaryIO | int | None = None, stdin: bytes = b""
) -> Exit:
    """Run `process` to its end; it is killed where the caller is interrupted.

    Raises BuilderError where the image is damaged or the engine refuses.
    """
    running = sandbox.start(process, stdout, stdin)
    try:
        return running.wait()
    except BaseException:
        running.stop(grace=0)
        raise
