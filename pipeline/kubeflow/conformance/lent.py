"""A claim and a secret of a namespace for the time of the suite."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Collection, Iterator

from pipeline.kubeflow.cluster import Cluster, connect, speaking
from pipeline.kubeflow.conformance.suite.cluster import CONTENT, KEY

_SIZE = "16Mi"


@contextlib.contextmanager
def lent(
    cluster: Cluster, name: str, kinds: Collection[str], said: Callable[[str], None]
) -> Iterator[None]:
    """Make a claim, a secret or both, called `name`, and remove them; raises PipelineError."""
    from kubernetes import client

    labels = {"app.kubernetes.io/name": "plateline", "app.kubernetes.io/component": "conformance"}
    head = {"name": name, "labels": labels}
    claim = {
        "metadata": head,
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": _SIZE}}},
    }
    secret = {"metadata": head, "data": {KEY: base64.b64encode(CONTENT.encode()).decode()}}
    with speaking(cluster):
        core = client.CoreV1Api(connect(cluster))
    where = cluster.namespace
    with contextlib.ExitStack() as made:
        for make, remove, kind, body in (
            (core.create_namespaced_persistent_volume_claim,
             core.delete_namespaced_persistent_volume_claim, "claim", claim),
            (core.create_namespaced_secret, core.delete_namespaced_secret, "secret", secret),
        ):  # fmt: skip
            if kind not in kinds:
                continue
            with speaking(cluster):
                make(where, body)
            made.callback(_remove, remove, kind, name, where, said)
        yield


def _remove(
    remove: Callable[..., object], kind: str, name: str, where: str, said: Callable[[str], None]
) -> None:
    import urllib3
    from kubernetes.client import ApiException

    try:
        remove(name, where)
    except (ApiException, urllib3.exceptions.HTTPError, OSError) as error:
        said(f"the {kind} {name} in {where} could not be removed: delete it by hand ({error})")
