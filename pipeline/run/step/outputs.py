"""What a container left, read as the backend's launcher reads it.

Source: backend/src/v2/component/launcher_v2.go of kubeflow/pipelines.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.run import beneath, places
from pipeline.run.step.context import Task
from pipeline.spec import values
from pipeline.spec.documents import load_json
from pipeline.spec.sdk import load_kfp

_EXECUTOR_OUTPUT = ".output/executor_output.json"
_LIMIT = 16 * 1024 * 1024  # bytes of executor output, or of one parameter


def read(task: Task, message: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Return `parameters` and `artifacts` of a container that ended well; `out` is checked first.

    Each artifact gets a new id, as the backend's store of metadata gives it one.

    Raises PipelineError for an output that is missing or not what it should be, and Refused for
    links, special files and places outside the step's own.
    """
    beneath.check_tree(out)
    document = _executor_output(out)
    given = document.get("parameterValues", {})
    definitions = task.component.get("outputDefinitions", {})
    parameters = {}
    for name, definition in definitions.get("parameters", {}).items():
        value = given[name] if name in given else _parameter_file(out, name)
        kind = definition["parameterType"]
        if value is None:
            raise PipelineError(
                f"its output parameter {name!r} is null, which the backend cannot store; "
                "write a value"
            )
        if kind == "NUMBER_DOUBLE" and isinstance(value, str) and values.is_not_finite(value):
            # Text that is read as a number passes here, and fails the driver of who reads it.
            parameters[name] = value.strip()
            continue
        parameters[name] = values.coerce(value, kind, f"{task.name}.{name}")
    inputs = [entry["uri"] for found in task.artifacts.values() for entry in found]
    artifacts = {}
    for name in definitions.get("artifacts", {}):
        entries = message["outputs"]["artifacts"][name]
        entry = dict(entries["artifacts"][0])
        written = document.get("artifacts", {}).get(name, {}).get("artifacts") or [{}]
        entry["metadata"] = _metadata(name, written[0].get("metadata", {}))
        if uri := written[0].get("uri", ""):
            entry["uri"] = places.reported(uri, task.name, inputs)
        artifacts[name] = [{**entry, "id": uuid.uuid4().hex}]
    return {"parameters": parameters, "artifacts": artifacts}


def _executor_output(out: Path) -> dict[str, Any]:
    """Return the ExecutorOutput message as JSON; {} where none was written."""
    from google.protobuf import json_format

    load_kfp()
    from kfp.pipeline_spec import pipeline_spec_pb2 as pb

    path = out / _EXECUTOR_OUTPUT
    try:
        data = beneath.read(out, _EXECUTOR_OUTPUT, _LIMIT)
    except FileNotFoundError:
        return {}
    if not data:
        return {}
    document = load_json(data, f"its executor output ({path})")
    try:
        parsed = json_format.ParseDict(document, pb.ExecutorOutput())
    # ParseDict lets errors of every kind through for a document of another shape.
    except (ValueError, AttributeError, TypeError, RecursionError, json_format.Error) as error:
        why = (str(error).splitlines() or ["unreadable"])[0]
        why = why.replace("'NoneType' object is not iterable", "null where a value must stand")
        raise PipelineError(
            f"its executor output is not the message ExecutorOutput ({why}); see {path}"
        ) from None
    found: dict[str, Any] = values.whole(json_format.MessageToDict(parsed))
    return found


def _metadata(artifact: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in metadata.items():
        if value is None:  # the backend's store of metadata has no null
            raise PipelineError(
                f"the metadata {key!r} of its artifact {artifact!r} is null; leave it out"
            )
    return dict(metadata)


def _parameter_file(out: Path, name: str) -> str:
    try:
        return beneath.read(out, f".parameters/{name}", _LIMIT).decode()
    except FileNotFoundError:
        raise PipelineError(f"it ended well but wrote no output parameter {name!r}") from None
    except UnicodeDecodeError as error:
        raise PipelineError(
            f"its output parameter {name!r} is not UTF-8 text (byte {error.start} of "
            f"{out / '.parameters' / name}); write such data as an artifact"
        ) from None
