"""A case on this machine, by `invoke run`'s own runner or by another that takes the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from builder.store import Store
from pipeline.errors import PipelineError
from pipeline.kubeflow.conformance.observation import Observation, seen
from pipeline.kubeflow.conformance.suite.cluster import CONTENT, KEY
from pipeline.kubeflow.conformance.suite.packages import Packaged
from pipeline.run import places
from pipeline.run.record import Result
from pipeline.run.runner import Volume, run
from pipeline.run.step.cache import content_digest

Run = Callable[..., Result]  # as `pipeline.run.runner.run`


def run_here(
    packaged: Packaged,
    store: Store,
    folder: Path,
    *,
    claim: str,
    secret: str,
    run: Run = run,
) -> Observation:
    """Run a case in `folder`, which is empty, as often as it wants, and return the last run.

    What another runner keeps in an object store is not looked into. Raises PipelineError where the
    case cannot run at all.
    """
    case = packaged.case
    work, key = folder / "claim", folder / "secret"
    work.mkdir(parents=True)
    key.mkdir()
    (key / KEY).write_text(CONTENT)
    for _ in range(case.runs):
        result = run(
            packaged.package, store, parameters=case.arguments,
            volumes={claim: Volume(work, writable=True)} if case.claim else {},
            secrets={secret: key} if case.secret else {}, runs=folder / "runs",
            use_cache=case.runs > 1,
        )  # fmt: skip
    return observed(result)


def observed(result: Result) -> Observation:
    """Return what counts of a run of this machine."""

    def content(_: str, entry: Mapping[str, Any]) -> str | None:
        try:
            path = places.artifact_path(result.folder, str(entry["uri"]))
        except PipelineError:
            return None
        return content_digest(path) if path else None

    steps = {
        name: seen(step, content) for name, step in result.steps.items() if step.state != "skipped"
    }
    return Observation(result.state, steps, outputs=result.outputs)
