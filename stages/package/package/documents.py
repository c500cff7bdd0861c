"""The documents that packaging makes: images with the models, their index, the artifact. Pure.

Format: https://github.com/opencontainers/image-spec/blob/v1.1.0/manifest.md, with its guidelines
for artifacts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from builder import oci
from builder.oci import canonical
from builder.oci.reference import Reference
from builder.registry.blobs import Blob

from .place import document

ARTIFACT = "application/vnd.plateline.model.v1"
MODELS = "models.tar.gz"  # the title of the models' layer in an artifact
CREATED = "2020-01-01T00:00:00Z"
BASE_NAME = "org.opencontainers.image.base.name"
BASE_DIGEST = "org.opencontainers.image.base.digest"
PACKAGE = "plateline.package"
MODEL = "plateline.artifact"


def names(base: Reference, artifact: Reference | None, package_digest: str) -> dict[str, str]:
    """Return what an image says of its origin, as labels and as annotations."""
    found = {
        BASE_NAME: str(Reference(base.host, base.repository, base.tag)),
        BASE_DIGEST: base.digest,
        PACKAGE: package_digest,
        MODEL: str(artifact or ""),
    }
    return {name: value for name, value in found.items() if value}


def image(
    base: oci.Image,
    layer: oci.Layer,
    labels: Mapping[str, str],
    subject: oci.Descriptor | None,
) -> tuple[bytes, Blob]:
    """Return manifest and config of `base` with `layer` on top, which refers to `subject`."""
    config = {name: value for name, value in base.config.items() if name != "rootfs"}
    settings = dict(config.get("config") or {})
    settings["Labels"] = {**(settings.get("Labels") or {}), **labels}
    history = [
        *(config.get("history") or []),
        {"created": CREATED, "created_by": layer.created_by},
    ]
    made, documents = oci.assemble(
        {**config, "config": settings, "history": history}, (*base.layers, layer), labels, subject
    )
    config_blob = document(documents[made.config_blob.digest], oci.CONFIG)
    return documents[made.digest], config_blob


def index(
    images: Sequence[tuple[bytes, oci.Image]],
    labels: Mapping[str, str],
    subject: oci.Descriptor | None,
) -> bytes:
    """Return the index over packaged images, each with the base whose platform it has.

    It says of itself what its images do. Format:
    https://github.com/opencontainers/image-spec/blob/v1.1.0/image-index.md.
    """
    entries = [
        {**oci.describe(oci.MANIFEST, manifest).to_json(), "platform": _platform(base)}
        for manifest, base in images
    ]
    found: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": oci.INDEX,
        "manifests": entries,
        "annotations": dict(labels),
    }
    if subject:
        found["subject"] = subject.to_json()
    return canonical.dumps(found)


def _platform(base: oci.Image) -> dict[str, str]:
    members = ("os", "architecture", "variant")
    return {name: str(base.config[name]) for name in members if base.config.get(name)}


def media_type(manifest: bytes) -> str:
    """Return the media type of a manifest or index that is made here."""
    return str(json.loads(manifest)["mediaType"])


def artifact(blobs: Sequence[Blob], package_digest: str) -> tuple[bytes, Blob]:
    """Return manifest and (empty) config of the artifact that holds `blobs`."""
    config = document(b"{}", oci.EMPTY)
    manifest = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "artifactType": ARTIFACT,
        "config": config.descriptor.to_json(),
        "layers": [blob.descriptor.to_json() for blob in blobs],
        "annotations": {PACKAGE: package_digest} if package_digest else {},
    }
    return canonical.dumps(manifest), config
