"""A compiled package as data: its pipeline, its Kubernetes part and its digest."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder import oci
from builder.oci import canonical
from pipeline.errors import PipelineError
from pipeline.spec import values
from pipeline.spec.documents import MOST_BYTES, load_yaml
from pipeline.spec.sdk import messages

# Names that kfp-kubernetes writes where the driver makes or deletes a claim: nothing is pulled.
STUBS = frozenset({"argostub/createpvc", "argostub/deletepvc"})
PINNED = re.compile(r"[a-z0-9.:-]+(/[a-z0-9._-]+)+@sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Package:
    """A compiled pipeline. `kubernetes` maps an executor's label to its Kubernetes settings."""

    digest: str
    name: str
    spec: Mapping[str, Any]
    kubernetes: Mapping[str, Mapping[str, Any]]

    def images(self) -> dict[str, str]:
        """Return executor label -> image for every container."""
        executors = self.spec["deploymentSpec"].get("executors", {})
        return {
            label: executor["container"]["image"]
            for label, executor in executors.items()
            if "container" in executor
        }


@dataclass(frozen=True, slots=True)
class Fault:
    """A part that is not what its protobuf says.

    A field is unknown, and the rest was read; or one is of another type, and nothing was.
    """

    where: str
    message: str
    readable: bool


def load(path: Path) -> Package:
    """Read a package; every part is parsed as its protobuf, so that a typo is an error.

    Raises PipelineError for a file that is missing or no compiled pipeline.
    """
    package, faults = read(path)
    for fault in faults:
        raise PipelineError(
            f"{path} is not a compiled pipeline ({fault.where}: {fault.message}); "
            "make it by `invoke compile`"
        )
    return package


def read(path: Path) -> tuple[Package, list[Fault]]:
    """Return what can be read of a package, and the faults of those parts that cannot.

    Parts: PipelineSpec, PlatformSpec, and the two that a compiler writes as a free-form Struct,
    where nothing but this parses them: PipelineDeploymentConfig and, an executor,
    KubernetesExecutorConfig. Raises PipelineError for a file that is missing or no package at all.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise PipelineError(
            f"reading the package {path} failed ({error.strerror}); make it by `invoke compile`"
        ) from None
    documents = load_yaml(data, f"{path} is not a compiled pipeline (make one by `invoke compile`)")
    if documents and isinstance(documents[0], dict) and "pipeline_spec" in documents[0]:
        # As the API server gives a version back: both parts in one document.
        documents = [documents[0]["pipeline_spec"], documents[0].get("platform_spec")]
    if not documents or not isinstance(documents[0], dict):
        raise _no_package(path, "it holds no mapping")
    return _package(path, canonical.sha256(data), documents[0], (documents[1:] or [None])[0] or {})


def _package(path: Path, digest: str, spec: Any, platform: Any) -> tuple[Package, list[Fault]]:
    pb, kubernetes = messages()
    faults: list[Fault] = []

    def parsed(where: str, document: Any, message: Any) -> dict[str, Any]:
        found, fault = _parse(document, message)
        if fault:
            faults.append(Fault(where, fault, readable=bool(found)))
        return found

    whole = parsed("the pipeline", spec, pb.PipelineSpec)
    if "name" not in whole.get("pipelineInfo", {}) or "dag" not in whole.get("root", {}):
        missing = "it has no pipelineInfo.name or no root.dag"
        raise _no_package(path, faults[0].message if faults else missing)
    whole["deploymentSpec"] = parsed(
        "deploymentSpec", whole.get("deploymentSpec", {}), pb.PipelineDeploymentConfig
    )
    platforms = parsed("the platform part", platform, pb.PlatformSpec).get("platforms", {})
    executors = platforms.get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    settings = {
        label: parsed(f"platforms.kubernetes.{label}", found, kubernetes.KubernetesExecutorConfig)
        for label, found in executors.items()
    }
    return Package(digest, whole["pipelineInfo"]["name"], whole, settings), faults


def _parse(document: Any, message: Any) -> tuple[dict[str, Any], str]:
    """Return `document` as JSON of the protobuf `message`, and what is wrong with it."""
    from google.protobuf import json_format

    for lenient in (False, True):
        try:
            parsed = json_format.ParseDict(document, message(), ignore_unknown_fields=lenient)
        except (json_format.ParseError, AttributeError, TypeError, ValueError) as error:
            fault = (str(error).splitlines() or ["unreadable"])[0]
        else:
            return _sorted(json_format.MessageToDict(parsed)), fault if lenient else ""
    return {}, fault


def _sorted(node: Any) -> Any:
    """Return `node` with the keys of its maps in order: protobuf gives them in any."""
    if isinstance(node, dict):
        return {key: _sorted(node[key]) for key in sorted(node)}
    return [_sorted(inner) for inner in node] if isinstance(node, list) else node


def _no_package(path: Path, why: str) -> PipelineError:
    return PipelineError(f"{path} is not a compiled pipeline ({why}); make it by `invoke compile`")


def dags(package: Package) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every component that is a DAG, `root` first."""
    yield "root", package.spec["root"]
    for name, component in package.spec.get("components", {}).items():
        if "dag" in component:
            yield name, component


def arguments(package: Package, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of every parameter of the pipeline that has one, converted to its type.

    A parameter `package_digest` that is not given is the package's own: no package can hold its
    digest. Raises PipelineError for a parameter that is unknown, missing or of another type.
    """
    declared = package.spec["root"].get("inputDefinitions", {}).get("parameters", {})
    unknown = [name for name in given if name not in declared]
    if unknown:
        close = difflib.get_close_matches(unknown[0], declared, n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise PipelineError(
            f"the package has no parameter {unknown[0]!r}; {meant}"
            f"It has {', '.join(sorted(declared))}"
        )
    found = {}
    for name, definition in declared.items():
        if name in given:
            value = given[name]
        elif name == "package_digest":
            value = package.digest
        elif "defaultValue" in definition:
            value = definition["defaultValue"]
        elif definition.get("isOptional"):
            continue
        else:
            raise PipelineError(f"the parameter {name!r} is missing; give it with --param {name}=…")
        found[name] = values.coerce(value, definition["parameterType"], name)
    return found


def references(package: Package) -> list[str]:
    """Return every image by digest that the package runs or hands to a step as a value."""
    images = {*package.images().values()} - STUBS
    return sorted({*images, *filter(PINNED.fullmatch, strings(package.spec))})


def strings(node: Any) -> Iterator[str]:
    """Yield every text in a document, at any depth."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        for inner in node.values():
            yield from strings(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from strings(inner)


def image_digest(reference: str) -> str:
    """Return the digest of a pinned image; raises PipelineError for one that is not."""
    if reference in STUBS:
        raise PipelineError(
            f"the package has a step that makes or deletes a claim ({reference}), which only a "
            "cluster can; submit it, or mount a claim that is there"
        )
    digest = reference.partition("@")[2]
    if not oci.is_digest(digest):
        raise PipelineError(
            f"the package runs the image {reference}, which is not pinned by a digest; "
            "compile it with repository@sha256:…"
        )
    return digest
