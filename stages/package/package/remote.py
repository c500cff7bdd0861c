"""Registries as the place of images: mount what is there, stream the rest, tag at the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

from builder import oci
from builder.errors import BuilderError
from builder.oci.entry import Entry
from builder.oci.layer import write_layer
from builder.oci.reference import Reference
from builder.registry.artifacts import announce
from builder.registry.blobs import Blob, Moved, Transfer
from builder.registry.client import Registries
from builder.registry.connection import RegistryError
from builder.registry.pull import listed

from .documents import media_type
from .place import Kept
from .replay import Replay

_JOBS = 2


class _Nowhere:
    def write(self, data: bytes) -> int:
        return len(data)

    def flush(self) -> None:
        pass


@dataclass(frozen=True)
class Remote:
    """Keeps everything in registries, at the memory of a few pieces of a blob."""

    registries: Registries

    def named(self, reference: Reference) -> oci.Image | oci.Index:
        """Return what is pinned; raises BuilderError where there is none, or something else."""
        if reference.local:
            raise BuilderError(
                f"{reference} is in the local store, from which nothing can be packaged for a "
                "registry; run `invoke push-images` and compile with that registry's names"
            )
        descriptor, data = self._manifest(reference)
        if descriptor.media_type not in (oci.INDEX, oci.DOCKER_INDEX):
            return self._image(reference, descriptor, data)
        images = []
        for entry in listed(json.loads(data), str(reference)):
            one = replace(reference, digest=entry.digest)
            images.append(self._image(one, *self._manifest(one)))
        return oci.Index(manifest=descriptor, images=tuple(images))

    def _manifest(self, reference: Reference) -> tuple[oci.Descriptor, bytes]:
        registry = self.registries.at(reference.host)
        found = registry.get_manifest(reference.repository, reference.digest)
        if found is None:
            raise BuilderError(f"{reference} is not in the registry; push it or mend the digest")
        return found

    def _image(self, reference: Reference, descriptor: oci.Descriptor, data: bytes) -> oci.Image:
        if descriptor.media_type not in (oci.MANIFEST, oci.DOCKER_MANIFEST):
            raise BuilderError(
                f"{reference} is {descriptor.media_type}, not the image of one platform; pin that"
            )
        registry = self.registries.at(reference.host)
        blob = oci.Descriptor.from_json(json.loads(data).get("config"))
        return oci.parse(data, registry.get_blob(reference.repository, blob))

    def blobs(self, reference: Reference, image: oci.Image) -> list[Blob]:
        return [self._elsewhere(reference, layer.blob) for layer in image.layers]

    def _elsewhere(self, home: Reference, blob: oci.Descriptor) -> Blob:
        def write(sink: BinaryIO) -> None:
            self.registries.at(home.host).read_blob(home.repository, blob, sink.write)

        return Blob(blob, lambda: cast("BinaryIO", Replay(write)), home)

    def layer(self, entries: Sequence[Entry], created_by: str) -> tuple[oci.Layer, Blob]:
        """Learn the layer's digest by making it once; it is made again while it goes up.

        So nothing of a model's size is ever in memory or on the step's disk.
        """
        layer = write_layer(entries, cast("BinaryIO", _Nowhere()), created_by=created_by)
        return layer, Blob(
            layer.blob,
            lambda: cast("BinaryIO", Replay(lambda sink: write_layer(entries, sink))),
        )

    def keep(
        self, target: Reference, manifest: bytes, blobs: Sequence[Blob], tags: Sequence[str]
    ) -> Kept:
        """Bring the blobs, then the manifest by its digest, read it back, and only then tag it.

        Raises RegistryError; no tag points at what is not whole and checked.
        """
        registry, repository = self.registries.at(target.host), target.repository
        kind, document = media_type(manifest), json.loads(manifest)
        described = oci.describe(kind, manifest)
        wanted, transfer = {blob.descriptor.digest: blob for blob in blobs}, Transfer(registry)
        with ThreadPoolExecutor(_JOBS) as pool:
            moves = pool.map(lambda blob: transfer.bring(repository, blob), wanted.values())
            moved = sum(moves, Moved())
        there = registry.head_manifest(repository, described.digest)
        if there is None:
            registry.put_manifest(repository, described.digest, manifest, kind)
        found = registry.get_manifest(repository, described.digest)
        lacking = [d for d in wanted if not registry.has_blob(repository, d)]
        images = [str(entry["digest"]) for entry in document.get("manifests", ())]
        lacking += [d for d in images if not registry.head_manifest(repository, d)]
        if found is None or found[1] != manifest or lacking:
            raise RegistryError(
                f"{target.host}/{repository} took {described.digest} and does not give it back "
                f"({', '.join(lacking) or 'its manifest'} is missing); no tag was set"
            )
        if subject := document.get("subject"):
            referrer = replace(
                described,
                artifact_type=document.get("config", {}).get("mediaType", ""),
                annotations=document["annotations"],
            )
            announce(registry, repository, subject["digest"], referrer)
        for tag in tags:
            tagged = registry.head_manifest(repository, tag)
            if tagged is None or tagged.digest != described.digest:
                registry.put_manifest(repository, tag, manifest, kind)
        return Kept(
            uploaded=moved.uploaded + (0 if there else len(manifest)),
            mounted=moved.mounts,
            already=there is not None,
        )
