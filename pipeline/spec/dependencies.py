"""Which tasks of a DAG wait for which, and names that wait for each other.

Source: api/v2alpha1/pipeline_spec.proto of kubeflow/pipelines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
