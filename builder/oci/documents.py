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
ZSTD_LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"
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
    def from_json(document: Any, where: str = "") -> Descriptor:
        """Read a descriptor; raises BuilderError where a member that is used is not of the form.

        `where` names what holds it.
        """
        try:
            found = Descriptor(
                media_type=str(document.get("mediaType", "")),
                digest=document["digest"],
                size=document["size"],
                annotations=_texts(document.get("annotations")),
                artifact_type=str(document.get("artifactType") or ""),
                platform={
                    name: value
                    for name, value in (document.get("platform") or {}).items()
                    if isinstance(value, str)
                },
            )
            if not is_digest(found.digest) or type(found.size) is not int or found.size < 0:
                raise TypeError
        except (KeyError, TypeError, AttributeError):
            said = ascii(document)[:200]
            begin = f"{where}: " if where else ""
            raise BuilderError(
                f"{begin}not a descriptor with a sha256 digest and a size: {said}"
            ) from None
        return found


def _texts(found: Any) -> dict[str, str]:
    texts = dict(found or {})
    if not all(isinstance(value, str) for value in texts.values()):
        raise TypeError
    return texts


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

    @property
    def images(self) -> tuple[Image, ...]:
        """The image itself: what an Index has several of."""
        return (self,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Images of one thing for several platforms, and the descriptor of the index over them."""

    manifest: Descriptor
    images: tuple[Image, ...]

    @property
    def digest(self) -> str:
        """The index's digest: what all of them are pinned by."""
        return self.manifest.digest


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

    Raises BuilderError where they are none, or where the number of layers and of diff_ids differ.
    """
    name = f"the manifest {canonical.sha256(manifest)}"
    try:
        return _parse(manifest, config, name)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise BuilderError(
            f"{name} and its config are not those of an image ({type(error).__name__}); "
            "the image is damaged, push it again"
        ) from None


def _parse(manifest: bytes, config: bytes, name: str) -> Image:
    document, configuration = json.loads(manifest), json.loads(config)
    blobs = [Descriptor.from_json(entry, name) for entry in document["layers"]]
    diff_ids = [*((configuration.get("rootfs") or {}).get("diff_ids") or ())]
    if len(blobs) != len(diff_ids):
        raise BuilderError(
            f"{name} lists {len(blobs)} layers, its config "
            f"{len(diff_ids)} diff_ids; the image is damaged, push it again"
        )
    if not all(is_digest(diff_id) for diff_id in diff_ids):
        raise BuilderError(f"{name}: its config has a diff_id that is no sha256 digest")
    created_by = [
        str(entry.get("created_by", ""))
        for entry in configuration.get("history") or []
        if not entry.get("empty_layer")
    ]
    created_by += [""] * (len(blobs) - len(created_by))
    return Image(
        manifest=describe(str(document.get("mediaType", MANIFEST)), manifest),
        config_blob=Descriptor.from_json(document["config"], name),
        config=configuration,
        layers=tuple(
            Layer(diff_id=diff_id, blob=blob, created_by=text)
            for diff_id, blob, text in zip(diff_ids, blobs, created_by, strict=False)
        ),
    )
