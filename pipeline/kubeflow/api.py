"""Time limits for the generated clients of Kubeflow Pipelines and of Kubernetes."""

from __future__ import annotations

from typing import Any

_CONNECT = 10.0  # seconds


def bound(client: Any, timeout: float) -> None:
    """Give every request of an ApiClient one attempt, and its answer `timeout` seconds.

    Generated clients have no limit, and repeat what fails three times.
    """
    rest = client.rest_client
    rest.pool_manager.connection_pool_kw["retries"] = False
    request = rest.request

    def bounded(*words: Any, **named: Any) -> Any:
        named["_request_timeout"] = (_CONNECT, timeout)
        return request(*words, **named)

    if getattr(request, "__name__", "") != "bounded":
        rest.request = bounded
