"""The local store as the place of images: for runs on one machine, without a registry."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace

from builder import oci
from builder.errors import BuilderError
from builder.oci.entry import Entry
from builder.oci.layer import write_layer
from builder.oci.reference import Reference
from builder.registry.blobs import Blob
from builder.registry.client import Registries
from builder.registry.http import parse
from builder.registry.pull import bring, listed, pull
from builder.store import Store, roots

from .documents import media_type
from .place import Kept


@dataclass(frozen=True)
class Local:
    """Keeps everything in `store`; a base that it lacks comes from its registry."""

    store: Store
    registries: Registries

    def named(self, reference: Reference) -> oci.Image | oci.Index:
        """Return what is pinned, whole, from the store; brought into it where that lacks a part."""
        data = self._document(reference)
        index = parse(data, str(reference))
        if "manifests" not in index:
            return self._image(reference)
        images = [
            self._image(replace(reference, digest=entry.digest))
            for entry in listed(index, str(reference))
        ]
        return oci.Index(manifest=oci.describe(oci.INDEX, data), images=tuple(images))

    def _document(self, reference: Reference) -> bytes:
        try:
            return self.store.read(reference.digest)
        except BuilderError:
            if reference.local:
                raise
        registry = self.registries.at(reference.host)
        found = registry.get_manifest(reference.repository, reference.digest)
        if found is None:
            raise BuilderError(f"{reference} is not in the registry; push it or mend the digest")
        return found[1]

    def _image(self, reference: Reference) -> oci.Image:
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
        self, target: Reference, manifest: bytes, blobs: Sequence[Blob], tags: Sequence[str]
    ) -> Kept:
        """Keep the manifest after its blobs, under the target's name instead of an earlier one.

        Without a tag it gets no name.
        """
        described = oci.describe(media_type(manifest), manifest)
        already = self.store.has(described)
        for blob in blobs:
            if not self.store.has(blob.descriptor):
                with blob.open() as source, self.store.writing() as (stream, keep):
                    shutil.copyfileobj(source, stream, 1 << 20)
                    keep(blob.descriptor.digest)
        self.store.add(manifest)
        if tags:
            roots.keep(self.store, f"{target.host}/{target.repository}", described)
        return Kept(already=already)
