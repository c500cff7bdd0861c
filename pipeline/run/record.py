"""What is known about a run and its steps, as data, and where it is collected."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.run import beneath, places

FORMAT = 2  # of run.json: the fields of Result and Step; one of another format is not read
DONE = ("succeeded", "cached")
_ENDED = ("succeeded", "failed", "stopped")


@dataclass(frozen=True, slots=True)
class Step:
    """One container of a run.

    `state` is waiting, queued (by the engine slurm), running, succeeded, cached, failed, skipped or
    stopped. `label` is what people call it, unique in its run. `error` says why it failed, `advice`
    what mends that.
    """

    name: str
    state: str = "waiting"
    image: str = ""
    after: tuple[str, ...] = ()
    started: float = 0.0
    seconds: float = 0.0
    error: str = ""
    advice: str = ""
    max_rss: int | None = None
    attempts: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    label: str = ""

    @property
    def title(self) -> str:
        """Its label, or its name where nobody gave it one."""
        return self.label or self.name


@dataclass(frozen=True, slots=True)
class Result:
    """A whole run: `state` is succeeded, failed or stopped; `folder` holds everything it left.

    `name` is the package's, `started` in seconds since 1970, `seconds` how long it took.
    """

    name: str
    state: str
    started: float
    folder: Path
    page: Path
    package_digest: str
    steps: Mapping[str, Step]
    outputs: Mapping[str, Any]
    artifacts: Mapping[str, list[dict[str, Any]]]
    parameters: Mapping[str, Any]
    notes: tuple[str, ...]
    seconds: float
    error: str = ""

    def path(self, uri: str) -> Path:
        """Return where the artifact with `uri`, which a step of this run made, lies.

        Raises PipelineError where none lies there.
        """
        found = places.artifact(self.folder, uri)
        if found is None or not beneath.kind(*found):
            raise PipelineError(f"no step of the run {self.folder} left an artifact at {uri}")
        return found[0] / found[1]


class Record:
    """The steps of a run; threads update it, `progress` hears of every change.

    `label` says what a step is called, from its name and its parameters.
    """

    def __init__(
        self,
        progress: Callable[[Step], None],
        label: Callable[[str, Mapping[str, Any]], str] = lambda name, _: name,
    ) -> None:
        self.steps: dict[str, Step] = {}
        self._progress = progress
        self._label = label
        self._lock = threading.Lock()

    def update(self, name: str, **changes: Any) -> Step:
        """Change the step `name`, which is made where it is new; its end says how long it ran."""
        with self._lock:
            step = self.steps.get(name) or Step(name)
            if changes.get("state") == "running" and not (step.started or "started" in changes):
                changes["started"] = time.time()
            if changes.get("state") in _ENDED and step.started:
                changes["seconds"] = time.time() - step.started
            step = replace(step, **changes)
            self.steps[name] = step = replace(step, label=self._label(name, step.parameters))
            with suppress(OSError, ValueError):  # a closed terminal does not end a run
                self._progress(step)
        return step
