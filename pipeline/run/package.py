"""A compiled package as data: its pipeline, its Kubernetes part and its digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder import canonical, oci
from pipeline.errors import PipelineError


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


def load(path: Path) -> Package:
    """Read a package; every part is parsed as its protobuf, so that a typo is an error.

    Raises PipelineError for a file that is missing or no compiled pipeline.
    """
    import yaml
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    try:
        data = path.read_bytes()
        documents = list(yaml.safe_load_all(data))
        spec = json_format.MessageToDict(
            json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())
        )
        platform = json_format.MessageToDict(
            json_format.ParseDict(
                documents[1] if len(documents) > 1 else {}, pipeline_spec_pb2.PlatformSpec()
            )
        )
        name = spec["pipelineInfo"]["name"]
    except OSError as error:
        raise PipelineError(
            f"reading the package {path} failed ({error.strerror}); make it by `invoke compile`"
        ) from None
    except (yaml.YAMLError, json_format.ParseError, KeyError, IndexError, AttributeError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise PipelineError(
            f"{path} is not a compiled pipeline ({first}); make it by `invoke compile`"
        ) from None
    spec.setdefault("deploymentSpec", {})
    kubernetes = platform.get("platforms", {}).get("kubernetes", {})
    settings = kubernetes.get("deploymentSpec", {}).get("executors", {})
    return Package(canonical.sha256(data), name, spec, settings)


def image_digest(reference: str) -> str:
    """Return the digest of a pinned image; raises PipelineError for one that is not."""
    digest = reference.partition("@")[2]
    if not oci.is_digest(digest):
        raise PipelineError(
            f"the package runs the image {reference}, which is not pinned by a digest; "
            "compile it with repository@sha256:…"
        )
    return digest
