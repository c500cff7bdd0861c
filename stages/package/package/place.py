"""Where images and artifacts are kept: the seam between packaging and the store or registries."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from builder import oci
from builder.oci.entry import Entry
from builder.oci.reference import Reference
from builder.registry.blobs import Blob

TITLE = "org.opencontainers.image.title"


@dataclass(frozen=True)
class Kept:
    """What it took to keep something: bytes uploaded, blobs mounted; `already` means none."""

    uploaded: int = 0
    mounted: int = 0
    already: bool = False

    def __add__(self, other: Kept) -> Kept:
        return Kept(
            self.uploaded + other.uploaded,
            self.mounted + other.mounted,
            self.already and other.already,
        )


class Place(Protocol):
    """The local store, or registries."""

    def named(self, reference: Reference) -> oci.Image | oci.Index:
        """Return what `reference` pins, an image or an index with its images: no layer is read."""

    def blobs(self, reference: Reference, image: oci.Image, /) -> list[Blob]:
        """Return the layers of an image that is there."""

    def layer(self, entries: Sequence[Entry], created_by: str) -> tuple[oci.Layer, Blob]:
        """Make a layer of `entries`."""

    def keep(
        self, target: Reference, manifest: bytes, blobs: Sequence[Blob], tags: Sequence[str], /
    ) -> Kept:
        """Keep a manifest or index with the blobs that it names, under its digest and `tags`."""


def document(data: bytes, media_type: str, title: str = "") -> Blob:
    """Return a blob of `data`; `title` is its file name in an artifact."""
    names = {TITLE: title} if title else {}
    return Blob(oci.describe(media_type, data, annotations=names), lambda: io.BytesIO(data))
