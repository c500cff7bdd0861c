"""Pipelines, their versions and experiments of a server: found by their names, made where new."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipeline.kubeflow.server.connection import Connection, ServerError, Unclear

# backend/api/v2beta1/filter.proto of kubeflow/pipelines.
EQUALS, CONTAINS = 1, 9
_PAGE = "100"
_CONFLICT = 409
_MOST_PAGES = 10_000


def filtered(key: str, value: str, operation: int = EQUALS) -> str:
    """Return a filter of lists: objects whose `key` is, or holds, `value`."""
    return json.dumps({"predicates": [{"operation": operation, "key": key, "stringValue": value}]})


def listed(connection: Connection, path: str, name: str, **query: str) -> Iterator[dict[str, Any]]:
    """Yield every object of a list, page by page; raises ServerError for pages without an end."""
    token, seen = "", set()
    for _ in range(_MOST_PAGES):
        page = connection.get(path, page_size=_PAGE, page_token=token, **query)
        yield from page.get(name) or []
        token = str(page.get("next_page_token") or "")
        if not token:
            return
        if token in seen:
            break
        seen.add(token)
    raise ServerError(f"{connection.access.host} lists {name} without an end; try again")


def pipeline(connection: Connection, name: str) -> str:
    """Return the id of the pipeline `name`, which is made where it is new, without a version."""
    body = {"display_name": name, "namespace": connection.access.namespace}
    return _named(connection, "pipelines", "pipelines", "pipeline_id", body)


def experiment(connection: Connection, name: str) -> str:
    """Return the id of the experiment `name`, which is made where it is new."""
    body = {"display_name": name, "namespace": connection.access.namespace}
    return _named(connection, "experiments", "experiments", "experiment_id", body)


def _named(
    connection: Connection, path: str, listing: str, key: str, body: Mapping[str, str]
) -> str:
    def find() -> str | None:
        query = {
            "filter": filtered("display_name", body["display_name"]),
            "namespace": connection.access.namespace,
        }
        found = next(listed(connection, path, listing, **query), None)
        return str(found[key]) if found else None

    sent = {name: value for name, value in body.items() if value}
    return _once(connection, find, lambda: str(connection.post(path, sent)[key]))


def version(connection: Connection, pipeline_id: str, name: str) -> str | None:
    """Return the id of a version of a pipeline, None where there is none of that name."""
    path = f"pipelines/{pipeline_id}/versions"
    query = {"filter": filtered("display_name", name)}
    found = next(listed(connection, path, "pipeline_versions", **query), None)
    return str(found["pipeline_version_id"]) if found else None


def upload(connection: Connection, pipeline_id: str, name: str, file: str, data: bytes) -> str:
    """Upload a package as the version `name`, unless it is there; return the version's id."""

    def send() -> str:
        made = connection.upload(
            "pipelines/upload_version", file, data, name=name, pipelineid=pipeline_id
        )
        return str(made["pipeline_version_id"])

    return _once(connection, lambda: version(connection, pipeline_id, name), send)


def _once(connection: Connection, find: Callable[[], str | None], make: Callable[[], str]) -> str:
    """Return what `find` finds, or what `make` makes; the server keeps such names apart.

    So where it is not clear whether it was made it can be made again: there will be a conflict.
    """
    if known := find():
        return known
    for left in reversed(range(connection.access.tries)):
        try:
            return make()
        except Unclear:
            if known := find():
                return known
            if not left:
                raise
        except ServerError as error:
            known = find() if error.status == _CONFLICT else None  # somebody was faster
            if known is None:
                raise
            return known
    raise AssertionError("a server is asked at least once")
