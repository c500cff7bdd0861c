"""The local store as the place of images: for runs on one machine, without a registry."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from builder import oci
from builder.errors import BuilderError
from builder.oci.entry import Entry
from builder.oci.layer import write_layer
from builder.oci.reference import Reference
from builder.registry.blobs import Blob
from builder.registry.client import Registries
from builder.registry.pull import bring, pull
from builder.store import Store, roots

from .place import Kept


@dataclass(frozen=True)
class Local:
    """Keeps everything in `store`; a base that it lacks comes from its registry."""

    store: Store
    registries: Registries

    def image(self, reference: Reference) -> oci.Image:
        """Return the image, whole, from the store; brought into it where that lacks a part."""
        try:
            found = self.store.image(reference.digest)
            if all(bring(self.store, layer.blob) for layer in found.layers):
                return found
        except BuilderError:
            if reference.local:
                raise
        if reference.local:
            raise BuilderError(
                f"the store {self.store.root} lacks a layer of {reference}; "
                "run `invoke build-images`"
            )
        return pull(self.store, self.registries.at(reference.host), reference)

    def blobs(self, _: Reference, image: oci.Image) -> list[Blob]:
        return [self._blob(layer.blob) for layer in image.layers]

    def layer(self, entries: Sequence[Entry], created_by: str) -> tuple[oci.Layer, Blob]:
        with self.store.writing() as (stream, keep):
            layer = write_layer(entries, stream, created_by=created_by)
            keep(layer.blob.digest)
        return layer, self._blob(layer.blob)

    def _blob(self, descriptor: oci.Descriptor) -> Blob:
        return Blob(descriptor, lambda: self.store.open_blob(descriptor.digest))

    def keep(
        self, target: Reference, manifest: bytes, blobs: Sequence[Blob], _tags: Sequence[str]
    ) -> Kept:
        """Keep the manifest after its blobs, under the target's name instead of an earlier one."""
        described = oci.describe(oci.MANIFEST, manifest)
        already = self.store.has(described)
        for blob in blobs:
            if not self.store.has(blob.descriptor):
                with blob.open() as source, self.store.writing() as (stream, keep):
                    shutil.copyfileobj(source, stream, 1 << 20)
                    keep(blob.descriptor.digest)
        self.store.add(manifest)
        roots.keep(self.store, f"{target.host}/{target.repository}", described)
        return Kept(already=already)
