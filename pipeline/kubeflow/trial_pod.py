"""Whether a cluster's nodes can pull images: only a kubelet knows, so one pod tries."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pipeline.kubeflow import short_pod
from pipeline.kubeflow.cluster import MISSING, NOTE, OK, Check, Cluster

_USER = 65532
# https://github.com/kubernetes/kubernetes/blob/v1.31.0/pkg/kubelet/images/types.go
_NOT_PULLED = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull",
               "RegistryUnavailable", "ImageInspectError", "SignatureValidationFailed"}  # fmt: skip


def pull_images(
    core: Any, cluster: Cluster, images: tuple[str, ...], seconds: float, pause: float,
    secrets: tuple[str, ...] = (),
) -> list[Check]:  # fmt: skip
    """Start a pod of `images`, wait up to `seconds` for each one's fate, and delete the pod."""
    try:
        with short_pod.started(core, cluster, _pod(cluster, images, secrets)) as read:
            return _watched(read, cluster, images, seconds, pause)
    except short_pod.NotMadeError as error:
        return [
            Check(
                "images", NOTE, f"no pod could be made to try them ({error.status})",
                f"check the service account {cluster.service_account}, or give --skip-pull",
            )
        ]  # fmt: skip


def _watched(
    read: Callable[[], Any], cluster: Cluster, images: tuple[str, ...], seconds: float,
    pause: float,
) -> list[Check]:  # fmt: skip
    ends: dict[str, Check] = {}
    until = time.monotonic() + seconds
    while len(ends) < len(images) and time.monotonic() < until:
        pod = read()
        for status in pod.status.container_statuses or []:
            image = images[int(status.name.removeprefix("image-"))]
            check = _pulled(image, status.state)
            if check:
                ends[image] = check
        stuck = _unschedulable(pod)
        if stuck and not ends:
            return [stuck]
        if len(ends) < len(images):
            time.sleep(pause)
    for image in images:
        if image not in ends:
            ends[image] = Check(
                f"image {image}", NOTE, f"not pulled within {seconds:.0f} s",
                f"kubectl get events -n {cluster.namespace}",
            )  # fmt: skip
    return [ends[image] for image in images]


def _pulled(image: str, state: Any) -> Check | None:
    what = f"image {image}"
    if state.waiting is not None and state.waiting.reason in _NOT_PULLED:
        return Check(
            what, MISSING, f"{state.waiting.reason}: {(state.waiting.message or '')[:200]}",
            "push it (`invoke push-images`), let the nodes reach the registry, or name an "
            "imagePullSecret (image-pull-secrets in plateline.toml)",
        )  # fmt: skip
    # The command does not exist, so a container that failed to start had its image.
    started = state.terminated is not None or state.running is not None
    refused = state.waiting is not None and state.waiting.reason in (
        "RunContainerError", "CreateContainerError", "CrashLoopBackOff",
    )  # fmt: skip
    return Check(what, OK, "pulled by a node") if started or refused else None


def _unschedulable(pod: Any) -> Check | None:
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.reason == "Unschedulable":
            return Check(
                "images", NOTE, f"no node takes the pod that tries them: {condition.message}",
                "free a node, or give --skip-pull",
            )  # fmt: skip
    return None


def _pod(cluster: Cluster, images: tuple[str, ...], secrets: tuple[str, ...]) -> dict[str, Any]:
    """Return a pod that pulls `images` and ends."""
    command = ["/plateline-preflight-does-not-exist"]
    pulling = [
        short_pod.container(f"image-{index}", image, command, "4Mi")
        for index, image in enumerate(images)
    ]
    user = {"runAsNonRoot": True, "runAsUser": _USER, "runAsGroup": _USER}
    return short_pod.pod(cluster, "preflight", pulling, secrets, user)
