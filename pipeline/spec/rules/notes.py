"""What a cluster does with a package that its author may not expect: notes, not faults.

Each is said once, with the places that it is about.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.spec.kubernetes import constant_name, source
from pipeline.spec.package import STUBS, Package, dags
from pipeline.spec.retries import Retries
from pipeline.spec.rules.finding import Finding, Found


def check_notes(package: Package) -> Found:
    """Yield what is worth knowing before a package runs on a cluster."""
    yield from _claims(package)
    yield from _pulls(package)
    yield from _tasks(package)


def _claims(package: Package) -> Found:
    mounts: dict[str, list[str]] = {}
    for label, settings in package.kubernetes.items():
        for index, entry in enumerate(settings.get("pvcMount", [])):
            given = source(entry, "pvcName")
            name = constant_name(entry, "pvcName") or given.get("componentInputParameter", "")
            name = name.removeprefix("pipelinechannel--") or "made by a step"
            place = f"platforms.kubernetes.{label}.pvcMount[{index}].mountPath"
            mounts.setdefault(name, []).append(place)
    for name, places in sorted(mounts.items()):
        yield Finding(
            places[0], "writable-claim",
            f"every step that mounts the claim {name} ({_labels(places)}) can write to it; where "
            "it holds data that must stay, give the claim the access mode ReadOnlyMany",
        )  # fmt: skip


def _labels(places: list[str]) -> str:
    return ", ".join(dict.fromkeys(place.split(".")[2] for place in places))


def _pulls(package: Package) -> Found:
    hosts: dict[str, str] = {}
    for label, executor in package.spec["deploymentSpec"].get("executors", {}).items():
        image = executor.get("container", {}).get("image", "localhost/")
        host = image.partition("/")[0] if "/" in image else "docker.io"
        if image in STUBS or package.kubernetes.get(label, {}).get("imagePullSecret"):
            continue
        hosts.setdefault(host, label)
    for host, label in sorted(hosts.items()):
        if not host.startswith("localhost"):
            yield Finding(
                f"{label}.image", "image-pull-secret",
                f"a node pulls from {host} without a login; where that wants one, name it by "
                "kubernetes.set_image_pull_secrets, or give the service account an "
                "imagePullSecret",
            )  # fmt: skip


def _tasks(package: Package) -> Found:
    executors = package.spec["deploymentSpec"].get("executors", {})
    retried: list[str] = []
    for name, component in dags(package):
        tasks = component["dag"].get("tasks", {})
        for key, task in tasks.items():
            where = f"{name}.{key}"
            called = package.spec.get("components", {}).get(
                task.get("componentRef", {}).get("name")
            )
            label = (called or {}).get("executorLabel", "")
            if "container" not in executors.get(label, {}):
                continue
            if Retries.of(task.get("retryPolicy", {})).count:
                retried.append(where)
            if not task.get("cachingOptions", {}).get("enableCache"):
                continue
            if task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED":
                yield Finding(
                    where, "cached-exit-task",
                    "it may be taken from the cache and then tells how another run ended; "
                    "call set_caching_options(False) on it",
                )  # fmt: skip
                continue
            for producer in _uncached(task, tasks, package):
                yield Finding(
                    where, "uncached-producer",
                    f"it reads an artifact of {producer}, which is never cached, so neither is "
                    f"this; let {producer} be cached by a digest that a step before it reads",
                )  # fmt: skip
            if package.kubernetes.get(label, {}).get("pvcMount"):
                yield Finding(
                    where, "claim-in-a-cached-step",
                    "it may be taken from the cache though its claim holds something else now; "
                    "hand the digest of what it reads to it as a parameter, or call "
                    "set_caching_options(False) on it",
                )  # fmt: skip
    if retried:
        yield Finding(
            retried[0], "error-not-retried",
            f"where its pod is evicted or its node is lost, none of {', '.join(retried)} is tried "
            "again, as KFP has no setting for it; run the pipeline again then",
        )  # fmt: skip


def _uncached(task: Mapping[str, Any], tasks: Mapping[str, Any], package: Package) -> Iterator[str]:
    """Yield the steps beside `task` whose artifacts it reads and that are never cached."""
    found = set()
    for given in task.get("inputs", {}).get("artifacts", {}).values():
        producer = given.get("taskOutputArtifact", {}).get("producerTask")
        other = tasks.get(producer, {})
        component = package.spec.get("components", {}).get(
            other.get("componentRef", {}).get("name"), {}
        )
        label = component.get("executorLabel")
        executor = package.spec["deploymentSpec"].get("executors", {}).get(label, {})
        if "container" in executor and not other.get("cachingOptions", {}).get("enableCache"):
            found.add(producer)
    yield from sorted(found)
