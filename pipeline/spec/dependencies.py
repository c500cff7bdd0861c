"""Which tasks of a DAG wait for which, which are around a step, and names that wait in a circle.

Source: api/v2alpha1/pipeline_spec.proto of kubeflow/pipelines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any


def producers(task: Mapping[str, Any]) -> list[str]:
    """Return the tasks of the same DAG that `task` waits for, each once."""
    inputs = task.get("inputs", {})
    found = list(task.get("dependentTasks", []))
    for source in [*inputs.get("parameters", {}).values(), *inputs.get("artifacts", {}).values()]:
        kinds = ("taskOutputParameter", "taskOutputArtifact", "taskFinalStatus")
        found.extend(source[kind].get("producerTask", "") for kind in kinds if kind in source)
    return list(dict.fromkeys(found))


def circle(before: Mapping[str, Sequence[str]]) -> list[str]:
    """Return names that wait for each other, the first one again at the end; or none."""
    try:
        TopologicalSorter(before).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def sequence(before: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the names, each after all that it waits for; raises CycleError."""
    return list(TopologicalSorter(before).static_order())


def way(spec: Mapping[str, Any], name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each task on the way to the step `name`, its own last, with the names before its key.

    The name is as in a run: the keys of the tasks around it, joined by dots; a loop's rounds are
    numbers in between.
    """
    component, prefix = spec["root"], ""
    for part in name.split("."):
        task = component.get("dag", {}).get("tasks", {}).get(part)
        if task is not None:
            yield prefix, task
            reference = task["componentRef"]["name"]
            component = spec.get("components", {}).get(reference, {})
        prefix += f"{part}."
