"""How a stage talks to Kubeflow Pipelines: the executor input it is given, the output it leaves.

Formats: `api/v2alpha1/pipeline_spec.proto` of kubeflow/pipelines, messages ExecutorInput and
ExecutorOutput. The launcher replaces `{{$}}` in a container's arguments by the former as JSON and
reads the latter from `outputs.outputFile`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from .errors import StageError

T = TypeVar("T", str, int, float, bool)

# Where the KFP launcher mounts (or FUSE-mounts) the object stores.
_SCHEMES = {"s3://": "/s3/", "minio://": "/minio/", "gs://": "/gcs/"}


def local_path(uri: str) -> Path:
    """Return the path inside the container at which the artifact `uri` can be read or written."""
    for scheme, folder in _SCHEMES.items():
        if uri.startswith(scheme):
            return Path(folder) / uri.removeprefix(scheme)
    return Path(uri.removeprefix("file://"))


# What a step that is taken from the cache once made may have been changed or removed since.
_AGAIN = (
    "; what an earlier run stored was changed or is gone: run again with the parameter fresh set "
    "to a new text, so that nothing is taken from the cache"
)


@dataclass(frozen=True)
class Artifact:
    """An input or output artifact: its name, URI, where it lies here, and its metadata."""

    name: str
    uri: str
    path: Path
    metadata: Mapping[str, Any]

    @staticmethod
    def _from_json(document: Mapping[str, Any]) -> Artifact:
        uri = document["uri"]
        return Artifact(
            name=document.get("name", ""),
            uri=uri,
            path=local_path(uri),
            metadata=document.get("metadata") or {},
        )


@dataclass
class StageIO:
    """One execution of a stage: reads parameters and artifacts, collects outputs, writes them.

    Nothing is written before `finish`, so a stage that fails leaves no executor output.
    """

    document: Mapping[str, Any]
    _parameters: dict[str, Any] = field(default_factory=dict)
    _metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    _written: set[str] = field(default_factory=set)

    def parameter(self, name: str, kind: type[T], default: T | None = None) -> T:
        """Return the input parameter `name` as `kind`.

        KFP hands every number over as a JSON double, so 10.0 is a whole number here.
        Raises StageError where it is missing without a default, or of another type.
        """
        values = self.document.get("inputs", {}).get("parameterValues", {})
        if name not in values:
            if default is None:
                raise StageError(
                    f"the parameter {name!r} is missing; give it with --param {name}=…"
                )
            return default
        value = values[name]
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        if kind is int and numeric and float(value).is_integer():
            return kind(value)
        if kind is float and numeric:
            return kind(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise StageError(f"the parameter {name} = {value!r} is not of type {kind.__name__}")
        return value

    def parameters(self) -> dict[str, Any]:
        """Return all input parameters as they were given."""
        return dict(self.document.get("inputs", {}).get("parameterValues", {}))

    def inputs(self, name: str) -> list[Artifact]:
        """Return the input artifacts called `name` (several where they were collected).

        Raises StageError where there is none or one does not exist.
        """
        entries = self.document.get("inputs", {}).get("artifacts", {}).get(name, {})
        artifacts = [Artifact._from_json(entry) for entry in entries.get("artifacts", [])]
        if not artifacts:
            raise StageError(f"the input artifact {name!r} is missing")
        for artifact in artifacts:
            if not artifact.path.exists():
                raise StageError(f"the input artifact {name!r} is not at {artifact.path}{_AGAIN}")
        return artifacts

    def input(self, name: str) -> Artifact:
        """Return the only input artifact called `name`."""
        return self.inputs(name)[0]

    def check_handed(self, name: str, found: str | list[str]) -> None:
        """Compare what the producer said it made, the parameter `name`, with what arrived.

        A list is compared in any order. Raises StageError where they differ; a stage that is run by
        itself may lack the parameter.
        """
        said = self.parameters().get(name)
        if said and sorted([said] if isinstance(said, str) else said) != sorted(
            [found] if isinstance(found, str) else found
        ):
            raise StageError(f"{name} is {said}, but what arrived has {found}{_AGAIN}")

    def output_names(self) -> list[str]:
        """Return the names of the output artifacts that the component declares.

        A backend adds some of its own (`executor-logs`), which are not the stage's to write.
        """
        return sorted(self.document.get("outputs", {}).get("artifacts", {}))

    def written(self) -> list[str]:
        """Return the names of the output artifacts that the stage asked for or described."""
        return sorted(self._written | self._metadata.keys())

    def output(self, name: str) -> Path:
        """Return where to write the output artifact `name`; its parent folder is made.

        The stage makes a file or a folder there, as it likes. Raises StageError for a name that the
        component does not declare.
        """
        path = self._output(name).path
        self._written.add(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _output(self, name: str) -> Artifact:
        entries = self.document.get("outputs", {}).get("artifacts", {})
        if name not in entries:
            raise StageError(f"the component declares no output artifact {name!r}")
        return Artifact._from_json(entries[name]["artifacts"][0])

    def set_parameter(
        self, name: str, value: str | float | bool | list[Any] | dict[str, Any]
    ) -> None:
        """Set the output parameter `name`.

        Raises StageError for values that no backend can store: NaN, Infinity and None.
        """
        _storable(f"the output parameter {name}", value)
        self._parameters[name] = value

    def set_metadata(self, name: str, metadata: Mapping[str, Any]) -> None:
        """Set the metadata of the output artifact `name` (metrics, confusion matrix, …).

        Raises StageError for values that no backend can store: NaN, Infinity and None.
        """
        _storable(f"the metadata of {name}", metadata)
        self._metadata[name] = dict(metadata)

    def output_parameters(self) -> dict[str, Any]:
        """Return the output parameters set so far."""
        return dict(self._parameters)

    def output_metadata(self) -> dict[str, dict[str, Any]]:
        """Return the output artifacts' metadata set so far."""
        return {name: dict(metadata) for name, metadata in self._metadata.items()}

    def finish(self) -> None:
        """Write the executor output file, and each output parameter to its own file.

        It names the artifacts that the stage wrote or described, and no other. Raises OSError where
        they cannot be written.
        """
        outputs = self.document.get("outputs", {})
        for name, value in self._parameters.items():
            target = outputs.get("parameters", {}).get(name, {}).get("outputFile")
            if target:
                path = Path(target)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(value if isinstance(value, str) else json.dumps(value))
        artifacts = {}
        for name in self.written():
            entry = dict(outputs["artifacts"][name]["artifacts"][0])
            entry["metadata"] = {**(entry.get("metadata") or {}), **self._metadata.get(name, {})}
            artifacts[name] = {"artifacts": [entry]}
        path = Path(outputs["outputFile"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"parameterValues": self._parameters, "artifacts": artifacts}))


def _storable(what: str, value: Any) -> None:
    """Refuse what fails a step on a cluster only after it has ended well."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        raise StageError(
            f"{what} is {value}, which no backend can store; the values it was computed from are "
            "missing or not finite"
        )
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _storable(f"{what}, {key},", inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _storable(what, inner)


def run_stage(
    name: str, stage: Callable[[StageIO], None], arguments: Sequence[str] | None = None
) -> None:
    """Be the main function of a stage: parse `--executor-input`, run `stage`, write its outputs.

    Exits with 1 and one message on StageError, and with 2 on unusable arguments.
    """
    parser = argparse.ArgumentParser(
        prog=f"python3 -m {name}", description=f"The {name} stage, as Kubeflow Pipelines runs it."
    )
    parser.add_argument(
        "--executor-input", required=True, metavar="JSON", help="KFP's ExecutorInput message"
    )
    text = parser.parse_args(arguments).executor_input
    try:
        document = json.loads(text)
    except ValueError as error:
        parser.error(f"--executor-input is not JSON ({error}): {text[:80]!r}")
    task = StageIO(document)
    try:
        stage(task)
        task.finish()
    except StageError as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None
