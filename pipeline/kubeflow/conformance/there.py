"""The suite on a server of Kubeflow Pipelines: started, followed, looked at, and removed again.

Nothing is uploaded: a run brings its package along (pipeline_spec of run.proto of
kubeflow/pipelines), and all runs are in one experiment of their own.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.kubeflow.conformance.observation import Observation, seen
from pipeline.kubeflow.conformance.suite.packages import Packaged
from pipeline.kubeflow.server import objects, pipelines, runs, steps
from pipeline.kubeflow.server.connection import Connection, ServerError
from pipeline.kubeflow.server.steps import Steps
from pipeline.kubeflow.watch import interruptible
from pipeline.run.step.cache import content_digest
from pipeline.spec.package import Package, arguments

PREFIX = "plateline-conformance-"
_STATES = {"SUCCEEDED": "succeeded", "FAILED": "failed", "CANCELED": "stopped"}
_LARGEST = 1 << 20  # bytes of an artifact; those of the suite have some ten
Said = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """How many cases run at a time, for how many seconds each, and the pause between questions."""

    at_once: int = 8
    seconds: float = 900.0
    pause: float = 3.0


@dataclass(slots=True)
class _Running:
    """A case whose run was started; `left` is how often it is to be run after this."""

    packaged: Packaged
    run_id: str
    left: int
    since: float


def run_there(
    connection: Connection, suite: Sequence[Packaged], mark: str, limits: Limits, said: Said
) -> Iterator[tuple[str, Observation]]:
    """Yield the name of each case and what the server made of it, as they end.

    Whatever happens meanwhile, also Ctrl-C and SIGTERM, the runs and the experiment are removed.
    Raises ServerError where the server stays away.
    """
    with interruptible(), _experiment(connection, PREFIX + mark, said) as experiment:
        waiting = deque(suite)
        active: list[_Running] = []
        while waiting or active:
            while waiting and len(active) < limits.at_once:
                packaged = waiting.popleft()
                active.append(_start(connection, packaged, experiment, packaged.case.runs - 1))
            for running in list(active):
                found = _looked_at(connection, running, limits)
                if found is None:
                    continue
                active.remove(running)
                if running.left and found.state == "succeeded":
                    case = running.packaged
                    active.append(_start(connection, case, experiment, running.left - 1))
                else:
                    yield running.packaged.name, found
            if active:
                time.sleep(limits.pause)


def _start(connection: Connection, packaged: Packaged, experiment: str, left: int) -> _Running:
    run = {
        "display_name": f"{packaged.name} {packaged.case.runs - left}",
        "experiment_id": experiment,
        "pipeline_spec": document(packaged.package),
        "runtime_config": {"parameters": arguments(packaged.package, packaged.case.arguments)},
    }
    return _Running(packaged, runs.start(connection, runs.RUN, run), left, time.monotonic())


def document(package: Package) -> dict[str, Any]:
    """Return a package as a run brings it along: both of its parts, the second where it has one."""
    if not package.kubernetes:
        return dict(package.spec)
    executors = {"deploymentSpec": {"executors": package.kubernetes}}
    platform = {"platforms": {"kubernetes": executors}}
    return {"pipeline_spec": package.spec, "platform_spec": platform}


def _looked_at(connection: Connection, running: _Running, limits: Limits) -> Observation | None:
    """Return what a run ended as, None while it goes on; one that takes too long is ended."""
    run = runs.get(connection, running.run_id)
    state = runs.state(run)
    if state not in runs.ENDED:
        if time.monotonic() - running.since < limits.seconds:
            return None
        runs.terminate(connection, running.run_id)
        return Observation(f"{state or 'not begun'} after {limits.seconds:.0f} s", {}, False)
    found = steps.of_run(connection, run, running.packaged.package.spec)
    return observed(connection, _STATES.get(state, state), found)


def observed(connection: Connection, state: str, found: Steps) -> Observation:
    """Return what counts of a run of a server."""

    def content(_: str, entry: Mapping[str, Any]) -> str:
        uri = str(entry["uri"])
        if objects.location(uri) is None:
            return ""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "artifact"
            session = found.sessions.get(uri, "")
            why = objects.save(connection, uri, path, session, _LARGEST)
            return "cannot be read" if why else content_digest(path)

    made = {
        name: seen(step, content) for name, step in found.steps.items() if step.state != "skipped"
    }
    return Observation(state, made, found.complete)


@contextlib.contextmanager
def _experiment(connection: Connection, name: str, said: Said) -> Iterator[str]:
    """Make an experiment, and remove it with all of its runs."""
    experiment = pipelines.experiment(connection, name)
    try:
        yield experiment
    finally:
        said("removing the runs and their experiment")
        try:
            removed(connection, experiment)
        except BaseException as error:
            said(f"the experiment {name} could not be removed whole: delete it by hand ({error})")
            if not isinstance(error, PipelineError):
                raise


def removed(connection: Connection, experiment: str) -> None:
    """End and remove every run of an experiment, then it; raises ServerError for the first left."""
    left: ServerError | None = None
    for run in runs.of_experiment(connection, experiment):
        try:
            if runs.state(run) not in runs.ENDED:
                runs.terminate(connection, str(run["run_id"]))
            runs.remove(connection, f"runs/{run['run_id']}")
        except ServerError as error:
            left = left or error
    if left:
        raise left
    runs.remove(connection, f"experiments/{experiment}")
