"""Objects applied to a cluster, waited for until they are ready, and a function asked in it.

Server-side apply: https://kubernetes.io/docs/reference/using-api/server-side-apply/. What goes
wrong on the way is raised as the Kubernetes client raises it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.errors import PipelineError

_PLURALS = {
    "Deployment": "deployments",
    "Service": "services",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
    "InferenceService": "inferenceservices",
}
_OWNER = "plateline"


def apply(client: Any, objects: Sequence[Mapping[str, Any]], namespace: str) -> bool:
    """Create or update objects in `namespace`; tell whether the first was there before.

    Raises PipelineError where the cluster does not know such objects or has no such namespace.
    """
    existed = _get(client, objects[0], namespace) is not None
    for each in objects:
        kind = f"{each['kind']} of {each['apiVersion']}"
        answer = _call(
            client, "PATCH", _path(each, namespace), dict(each),
            {"fieldManager": _OWNER, "force": "true"}, "application/apply-patch+yaml",
        )  # fmt: skip
        if answer is None:
            raise PipelineError(
                f"the cluster cannot take the {kind} in the namespace {namespace}: it has no such "
                "namespace, or what serves such objects is not installed there"
            )
    return existed


def await_ready(
    client: Any,
    target: Mapping[str, Any],
    namespace: str,
    *,
    timeout: float,
    pause: float = 1.0,
    waiting: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Return an object once what was applied is ready; times are in seconds.

    `waiting` is told each time what is waited for. Raises PipelineError after `timeout`.
    """
    name, end = target["metadata"]["name"], time.monotonic() + timeout
    while True:
        found = _get(client, target, namespace) or {}
        ready, state = _state(found)
        if ready:
            return found
        if time.monotonic() + pause > end:
            kind = _PLURALS[target["kind"]] + "." + target["apiVersion"].rpartition("/")[0]
            raise PipelineError(
                f"{name} was not ready after {timeout:g} s ({state}); can the cluster pull the "
                f"image? See `kubectl -n {namespace} describe {kind}/{name}`"
            )
        waiting(f"waiting for {name}: {state}")
        time.sleep(pause)


def ask(client: Any, service: str, namespace: str, tile: bytes) -> dict[str, Any]:
    """Return a function's answer to an image file, asked through the API server's proxy.

    Raises PipelineError where there is no such service.
    """
    path = f"/api/v1/namespaces/{namespace}/services/{service}:http/proxy/"
    answer = _call(client, "POST", path, tile, {}, "image/png")
    if answer is None:
        raise PipelineError(f"the cluster has no service {service} in the namespace {namespace}")
    return answer


def _state(found: Mapping[str, Any]) -> tuple[bool, str]:
    """Tell whether an object is ready as it was written last, and in words how far it is; pure."""
    status, meta = found.get("status") or {}, found.get("metadata") or {}
    seen = status.get("observedGeneration", 0) >= meta.get("generation", 1)
    if found.get("kind") == "Deployment":
        wanted = (found.get("spec") or {}).get("replicas", 1)
        current, ready, every = (
            status.get(key) or 0 for key in ("updatedReplicas", "availableReplicas", "replicas")
        )
        done = seen and current >= wanted and ready >= wanted and every == current
        return done, f"{current} of {wanted} replicas are new, {ready} available"
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Ready":
            said = condition.get("message") or condition.get("reason") or "not ready yet"
            return seen and condition.get("status") == "True", said
    return False, "nothing yet"


def _path(each: Mapping[str, Any], namespace: str) -> str:
    version = each["apiVersion"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    return f"{root}/namespaces/{namespace}/{_PLURALS[each['kind']]}/{each['metadata']['name']}"


def _get(client: Any, each: Mapping[str, Any], namespace: str) -> dict[str, Any] | None:
    return _call(client, "GET", _path(each, namespace))


def _call(
    client: Any, method: str, path: str, body: dict[str, Any] | bytes | None = None,
    query: Mapping[str, str] | None = None, content: str = "application/json",
) -> dict[str, Any] | None:  # fmt: skip
    """Return the object that the API server answers with, None for 404; raises ApiException."""
    from kubernetes.client import ApiException

    try:
        answer = client.call_api(
            path, method, query_params=list((query or {}).items()), body=body,
            header_params={"Content-Type": content, "Accept": "application/json"},
            auth_settings=["BearerToken"], _preload_content=False, _return_http_data_only=True,
        )  # fmt: skip
    except ApiException as error:
        if error.status == 404:
            return None
        raise
    try:
        return dict(json.loads(answer.data))
    except (ValueError, TypeError):
        raise PipelineError(f"{method} {path} was answered with no JSON object") from None
