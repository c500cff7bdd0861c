"""Which tasks of a DAG wait for which.

Source: api/v2alpha1/pipeline_spec.proto of kubeflow/pipelines.
"""

from __future__ import annotations

from collections.abc import Mapping
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


def cycle(tasks: Mapping[str, Any]) -> list[str]:
    """Return tasks of one DAG that wait for each other, the first one again at the end; or none."""
    try:
        TopologicalSorter({key: producers(task) for key, task in tasks.items()}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []
