"""A pod that tries something on a cluster: it is made, read until it told, and deleted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipeline.kubeflow.cluster import Cluster


class NotMadeError(Exception):
    """The cluster makes no such pod here; `status` is its answer, 403, 404 or 422."""

    def __init__(self, status: int) -> None:
        super().__init__(f"no pod could be made ({status})")
        self.status = status


@contextlib.contextmanager
def started(core: Any, cluster: Cluster, pod: dict[str, Any]) -> Iterator[Callable[[], Any]]:
    """Make `pod`, yield a function that reads it as it is now, and delete it at the end.

    Raises NotMadeError, and ApiException for other answers.
    """
    from kubernetes.client import ApiException

    try:
        name = core.create_namespaced_pod(cluster.namespace, pod).metadata.name
    except ApiException as error:
        if error.status not in (403, 404, 422):
            raise
        raise NotMadeError(error.status) from None
    try:
        yield lambda: core.read_namespaced_pod(name, cluster.namespace)
    finally:
        with contextlib.suppress(ApiException):
            core.delete_namespaced_pod(name, cluster.namespace, grace_period_seconds=0)


def pod(
    cluster: Cluster, kind: str, containers: Sequence[dict[str, Any]], secrets: Sequence[str],
    user: dict[str, Any], **more: Any,
) -> dict[str, Any]:  # fmt: skip
    """Return a pod named plateline-`kind`-…, with `more` in its spec.

    `user` is a part of its security context; unless that is root, the standard `restricted` allows
    the pod.
    """
    return {
        "metadata": {"generateName": f"plateline-{kind}-", "labels": {"app": "plateline"}},
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": cluster.service_account,
            "automountServiceAccountToken": False,
            "imagePullSecrets": [{"name": name} for name in secrets],
            "securityContext": {**user, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": list(containers),
            **more,
        },
    }


def container(
    name: str, image: str, command: Sequence[str], memory: str, **more: Any
) -> dict[str, Any]:
    """Return a container that may do nothing but run `command` in `image`."""
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(command),
        "resources": {"requests": {"cpu": "1m", "memory": memory}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        **more,
    }
