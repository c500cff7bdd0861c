"""A function as the objects of a cluster: plain Kubernetes, Knative Serving, KServe. Pure.

Sources: https://kubernetes.io/docs/reference/kubernetes-api/,
https://knative.dev/docs/serving/reference/serving-api/ (the fields that Knative lets through are in
pkg/apis/serving/fieldmask.go), and https://kserve.github.io/website/ with
pkg/utils/storage.go for models that come as an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.oci.reference import Reference
from pipeline.serving import workload as of
from pipeline.serving.workload import Workload

KNATIVE, KSERVE = "serving.knative.dev/v1", "serving.kserve.io/v1beta1"
_MODELS = "/mnt/models"  # where KServe mounts the folder /models of a model's image
# Another replica is started when those there are use more, on average, than the core that they ask
# for: half of what they may use. In percent; KServe allows no more than 100.
_BUSY = 100


def kubernetes(function: Workload) -> list[dict[str, Any]]:
    """Return Deployment, Service and autoscaler."""
    name, labels = function.name, _labels(function)
    container = _container(function, name) | {
        "ports": [
            {"name": "http", "containerPort": of.PORT},
            {"name": "metrics", "containerPort": of.METRICS_PORT},
        ]
    }
    pod = _pod(container) | {
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": of.GRACE,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    scraped = {"prometheus.io/scrape": "true", "prometheus.io/port": str(of.METRICS_PORT)}
    deployment = _object(function, "apps/v1", "Deployment") | {
        "spec": {
            # Without `replicas`, which the autoscaler sets.
            "selector": {"matchLabels": {"app.kubernetes.io/name": name}},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": labels, "annotations": scraped}, "spec": pod},
        }
    }
    service = _object(function, "v1", "Service") | {
        "spec": {
            "selector": {"app.kubernetes.io/name": name},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        }
    }
    scaler = _object(function, "autoscaling/v2", "HorizontalPodAutoscaler") | {
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": of.LEAST,
            "maxReplicas": of.MOST,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {
                        "name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": _BUSY},
                    },
                }
            ],
        }
    }
    return [deployment, service, scaler]


def knative(function: Workload) -> list[dict[str, Any]]:
    """Return a Service of Knative Serving, which counts requests in progress."""
    scale = {
        "autoscaling.knative.dev/metric": "concurrency",
        "autoscaling.knative.dev/target": str(of.CONCURRENCY),
        "autoscaling.knative.dev/min-scale": str(of.LEAST),
        "autoscaling.knative.dev/max-scale": str(of.MOST),
    }
    # The name of a container of Knative is its own affair, and there is one port only.
    pod = _pod(_container(function, "") | {"ports": [{"containerPort": of.PORT}]}) | {
        "enableServiceLinks": False,
        "containerConcurrency": 0,  # what is too much waits in the function, in bounded memory
        "timeoutSeconds": of.GRACE,  # Knative waits as long at the end of a pod, too
    }
    template = {"metadata": {"labels": _labels(function), "annotations": scale}, "spec": pod}
    return [_object(function, KNATIVE, "Service") | {"spec": {"template": template}}]


def kserve(function: Workload, base: Reference | None = None) -> list[dict[str, Any]]:
    """Return an InferenceService of KServe, which speaks the Open Inference Protocol v2.

    With `base`, the function's image without models, the packaged image is only mounted for its
    models: an image volume (`oci+native://`), since it has no shell to run as a sidecar.
    """
    container = _container(function, "kserve-container")
    container["ports"] = [{"containerPort": of.PORT, "protocol": "TCP"}]
    if base:
        container["image"] = str(base)
        container["env"] += [
            {"name": "MODELS", "value": _MODELS},
            {"name": "STORAGE_URI", "value": f"oci+native://{function.image}"},
        ]
    predictor = _pod(container) | {
        "minReplicas": of.LEAST,
        "maxReplicas": of.MOST,
        "scaleMetric": "cpu",
        "scaleTarget": _BUSY,
        "timeout": of.GRACE,
        "terminationGracePeriodSeconds": of.GRACE,
    }
    # By its older name, which new versions read too. On Knative, `--target knative` does the same.
    mode = {"serving.kserve.io/deploymentMode": "RawDeployment"}
    made = _object(function, KSERVE, "InferenceService") | {"spec": {"predictor": predictor}}
    made["metadata"]["annotations"] = mode
    return [made]


def _object(function: Workload, version: str, kind: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": function.name, "labels": _labels(function)}
    if function.namespace:
        metadata["namespace"] = function.namespace
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _labels(function: Workload) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": function.name,
        "app.kubernetes.io/managed-by": "plateline",
    }


def _pod(container: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "automountServiceAccountToken": False,
        "containers": [dict(container)],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": f"{of.SCRATCH_MIB}Mi"}}],
    }


def _container(function: Workload, name: str) -> dict[str, Any]:
    """Return the container, without ports; the security context is whole in it.

    Knative leaves out that of the pod.
    """
    return {
        **({"name": name} if name else {}),
        "image": str(function.image),
        "env": [{"name": k, "value": v} for k, v in function.environment.items()],
        "resources": {
            "requests": {"cpu": str(of.CORES_WANTED), "memory": f"{of.MEMORY_WANTED_MIB}Mi"},
            "limits": {"cpu": str(of.CORES), "memory": f"{of.MEMORY_MIB}Mi"},
        },
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": of.USER,
            "runAsGroup": of.USER,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - the function's own
        # The function is healthy from when its models are loaded; until then only this one asks.
        "startupProbe": _probe(of.HEALTH, 1) | {"failureThreshold": of.LOAD_LIMIT},
        "readinessProbe": _probe(of.READY, 5),
        "livenessProbe": _probe(of.HEALTH, 10),
    }


def _probe(path: str, period: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": of.PORT},
        "timeoutSeconds": 5,
        "periodSeconds": period,
    }
