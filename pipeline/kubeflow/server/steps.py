"""The steps of a run on a server, as the local run has them: name, state, values, artifacts.

What each was given and made is in the metadata store. Where that does not answer only names and
states are known, from the nodes of the workflow that the API lists.

Source: backend/src/v2/metadata/client.go and driver/ of kubeflow/pipelines 2.17.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.kubeflow.server import metadata, runs
from pipeline.kubeflow.server.connection import Connection, ServerError
from pipeline.kubeflow.server.metadata import OUTPUT, Stored
from pipeline.run.record import Step
from pipeline.spec.dependencies import producers, way
from pipeline.spec.labels import Labels
from pipeline.spec.values import whole

# Execution.State of ml_metadata; CANCELED is what the backend writes for a false condition.
_STATES = {0: "waiting", 1: "waiting", 2: "running", 3: "succeeded", 4: "failed", 5: "cached",
           6: "skipped"}  # fmt: skip
_NODE_STATES = {"PENDING": "waiting", "RUNNING": "running", "SUCCEEDED": "succeeded",
                "FAILED": "failed", "SKIPPED": "skipped", "OMITTED": "skipped",
                "CANCELED": "stopped", "CANCELING": "running"}  # fmt: skip
_DAG = "system.DAGExecution"
LOGS = "executor-logs"  # an artifact that the backend adds to every step's
_OWN = {"display_name", "store_session_info"}  # metadata that the backend adds to an artifact
# Nodes of the workflow that are no steps: the backend's own, and what holds others.
_NO_STEP = re.compile(r"(.*-driver|executor.*|root|entrypoint|.*-pod|.*\(\d+\)?|)")


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of a run by name, and the pods that ran them.

    `complete` is false where only the workflow's nodes are known: no values, no artifacts.
    `sessions` maps the URI of an artifact to what the backend noted of its object store.
    """

    steps: Mapping[str, Step]
    pods: Mapping[str, str] = field(default_factory=dict)
    complete: bool = True
    sessions: Mapping[str, str] = field(default_factory=dict)


def of_run(
    connection: Connection, run: Mapping[str, Any], spec: Mapping[str, Any] | None = None
) -> Steps:
    """Return the steps of a run that the API gave; `spec` of its package says what waits for what.

    A step that never reported although its run has ended failed or was stopped with it.
    """
    try:
        found = metadata.stored(connection, str(run.get("run_id", "")))
    except ServerError as error:
        if error.status in (401, 403):
            raise
        return of_nodes(run)
    if found is None:
        return of_nodes(run)
    made = of_store(found)
    state = runs.state(run)
    if state in runs.ENDED:
        made = replace(made, steps={n: _settled(step, state) for n, step in made.steps.items()})
        if spec:
            omitted = _begun_by_no_driver(run, _omitted(spec, set(made.steps)))
            made = replace(made, steps={**made.steps, **omitted})
    if spec:
        labels = Labels(spec)
        steps = {
            n: replace(step, after=waited(spec, n), label=labels.of(n, step.parameters))
            for n, step in made.steps.items()
        }
        made = replace(made, steps=steps)
    return made


def _omitted(spec: Mapping[str, Any], names: set[str]) -> list[str]:
    """Return the tasks that the store never heard of: what they needed was skipped, or failed."""

    def below(component: Mapping[str, Any], prefix: str) -> Iterator[str]:
        for key, task in component.get("dag", {}).get("tasks", {}).items():
            name = prefix + key
            inside = {n.removeprefix(f"{name}.") for n in names if n.startswith(f"{name}.")}
            if not inside and name not in names:
                if not _loop(task):  # one of no rounds is no step
                    yield name
                continue
            inner = spec.get("components", {}).get(task["componentRef"]["name"], {})
            rounds = {n.partition(".")[0] for n in inside} if _loop(task) else {""}
            for each in sorted(rounds):
                yield from below(inner, f"{name}.{each}." if each else f"{name}.")

    return list(below(spec["root"], ""))


def _begun_by_no_driver(run: Mapping[str, Any], names: list[str]) -> dict[str, Step]:
    """Return tasks that the store never heard of: skipped, or failed in the backend's own driver.

    The API lists nodes by their own names only, so a driver is that of every task of its name.
    """
    details = (run.get("run_details") or {}).get("task_details") or []
    failed = {str(one.get("display_name")) for one in details if one.get("state") == "FAILED"}
    return {
        name: Step(name, state="failed", error="the backend could not hand it what it needs")
        if f"{name.rpartition('.')[2]}-driver" in failed
        else Step(name, state="skipped")
        for name in names
    }


def _loop(task: Mapping[str, Any]) -> bool:
    return "parameterIterator" in task or "artifactIterator" in task


def _settled(step: Step, state: str) -> Step:
    if step.state not in ("running", "waiting"):
        return step
    if state == "CANCELED":
        return replace(step, state="stopped")
    return replace(
        step, state="failed",
        error="its container ended without a report: it was killed, evicted or ran out of time",
    )  # fmt: skip


def of_store(found: Stored) -> Steps:
    """Return the steps that a metadata store has of a run."""
    executions = {one.id: one for one in found.executions}
    facts = {key: _properties(one.custom_properties) for key, one in executions.items()}
    steps: dict[str, Step] = {}
    pods: dict[str, str] = {}
    sessions: dict[str, str] = {}
    made: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for event in found.events:
        artifact = found.artifacts.get(event.artifact_id)
        if event.type == OUTPUT and artifact is not None and event.path.steps:
            key = event.path.steps[0].key
            made.setdefault(event.execution_id, {}).setdefault(key, []).append(_entry(artifact))
            session = _properties(artifact.custom_properties).get("store_session_info")
            if session:
                sessions[artifact.uri] = str(session)
    for key, one in sorted(executions.items()):
        own = facts[key]
        name = ".".join(_path(key, facts))
        state = _STATES.get(one.last_known_state, "waiting")
        if not name or (one.type == _DAG and state != "skipped"):
            continue
        began = one.create_time_since_epoch / 1000
        artifacts = made.get(key, {})
        steps[name] = Step(
            name, state=state, image=str(own.get("image", "")),
            started=began, seconds=max(0.0, one.last_update_time_since_epoch / 1000 - began),
            parameters=whole(own.get("inputs") or {}), outputs=whole(own.get("outputs") or {}),
            artifacts={output: artifacts[output] for output in sorted(artifacts)},
        )  # fmt: skip
        pods[name] = str(own.get("pod_name", ""))
    return Steps(steps, pods, sessions=sessions)


def _properties(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: metadata.value(one) for name, one in found.items() if one.WhichOneof("value")}


def _entry(artifact: Any) -> dict[str, Any]:
    facts = _properties(artifact.custom_properties)
    return {
        "name": artifact.name, "uri": artifact.uri,
        "type": {"schemaTitle": artifact.type},
        "metadata": whole({name: facts[name] for name in sorted(facts) if name not in _OWN}),
    }  # fmt: skip


def _path(key: int, facts: Mapping[int, Mapping[str, Any]]) -> list[str]:
    """Return the names of the tasks around an execution and its own; a loop's rounds are numbers.

    A round is an execution below that of its loop, which says how many there are.
    """
    parts: list[str] = []
    seen: set[int] = set()
    while key in facts and key not in seen:
        seen.add(key)
        own = facts[key]
        parent = own.get("parent_dag_id")
        if parent is None:  # the root
            break
        above = facts.get(int(parent), {})
        if "iteration_index" in own and "iteration_count" in above:
            parts.append(str(int(own["iteration_index"])))
        else:
            parts.append(str(own.get("task_name") or own.get("display_name") or ""))
        key = int(parent)
    return parts[::-1]


def of_nodes(run: Mapping[str, Any]) -> Steps:
    """Return names and states out of the workflow's nodes that the API lists for a run."""
    steps: dict[str, Step] = {}
    for task in (run.get("run_details") or {}).get("task_details") or []:
        name = str(task.get("display_name") or "")
        if _NO_STEP.fullmatch(name) or name == run.get("display_name"):
            continue
        state = _NODE_STATES.get(str(task.get("state") or ""), "waiting")
        steps[name] = Step(name, state=state)
    return Steps(steps, complete=False)


def waited(spec: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return what the step `name` waits for, by the package's graph; names as a local run has."""
    after: tuple[str, ...] = ()
    for prefix, task in way(spec, name):
        after = tuple(prefix + key for key in producers(task)) or after
    return after
