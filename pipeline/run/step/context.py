"""What a step is given, as data: its task, and what all steps of a run share."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder import oci
from builder.errors import BuilderError
from builder.sandbox.gpu import Gpus
from builder.sandbox.process import Running, Sandbox
from builder.store import Store
from pipeline.errors import PipelineError
from pipeline.run.record import Record
from pipeline.run.step.cache import Cache, content_digest


class Stopped(Exception):  # noqa: N818 - an outcome, not an error
    """The run is being stopped."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A folder of this machine for a claim. Only a read-only one enters fingerprints."""

    folder: Path
    writable: bool = False


@dataclass(frozen=True)
class RunContext:
    """What every step of a run shares.

    `network` gives it to all steps, also to those that do not ask; `publish` are the repositories
    that steps may publish to (None: any that their parameters name); `gpus` are handed to those
    that ask for one.
    """

    folder: Path
    sandbox: Sandbox
    store: Store
    images: Mapping[str, oci.Image]
    kubernetes: Mapping[str, Mapping[str, Any]]
    volumes: Mapping[str, Volume]
    secrets: Mapping[str, Path]
    facts: Mapping[str, str]
    cache: Cache | None
    network: bool
    publish: frozenset[str] | None
    slots: threading.Semaphore
    record: Record
    gpus: Gpus | None = None
    writing: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)
    running: dict[str, Running] = field(default_factory=dict)
    digests: dict[Path, str] = field(default_factory=dict)
    wrote: list[tuple[str, Mapping[str, Path], float, float]] = field(default_factory=list)

    def stop_all(self) -> None:
        """End every container; no new one is started."""
        self.stop.set()

        def end(running: Running) -> None:
            with suppress(BuilderError, PipelineError, OSError):
                running.stop(grace=0)

        # At the same time: a job of a cluster takes seconds to end.
        if ending := list(self.running.values()):
            with ThreadPoolExecutor(len(ending)) as pool:
                list(pool.map(end, ending))

    @contextmanager
    def claims(self, task: Task) -> Iterator[None]:
        """Let no other step change the writable claims of `task`, where a package has sub-paths.

        Otherwise one could put a link in the place of a sub-path after it was checked, and before
        it is mounted.
        """
        writes = any(
            mount["name"] in self.volumes and self.volumes[mount["name"]].writable
            for mount in task.settings.get("pvcMount", [])
        )
        has_sub_paths = any(
            mount.get("subPath")
            for settings in self.kubernetes.values()
            for mount in settings.get("pvcMount", [])
        )
        with self.writing if writes and has_sub_paths else nullcontext():
            yield

    def volume_digest(self, path: Path) -> str:
        """Return the digest of a read-only volume, which is read once a run."""
        if path not in self.digests:
            self.digests[path] = content_digest(path)
        return self.digests[path]


@dataclass(frozen=True)
class Task:
    """A container to run: its component, executor and resolved inputs."""

    name: str
    component: Mapping[str, Any]
    settings: Mapping[str, Any]
    container: Mapping[str, Any]
    parameters: Mapping[str, Any]
    artifacts: Mapping[str, list[dict[str, Any]]]
    caching: bool
    retry: Mapping[str, Any]
