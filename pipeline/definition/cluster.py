"""What one cluster wants of every step: the table `[cluster]` of the settings file.

The keys are those of docs/cluster.md; what they become is kfp-kubernetes' and PipelineConfig's part
(kubernetes_platform and sdk/python/kfp/dsl/pipeline_config.py of kubeflow/pipelines 2.17).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from builder import toml
from builder.toml import Table
from pipeline.definition.stages import STAGES, Stage, row
from pipeline.errors import PipelineError
from pipeline.spec import names
from pipeline.spec.kubernetes import memory

FILE = "plateline.toml"
_EFFECTS = ("NoExecute", "NoSchedule", "PreferNoSchedule")
_LONGEST = 2**31 - 1  # seconds; int32 of Argo's fields
_CPU = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(m?)")
# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Toleration:
    """A taint that steps bear: Kubernetes' own words; `seconds` None is for ever."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""
    seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where steps run, and with how much: cpu and memory as (request, limit), () as declared."""

    node_selector: tuple[tuple[str, str], ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    cpu: tuple[str, ...] = ()
    memory: tuple[str, ...] = ()
    seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Workspace:
    """A volume that the backend makes for one run."""

    size: str
    storage_class: str = ""
    access_modes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a cluster wants of a run, of all its steps, and of single ones by their names."""

    service_account: str = ""
    image_pull_secrets: tuple[str, ...] = ()
    everywhere: Place = Place()
    stages: Mapping[str, Place] = field(default_factory=dict)
    ttl_seconds_after_finished: int | None = None
    ttl_seconds_after_success: int | None = None
    ttl_seconds_after_failure: int | None = None
    active_deadline_seconds: int | None = None
    workspace: Workspace | None = None


def read(path: Path) -> Cluster:
    """Return the settings of a file; raises PipelineError that names a wrong one and its line."""
    root = toml.read(path, "--settings", PipelineError)
    root.known("cluster")
    table = root.table("cluster")
    times = ("ttl-seconds-after-finished", "ttl-seconds-after-success",
             "ttl-seconds-after-failure", "active-deadline-seconds")  # fmt: skip
    table.known("service-account", "image-pull-secrets", "node-selector", "tolerations", *times,
                "workspace", "stages")  # fmt: skip
    stages = table.table("stages")
    stages.known(*STAGES)
    seconds = {key: _seconds(table, key, least=int(key.startswith("active"))) for key in times}
    return Cluster(
        service_account=table.text_of("service-account", _object("the service account")),
        image_pull_secrets=table.texts("image-pull-secrets", _object("the secret")),
        everywhere=_place(table),
        stages={name: _stage(stages.table(name)) for name in stages.content},
        workspace=_workspace(table),
        **{key.replace("-", "_"): value for key, value in seconds.items()},
    )


def _seconds(table: Table, key: str, least: int = 0) -> int | None:
    found = table.content.get(key)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int) or not least <= found <= _LONGEST:
        raise table.fail(key, f"must be a whole number of seconds from {least} to {_LONGEST}")
    return found


def _object(what: str) -> Callable[[str], object]:
    return lambda text: names.subdomain(what, text)


def _place(table: Table, *, cpu: tuple[str, ...] = (), memory: tuple[str, ...] = (),
           seconds: int | None = None) -> Place:  # fmt: skip
    selector = table.table("node-selector")
    for key in selector.content:
        if not _label_key(key):
            raise selector.fail(key, "is no key of a label")
        selector.text_of(key, _label_value)
    found = table.content.get("tolerations", [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise table.fail("tolerations", "must be a list of tables")
    tolerations = tuple(
        _toleration(Table(table.path, table.text, (*table.keys, "tolerations"), one, table.error))
        for one in found
    )
    pairs = tuple(sorted(selector.content.items()))
    return Place(pairs, tolerations, cpu, memory, seconds)


def _label_key(text: str) -> bool:
    prefix, slash, name = text.rpartition("/")
    try:
        if slash:
            names.subdomain("the prefix", prefix)
    except PipelineError:
        return False
    return bool(_LABEL_NAME.fullmatch(name))


def _label_value(text: str) -> None:
    if text and not _LABEL_NAME.fullmatch(text):
        raise PipelineError(
            f"{text!r} is no value of a label: at most 63 letters, digits, -, _ and ."
        )


def _toleration(table: Table) -> Toleration:
    table.known("key", "operator", "value", "effect", "seconds")

    def one_of(*allowed: str) -> Callable[[str], object]:
        def check(text: str) -> None:
            if text not in allowed:
                raise PipelineError(f"{text!r} is none of {', '.join(allowed)}")

        return check

    def label_key(text: str) -> None:
        if not _label_key(text):
            raise PipelineError(f"{text!r} is no key of a taint")

    made = Toleration(
        table.text_of("key", label_key),
        table.text_of("operator", one_of("Equal", "Exists"), "Equal"),
        table.text_of("value", _label_value), table.text_of("effect", one_of(*_EFFECTS)),
        _seconds(table, "seconds"),
    )  # fmt: skip
    if made.operator == "Exists" and made.value:
        raise table.fail("value", "must be left out where the operator is Exists")
    if made.operator == "Equal" and not made.key:
        raise table.fail("", 'needs a key, or operator = "Exists" for every taint')
    if made.seconds is not None and made.effect != "NoExecute":
        raise table.fail("seconds", 'counts for effect = "NoExecute" only')
    return made


def _stage(table: Table) -> Place:
    table.known("node-selector", "tolerations", "cpu", "memory", "seconds")
    resources = {key: _resources(table, key) for key in ("cpu", "memory")}
    return _place(table, seconds=_seconds(table, "seconds", least=1), **resources)


def _resources(table: Table, key: str) -> tuple[str, ...]:
    """Return request and limit, as [request, limit], or () where none were given."""

    amount = _cpu if key == "cpu" else memory
    found = table.texts(key, amount)
    if key in table.content and len(found) != 2:
        raise table.fail(key, 'must have two parts, the request and the limit: ["2", "4"]')
    if found and amount(found[0]) > amount(found[1]):
        raise table.fail(key, "asks for more than its limit")
    return found


def _cpu(text: str) -> float:
    """Return a quantity such as 2 or 500m in cores; raises PipelineError for another text."""
    found = _CPU.fullmatch(text)
    if found is None or not float(found[1]):
        raise PipelineError(f"{text!r} is no number of cores; write it as 2 or 500m")
    return float(found[1]) * (1e-3 if found[2] else 1)


def _workspace(table: Table) -> Workspace | None:
    if "workspace" not in table.content:
        return None
    found = table.table("workspace")
    found.known("size", "storage-class", "access-modes")

    def mode(text: str) -> None:
        allowed = ("ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod")
        if text not in allowed:
            raise PipelineError(f"{text!r} is none of {', '.join(allowed)}")

    if "size" not in found.content:
        raise table.fail("workspace", "needs a size")
    return Workspace(
        found.text_of("size", memory), found.text_of("storage-class", _object("the storage class")),
        found.texts("access-modes", mode),
    )  # fmt: skip


def declared(cluster: Cluster, step: str) -> Stage:
    """Return a step as it is declared, with what the cluster's own table says of it."""
    place = cluster.stages.get(step, Place())
    stage = row(step)
    return replace(
        stage,
        cpu=(place.cpu[0], place.cpu[1]) if place.cpu else stage.cpu,
        memory=(place.memory[0], place.memory[1]) if place.memory else stage.memory,
        seconds=place.seconds or stage.seconds,
    )


def put(task: Any, cluster: Cluster, step: str) -> None:
    """Give a task the nodes, taints and pull secrets of a cluster; a step's own come on top."""
    from kfp import kubernetes

    own = cluster.stages.get(step, Place())
    for key, value in {**dict(cluster.everywhere.node_selector), **dict(own.node_selector)}.items():
        kubernetes.add_node_selector(task, key, value)
    for one in (*cluster.everywhere.tolerations, *own.tolerations):
        kubernetes.add_toleration(
            task, key=one.key or None, operator=one.operator, value=one.value or None,
            effect=one.effect or None, toleration_seconds=one.seconds,
        )  # fmt: skip
    if cluster.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(cluster.image_pull_secrets))


def config(cluster: Cluster) -> Any:
    """Return the PipelineConfig of a run on the cluster, None where it asks for none."""
    from kfp import dsl

    times = {
        key: getattr(cluster, key)
        for key in ("ttl_seconds_after_finished", "ttl_seconds_after_success",
                    "ttl_seconds_after_failure", "active_deadline_seconds")
        if getattr(cluster, key) is not None
    }  # fmt: skip
    if not times and cluster.workspace is None:
        return None
    workspace = None
    if found := cluster.workspace:
        patch: dict[str, Any] = {}
        if found.storage_class:
            patch["storageClassName"] = found.storage_class
        if found.access_modes:
            patch["accessModes"] = list(found.access_modes)
        workspace = dsl.WorkspaceConfig(found.size, dsl.KubernetesWorkspaceConfig(patch))
    return dsl.PipelineConfig(workspace=workspace, **times)
