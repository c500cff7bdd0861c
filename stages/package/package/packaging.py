"""Models over the pinned function image, and the artifact that the image refers to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from builder import oci
from builder.oci import canonical
from builder.oci.reference import Reference
from builder.registry.blobs import Blob

from . import documents, models
from .place import TITLE, Kept, Place, document

_CREATED_BY = "COPY servable/ /models/"
_NOT_IN_TAGS = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to package: the pinned base, the files, where the results go, and what they say.

    `shelf` is the repository of the model artifact, None for no artifact.
    """

    base: Reference
    target: Reference
    servable: Path
    shelf: Reference | None = None
    metrics: Path | None = None
    report: Path | None = None
    workspace: str = ""
    package_digest: str = ""


@dataclass(frozen=True)
class Packaged:
    """The pinned names of the image and (unless there is none) the artifact; how it was made."""

    image: Reference
    artifact: Reference | None
    how: str


def readable_tag(workspace: str, digest: str) -> str:
    """Return `<workspace>-<short digest>`, as a tag may be spelled."""
    name = _NOT_IN_TAGS.sub("-", workspace).strip(".-")[:100] or "models"
    return f"{name}-{digest.removeprefix('sha256:')[:12]}"


def package(order: Order, place: Place) -> Packaged:
    """Package `order` in `place`; what is there already is left alone.

    The layer of the models goes up once: the artifact holds it, and the image mounts it. Where the
    base is an index, its every image gets the layer, and the result is an index as well.
    """
    base = place.named(order.base)
    layer, blob = place.layer(models.entries(order.servable), _CREATED_BY)
    artifact, subject = artifact_of(order, place, blob)
    if artifact:
        blob = replace(blob, home=artifact)
    labels = documents.names(order.base, artifact, order.package_digest)
    made = []
    for under in base.images:
        manifest, config = documents.image(under, layer, labels, subject)
        made.append((manifest, [*place.blobs(order.base, under), blob, config]))
    if isinstance(base, oci.Image):
        image, took = keep(order, order.target, place, *made[0])
        return Packaged(image, artifact, describe(took))
    parts = [place.keep(order.target, manifest, blobs, ()) for manifest, blobs in made]
    pairs = [(manifest, under) for (manifest, _), under in zip(made, base.images, strict=True)]
    image, took = keep(order, order.target, place, documents.index(pairs, labels, subject), ())
    return Packaged(image, artifact, describe(sum(parts, took)))


def describe(took: Kept) -> str:
    """Return in words what a push took."""
    if took.already:
        return "was there"
    return f"{took.uploaded / 1e6:.1f} MB uploaded, {took.mounted} blobs mounted"


def artifact_of(
    order: Order, place: Place, layer: Blob | None = None
) -> tuple[Reference | None, oci.Descriptor | None]:
    """Keep models, their manifest, metrics and report as one artifact, if one is asked for.

    Return its pinned name and its descriptor. `layer` is that of the models where it is made.
    """
    if order.shelf is None:
        return None, None
    if layer is None:
        _, layer = place.layer(models.entries(order.servable), _CREATED_BY)
    titled = replace(layer.descriptor, annotations={TITLE: documents.MODELS})
    index = (order.servable / models.MANIFEST).read_bytes()
    blobs = [
        replace(layer, descriptor=titled),
        document(index, "application/json", models.MANIFEST),
    ]
    if order.metrics:
        blobs.append(document(order.metrics.read_bytes(), "application/json", "metrics.json"))
    if order.report:
        blobs.append(document(order.report.read_bytes(), "text/html", "report.html"))
    manifest, config = documents.artifact(blobs, order.package_digest)
    reference, _ = keep(order, order.shelf, place, manifest, [*blobs, config])
    return reference, oci.describe(oci.MANIFEST, manifest, artifact_type=documents.ARTIFACT)


def keep(
    order: Order,
    where: Reference,
    place: Place,
    manifest: bytes,
    blobs: Sequence[Blob],
    tag: str = "",
) -> tuple[Reference, Kept]:
    """Keep a manifest under its digest, the readable tag, `tag`, and the tag that was asked for."""
    digest = canonical.sha256(manifest)
    tags = [name for name in (readable_tag(order.workspace, digest), tag, where.tag) if name]
    took = place.keep(where, manifest, blobs, tags)
    return Reference(where.host, where.repository, digest=digest), took
