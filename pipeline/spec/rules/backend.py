"""What a package may say and Kubeflow Pipelines 2.17 does not do as it reads.

Seen by running the backend's driver, launcher and Argo's controller, or read in backend/src/v2 of
kubeflow/pipelines: each rule says which.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipeline.errors import PipelineError
from pipeline.spec import names, placeholders
from pipeline.spec.documents import load_json
from pipeline.spec.kubernetes import GPU, accelerator, memory
from pipeline.spec.package import STUBS, Package, dags
from pipeline.spec.retries import Retries
from pipeline.spec.rules.finding import Finding, Found, declared, texts

_LAUNCHER = 103_000_000  # bytes, the most that the launcher took in a step's container (seen)
_LEAST = _LAUNCHER + 64_000_000  # and what a small program needs beside it
_PULL = 120  # seconds; an image of 1.5 GB at 25 MB/s takes half of it
# An extended resource: https://kubernetes.io/docs/concepts/configuration/manage-resources-containers
_RESOURCE = re.compile(r"[a-z0-9][a-z0-9.-]*/[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_STORES = ("gs", "s3", "minio", "oci")  # objectstore/config.go, importer_launcher.go
# resolve.go: a constant that is one of these and nothing else is replaced by the driver (read).
_FACTS = {
    "pipeline_job_name", "pipeline_job_resource_name", "pipeline_job_uuid", "pipeline_task_name",
    "pipeline_task_uuid", "pipeline_job_create_time_utc", "pipeline_job_schedule_time_utc",
}  # fmt: skip


def check_backend(package: Package) -> Found:
    """Yield what a cluster would do otherwise than the package says."""
    executors = package.spec["deploymentSpec"].get("executors", {})
    for label, executor in executors.items():
        yield from _memory(label, executor.get("container", {}))
        yield from _accelerator(label, executor.get("container", {}))
        constant = executor.get("importer", {}).get("artifactUri", {}).get("constant")
        yield from _imported(f"{label}.artifactUri", constant)
    for label, settings in package.kubernetes.items():
        yield from _time(f"platforms.kubernetes.{label}", settings)
    for name, component in dags(package):
        if name != "root":
            yield from _lists(name, component)
        for key, task in component["dag"].get("tasks", {}).items():
            called = task.get("componentRef", {}).get("name")
            inner = package.spec.get("components", {}).get(called, {})
            yield from _retries(package, f"{name}.{key}", task, inner)
            yield from _empty_loop(f"{name}.{key}", task, inner)
            yield from _facts(f"{name}.{key}", task)
            yield from _types(f"{name}.{key}", component, task, inner)
            if "importer" in executors.get(inner.get("executorLabel"), {}):
                yield from _importer(f"{name}.{key}", task)


def _importer(where: str, task: Mapping[str, Any]) -> Found:
    """The compiler hands an importer what comes into its DAG, and no task's output (seen)."""
    for name, source in task.get("inputs", {}).get("parameters", {}).items():
        yield from _imported(f"{where}.{name}", source.get("runtimeValue", {}).get("constant"))
        if "taskOutputParameter" in source:
            yield Finding(
                f"{where}.{name}", "importer-of-an-output",
                "an importer cannot take another task's output: its driver fails; give the address "
                "by a parameter of the pipeline, or let that task put the artifact out",
            )  # fmt: skip


def _imported(where: str, uri: object) -> Found:
    """An importer looks for an object store that it knows, also where it copies nothing (seen)."""
    if isinstance(uri, str) and names.scheme(uri) not in {"", *_STORES}:
        yield Finding(
            where, "importer-scheme",
            f"the backend imports from {', '.join(_STORES)} only, {uri[:80]!r} fails; put the "
            "data there, or hand the address on as a parameter",
        )  # fmt: skip


def _types(
    where: str, outer: Mapping[str, Any], task: Mapping[str, Any], component: Mapping[str, Any]
) -> Found:
    """What a DAG hands on is of the type that the DAG declares it with: text stays text (seen)."""
    around = declared(outer, "inputs", "parameters")
    wanted = declared(component, "inputs", "parameters")
    for name, source in task.get("inputs", {}).get("parameters", {}).items():
        key = source.get("componentInputParameter", "")
        kind = wanted.get(name, {}).get("parameterType", "STRING")
        plain = "parameterExpressionSelector" not in source
        if around.get(key, {}).get("parameterType") == "STRING" and kind != "STRING" and plain:
            yield Finding(
                f"{where}.{name}", "mismatched-type",
                f"{key} is a STRING where it comes from (so is an item of a list of no declared "
                f"type), and {name} is a {kind}, so its driver fails; declare one type for both, "
                "as in List[int]",
            )  # fmt: skip


def _memory(label: str, container: Mapping[str, Any]) -> Found:
    """The launcher runs inside the step's container and counts in its limit (seen)."""
    text = container.get("resources", {}).get("resourceMemoryLimit", "")
    try:
        limit = memory(text) if text and "{{" not in text else _LEAST
    except PipelineError as error:
        yield Finding(f"{label}.resourceMemoryLimit", "wrong-type", str(error))
        return
    if limit < _LEAST and container.get("image") not in STUBS:
        yield Finding(
            f"{label}.resourceMemoryLimit", "memory-for-the-launcher",
            f"{text} is not enough: the backend's launcher runs in the step's container and takes "
            f"up to {_LAUNCHER // 10**6} MB of it; set 256Mi or more",
        )  # fmt: skip


def _accelerator(label: str, container: Mapping[str, Any]) -> Found:
    """The driver sets a limit of that name and number, and nothing where one is missing (read)."""
    kind, count = accelerator(container)
    where = f"{label}.accelerator"
    if bool(kind) != bool(count):
        missing = "number" if kind else "kind"
        yield Finding(
            where, "accelerator",
            f"the step asks for an accelerator without its {missing}, so the backend asks for "
            f"none; give both: set_accelerator_type({GPU!r}) and set_accelerator_limit(1)",
        )  # fmt: skip
    elif kind and "{{" not in kind and not _RESOURCE.fullmatch(kind):
        yield Finding(
            where, "accelerator",
            f"{kind!r} is no resource of Kubernetes, so no pod starts; give the name that the "
            f"device plugin offers, such as {GPU}",
        )  # fmt: skip
    elif count and "{{" not in count and not (count.isdigit() and int(count)):
        yield Finding(
            where, "accelerator",
            f"{count!r} is no number of accelerators; give a whole number, 1 or more",
        )  # fmt: skip


def _time(where: str, settings: Mapping[str, Any]) -> Found:
    """activeDeadlineSeconds is of the pod, whose images are pulled in that time (read)."""
    seconds = int(settings.get("activeDeadlineSeconds", 0))
    if 0 < seconds < _PULL:
        yield Finding(
            f"{where}.activeDeadlineSeconds", "time-limit",
            f"{seconds} s may be over before the image is pulled and the node is found; give "
            f"set_timeout {_PULL} or more",
        )  # fmt: skip


def _retries(
    package: Package, where: str, task: Mapping[str, Any], component: Mapping[str, Any]
) -> Found:
    """Argo makes no retry after the policy's window, from the first start (seen)."""
    retries = Retries.of(task.get("retryPolicy", {}))
    settings = package.kubernetes.get(component.get("executorLabel", ""), {})
    limit = int(settings.get("activeDeadlineSeconds", 0))
    needed = retries.needs(limit)
    if limit and retries.count and needed > retries.window:
        yield Finding(
            where, "retry-window",
            f"it may take {limit} s a try and be tried {retries.count + 1} times, but no retry "
            f"begins later than {retries.window:g} s after the first start; "
            f'set backoff_max_duration="{needed:.0f}s" or more in set_retry',
        )  # fmt: skip


def _lists(name: str, component: Mapping[str, Any]) -> Found:
    """Of a list of artifacts handed to a nested pipeline, one arrives (seen)."""
    for key, definition in declared(component, "inputs", "artifacts").items():
        if definition.get("isArtifactList"):
            yield Finding(
                f"{name}.{key}", "list-in-a-nested-pipeline",
                "of a list of artifacts that is handed to a nested pipeline, a loop or a "
                "condition, one arrives; hand it to the task itself, outside of them",
            )  # fmt: skip


def _empty_loop(where: str, task: Mapping[str, Any], component: Mapping[str, Any]) -> Found:
    """A driver that collects from a loop without rounds fails (seen)."""
    raw = task.get("parameterIterator", {}).get("items", {}).get("raw")
    collected = [*declared(component, "outputs", "parameters"),
                 *declared(component, "outputs", "artifacts")]  # fmt: skip
    try:
        empty = raw is not None and load_json(raw, "the loop") == []
    except PipelineError:
        return  # `wrong-type` says so
    if empty and collected:
        yield Finding(
            where, "empty-loop",
            f"it loops over nothing, so who collects {', '.join(collected)} fails; give it an item",
        )  # fmt: skip


def _facts(where: str, task: Mapping[str, Any]) -> Found:
    """Constants with a fact of the run among other words stay as they are (read)."""
    for name, source in task.get("inputs", {}).get("parameters", {}).items():
        for _, text in texts(source.get("runtimeValue", {}).get("constant")):
            for found in placeholders.find(text):
                if found.side or (found.path in _FACTS and found.text == text):
                    continue
                yield Finding(
                    f"{where}.{name}", "literal-placeholder",
                    f"the backend's driver leaves {found.text} as it is here; make it the whole "
                    "value of an input, and use no other than those of the run and the task",
                )  # fmt: skip
