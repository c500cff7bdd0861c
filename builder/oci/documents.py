"""The documents of the OCI image specification that the builder writes, as frozen data.

Source: https://github.com/opencontainers/image-spec (v1.1), `descriptor.md`, `manifest.md`,
`config.md`, `image-index.md`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from builder.errors import BuilderError
from builder.oci import canonical

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def is_digest(text: str) -> bool:
    """Tell whether `text` is `sha256:` and 64 lower-case hexadecimal digits."""
    return _DIGEST.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """Points at a blob: its media type, `sha256:` digest and size in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""
    platform: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the descriptor as the specification writes it; empty members are left out."""
        document: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        }
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        if self.platform:
            document["platform"] = dict(self.platform)
        return document

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Descriptor:
        """Read a descriptor; raises BuilderError where digest or size are not of the form."""
        digest, size = document.get("digest"), document.get("size")
        if not isinstance(digest, str) or not is_digest(digest) or not isinstance(size, int):
            raise BuilderError(f"not a descriptor with a sha256 digest and a size: {document!r}")
        return Descriptor(
            media_type=str(document.get("mediaType", "")),
            digest=digest,
            size=size,
            annotations=document.get("annotations") or {},
            artifact_type=document.get("artifactType") or "",
            platform=document.get("platform") or {},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer: the digest of its plain tar (`diff_id`) and the compressed blob it is kept as."""

    diff_id: str
    blob: Descriptor
    created_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A built or pulled image: its manifest's descriptor, its config and its layers in order.

    `config` is the whole config document (`architecture`, `os`, `config`, `rootfs`, `history`).
    """

    manifest: Descriptor
    config_blob: Descriptor
    config: Mapping[str, Any]
    layers: tuple[Layer, ...]

    @property
    def digest(self) -> str:
        """The manifest's digest: what the image is pinned by."""
        return self.manifest.digest

    @property
    def size(self) -> int:
        """Bytes a registry keeps for the image: manifest, config and compressed layers."""
        blobs = (self.manifest, self.config_blob, *(layer.blob for layer in self.layers))
        return sum(blob.size for blob in blobs)


def describe(media_type: str, data: bytes, **members: Any) -> Descriptor:
    """Return the descriptor of `data`."""
    return Descriptor(
        media_type=media_type, digest=canonical.sha256(data), size=len(data), **members
    )


def assemble(
    config: Mapping[str, Any],
    layers: tuple[Layer, ...],
    annotations: Mapping[str, str] | None = None,
    subject: Descriptor | None = None,
) -> tuple[Image, dict[str, bytes]]:
    """Make the image of `layers` under `config`; pure.

    `config` is a config document without `rootfs`, which follows from the layers; `subject` is what
    the image refers to. Returns the image and its two documents (config and manifest) by digest,
    ready to be stored or pushed.
    """
    document = {
        **config,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
    }
    config_bytes = canonical.dumps(document)
    config_blob = describe(CONFIG, config_bytes)
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config_blob.to_json(),
        "layers": [layer.blob.to_json() for layer in layers],
    }
    if annotations:
        manifest["annotations"] = dict(annotations)
    if subject:
        manifest["subject"] = subject.to_json()
    manifest_bytes = canonical.dumps(manifest)
    descriptor = describe(MANIFEST, manifest_bytes)
    image = Image(manifest=descriptor, config_blob=config_blob, config=document, layers=layers)
    return image, {config_blob.digest: config_bytes, descriptor.digest: manifest_bytes}


def parse(manifest: bytes, config: bytes) -> Image:
    """Read an image back from its two documents (OCI or Docker media types).

    Raises BuilderError where the number of layers and of diff_ids differ.
    """
    document, configuration = json.loads(manifest), json.loads(config)
    blobs = [Descriptor.from_json(entry) for entry in document["layers"]]
    diff_ids = configuration.get("rootfs", {}).get("diff_ids", [])
    if len(blobs) != len(diff_ids):
        raise BuilderError(
            f"the manifest {canonical.sha256(manifest)} lists {len(blobs)} layers, its config "
            f"{len(diff_ids)} diff_ids; the image is damaged, push it again"
        )
    created_by = [
        entry.get("created_by", "")
        for entry in configuration.get("history", [])
        if not entry.get("empty_layer")
    ]
    created_by += [""] * (len(blobs) - len(created_by))
    return Image(
        manifest=describe(document.get("mediaType", MANIFEST), manifest),
        config_blob=Descriptor.from_json(document["config"]),
        config=configuration,
        layers=tuple(
            Layer(diff_id=diff_id, blob=blob, created_by=text)
            for diff_id, blob, text in zip(diff_ids, blobs, created_by, strict=False)
        ),
    )
