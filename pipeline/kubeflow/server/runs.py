"""Runs of a server: started once, asked, ended and removed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.kubeflow.server.connection import Connection, ServerError, Unclear, no_api
from pipeline.kubeflow.server.pipelines import CONTAINS, filtered, listed

ENDED = frozenset({"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"})
# backend/api/v2beta1/run.proto of kubeflow/pipelines; "" is what a run has that was just made.
KNOWN = ENDED | {"", "RUNTIME_STATE_UNSPECIFIED", "PENDING", "RUNNING", "CANCELING", "PAUSED"}
_NOT_FOUND = 404
# A gateway answers so where it reached nobody; others may still be at work.
_NOT_REACHED = {502, 503}


@dataclass(frozen=True, slots=True)
class Kind:
    """Objects that are started by name: where the API has them, and what it calls their ids."""

    path: str
    listing: str
    key: str


RUN = Kind("runs", "runs", "run_id")
RECURRING = Kind("recurringruns", "recurringRuns", "recurring_run_id")


def named(connection: Connection, kind: Kind, body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the object of the display_name and experiment_id of `body`, None where there is none.

    Their names are not unique for the server.
    """
    query = {
        "filter": filtered("display_name", body["display_name"]),
        "experiment_id": body["experiment_id"],
    }
    return next(listed(connection, kind.path, kind.listing, **query), None)


def start(connection: Connection, kind: Kind, body: Mapping[str, Any]) -> str:
    """Start a run, or a recurring one, and return its id; no other may have its display_name.

    No second one is ever started: where an answer is missing it is looked for by its name. Raises
    Unclear where it is not there, but may come yet.
    """
    name = body["display_name"]
    for left in reversed(range(connection.access.tries)):
        try:
            made = connection.post(kind.path, body)
        except Unclear as error:
            if known := _appears(connection, kind, body):
                return known
            if error.status in _NOT_REACHED and left:
                continue
            raise Unclear(
                f"{error}. No run {name!r} is there, but it may come yet: give --run-name "
                f"{name!r} when you submit again, and no second one is started", error.status,
            ) from None  # fmt: skip
        if not made.get(kind.key):
            raise no_api(connection.access)
        return str(made[kind.key])
    raise AssertionError("a server is asked at least once")


def _appears(connection: Connection, kind: Kind, body: Mapping[str, Any]) -> str | None:
    """Look for it several times: the server may be at work still."""
    access = connection.access
    for attempt in range(access.tries):
        if found := named(connection, kind, body):
            return str(found[kind.key])
        time.sleep(access.pause * 2**attempt)
    return None


def get(connection: Connection, run_id: str) -> dict[str, Any]:
    """Return a run as the API gives it."""
    return connection.get(f"runs/{run_id}")


def state(run: Mapping[str, Any]) -> str:
    """Return the state of a run, "" where it has none yet."""
    return str(run.get("state") or "")


def terminate(connection: Connection, run_id: str) -> None:
    """Ask the server to end a run; one that has ended already, or is gone, is no error."""
    try:
        connection.post(f"runs/{run_id}:terminate", {})
    except ServerError as error:
        if error.status == _NOT_FOUND:
            return
        if state(get(connection, run_id)) not in ENDED | {"CANCELING"}:
            raise


def remove(connection: Connection, path: str) -> None:
    """Remove an object of the API; one that is gone is no error."""
    try:
        connection.delete(path)
    except ServerError as error:
        if error.status != _NOT_FOUND:
            raise


def experiments(connection: Connection, part: str) -> Iterator[dict[str, Any]]:
    """Yield the experiments whose name holds `part`."""
    query = {
        "filter": filtered("display_name", part, CONTAINS),
        "namespace": connection.access.namespace,
    }
    yield from listed(connection, "experiments", "experiments", **query)


def of_experiment(connection: Connection, experiment_id: str) -> list[dict[str, Any]]:
    """Return all runs of an experiment."""
    return list(listed(connection, "runs", "runs", experiment_id=experiment_id))
