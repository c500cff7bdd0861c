"""A Kubernetes cluster to ask: how to reach it, and what its answers mean."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError

OK, MISSING, NOTE = "ok", "missing", "note"
_CONNECT = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was asked: `state` is ok, missing, or note; `remedy` what to apply."""

    what: str
    state: str
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where to ask: a context of the kubeconfig, and the namespaces of the runs and of KFP."""

    context: str
    namespace: str = "kubeflow"
    kfp_namespace: str = "kubeflow"
    service_account: str = "pipeline-runner"
    kubeconfig: Path | None = None
    timeout: float = 30.0  # seconds that one answer may take


def connect(cluster: Cluster) -> Any:
    """Return an ApiClient whose requests end; raises PipelineError without such a context."""
    from kubernetes import config

    try:
        found = config.new_client_from_config(
            config_file=str(cluster.kubeconfig) if cluster.kubeconfig else None,
            context=cluster.context or None, persist_config=False,
        )  # fmt: skip
    except (config.ConfigException, OSError, ValueError) as error:
        raise PipelineError(
            f"the kubeconfig has no usable context {cluster.context!r} ({error}); see "
            "`kubectl config get-contexts`"
        ) from None
    _bound(found, cluster.timeout)
    return found


def _bound(client: Any, timeout: float) -> None:
    """Give every request of an ApiClient one attempt, and its answer `timeout` seconds.

    Generated clients have no limit, and repeat what fails three times.
    """
    rest = client.rest_client
    rest.pool_manager.connection_pool_kw["retries"] = False
    request = rest.request

    def bounded(*words: Any, **named: Any) -> Any:
        named["_request_timeout"] = (_CONNECT, timeout)
        return request(*words, **named)

    rest.request = bounded


@contextlib.contextmanager
def speaking(cluster: Cluster) -> Iterator[None]:
    """Turn what goes wrong into one message with a way out."""
    import urllib3
    from kubernetes.client import ApiException

    name = cluster.context or "the current context"
    try:
        yield
    except ApiException as error:
        told = (error.body or error.reason or "").strip()[:200]
        way = {
            401: "the login of the kubeconfig is not known; renew it",
            403: "ask for the right to get that, or give another --namespace",
        }.get(error.status, "try again, or ask the cluster's administrator")
        raise PipelineError(f"{name} answered {error.status} ({told}); {way}") from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise PipelineError(
            f"{name} gave no answer ({type(error).__name__}); check the network, VPN and the "
            "server's address in the kubeconfig"
        ) from None
