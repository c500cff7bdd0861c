"""A run of a server brought here: artifacts, logs and the same page as of a run on this machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.kubeflow.server import objects
from pipeline.kubeflow.server.connection import Connection, ServerError
from pipeline.kubeflow.server.steps import LOGS, Steps
from pipeline.kubeflow.watch import Ended
from pipeline.run import page, places
from pipeline.run.record import Result, Step
from pipeline.spec.package import Package

_STATES = {"SUCCEEDED": "succeeded", "CANCELED": "stopped"}


def fetch(
    connection: Connection,
    ended: Ended,
    package: Package,
    folder: Path,
    said: Callable[[str], None] = lambda _: None,
) -> Result:
    """Write what a run left into `folder`, as `invoke run` does, and return it as such a run.

    What cannot be had is a note of the result: a log whose pod is gone, an artifact that the
    server does not hand out. Raises PipelineError where `folder` is there already, cannot be
    written, or the server stays away.
    """
    notes: list[str] = []
    if not ended.steps.complete:
        notes.append("the metadata store did not answer: there are no values and no artifacts")
    try:
        places.make_private(folder.parent)
        folder.mkdir(mode=0o700)
    except FileExistsError:
        raise PipelineError(f"{folder} is there already; choose another --fetch DIR") from None
    except OSError as error:
        raise PipelineError(
            f"making {folder} failed ({error.strerror}); choose another --fetch DIR"
        ) from None
    try:
        made = {}
        for name, step in ended.steps.steps.items():
            said(f"fetching what {step.title} left")
            made[name] = _step(connection, ended, step, folder, notes)
        result = _result(ended, package, folder, made, notes)
        result.page.write_text(page.render(result))
        (folder / "run.json").write_text(json.dumps(page.document(result), indent=1))
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise PipelineError(
            f"writing to {folder} failed ({error.strerror}); {places.advice(error)}"
        ) from None
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return result


def _step(connection: Connection, ended: Ended, step: Step, folder: Path, notes: list[str]) -> Step:
    """Bring a step's artifacts and log, and return it with the URIs that they have here."""
    own = places.step_folder(folder, step.name)
    own.mkdir(parents=True)
    (own / "input.json").write_text(json.dumps(step.parameters, indent=1))
    artifacts: dict[str, list[dict[str, Any]]] = {}
    for key, entries in step.artifacts.items():
        if key == LOGS:
            continue
        places.checked(key, "the artifact")
        many = len(entries) > 1
        artifacts[key] = [
            _artifact(connection, ended.steps, step.name, f"{key}-{n}" if many else key, entry,
                      folder, notes)
            for n, entry in enumerate(entries)
        ]  # fmt: skip
    try:
        (own / "log.txt").write_text(_log(connection, ended, step))
    except ServerError as error:
        notes.append(f"the log of {step.name} cannot be had: {error}")
    return replace(step, artifacts=artifacts)


def _artifact(
    connection: Connection, steps: Steps, step: str, name: str, entry: Mapping[str, Any],
    folder: Path, notes: list[str],
) -> dict[str, Any]:  # fmt: skip
    uri = str(entry["uri"])
    out = places.step_folder(folder, step) / "out" / name
    if objects.location(uri) is None:  # of an importer: elsewhere
        return dict(entry)
    if why := objects.save(connection, uri, out, steps.sessions.get(uri, "")):
        notes.append(f"the artifact {name} of {step} is not here: {why}")
        return dict(entry)
    return {**entry, "uri": f"{places.outputs_inside(step)}/{name}", "from": uri}


def _log(connection: Connection, ended: Ended, step: Step) -> str:
    pod = ended.steps.pods.get(step.name, "")
    if not pod or step.state == "cached":
        return ""
    return objects.log(connection, str(ended.run["run_id"]), pod)


def _result(
    ended: Ended, package: Package, folder: Path, steps: Mapping[str, Step], notes: list[str]
) -> Result:
    run = ended.run
    began, finished = (_time(run.get(key)) for key in ("created_at", "finished_at"))
    error = str((run.get("error") or {}).get("message") or "")
    failed = [step for step in steps.values() if step.state == "failed"]
    if not error and failed:
        error = f"{failed[0].title} failed" + (f": {failed[0].error}" if failed[0].error else "")
    return Result(
        name=package.name, state=_STATES.get(ended.state, "failed"), started=began,
        folder=folder.resolve(),
        page=folder.resolve() / "index.html", package_digest=package.digest, steps=steps,
        outputs={}, artifacts={},
        parameters=(run.get("runtime_config") or {}).get("parameters") or {},
        notes=tuple(notes), seconds=max(0.0, finished - began), error=error,
    )  # fmt: skip


def _time(text: Any) -> float:
    """Return a time of the API, such as 2026-01-31T12:00:00Z, in seconds since 1970."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0
