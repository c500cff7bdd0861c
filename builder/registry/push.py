"""Images of the store -> a registry: only what is missing goes up, and each blob once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO

from builder import oci
from builder.errors import BuilderError
from builder.oci import canonical
from builder.oci.reference import Reference
from builder.registry import pull
from builder.registry.artifacts import attach
from builder.registry.blobs import Blob, Moved, Transfer
from builder.registry.cache import key_tag
from builder.registry.client import Registry
from builder.registry.connection import RegistryError
from builder.store import Store, origins


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push did: the pinned name, and how each byte got there."""

    name: str
    reference: Reference
    uploaded: int
    uploaded_blobs: int
    mounted_blobs: int
    already: bool
    attached: int = 0


# What a registry answers to a manifest that names a blob it lacks: MANIFEST_BLOB_UNKNOWN,
# https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#error-codes.
_LACKING = (400, 404)
# CycloneDX as JSON, for `push` and those who look for it.
INVENTORY = "application/vnd.cyclonedx+json"


def attach_inventory(
    registry: Registry, repository: str, name: str, image: oci.Descriptor, data: bytes
) -> tuple[oci.Descriptor, int]:
    """Attach the bill of materials `data` to the image `name`; see `artifacts.attach`."""
    title = {"org.opencontainers.image.title": f"{name}.cdx.json"}
    return attach(registry, repository, image, data, INVENTORY, title)


def push(
    store: Store,
    images: Mapping[str, tuple[str, oci.Image]],
    prefix: str,
    registry: Registry,
    *,
    tags: Sequence[str] = (),
    there: Collection[str] = (),
    jobs: int = 4,
    progress: Callable[[str, int], object] = lambda _name, _bytes: None,
    inventory: Callable[[str], bytes] | None = None,
) -> dict[str, Pushed]:
    """Push `images` (name -> action key and image) to `prefix`/name, with a tag for each key.

    `prefix` is HOST/PATH. An image that is there under its key is left alone after one request,
    and after none where `there` has its name: it was found just now.
    The manifest goes last, so that no tag ever points at half an image. What the image has in
    common with the one that was pushed there before is not asked for, blob by blob, where the
    registry still has that one: it keeps what a manifest names. `progress` is called with
    an image's name and the bytes that just arrived. What `inventory` returns for an image that
    goes up, its bill of materials, refers to it in the registry. Raises RegistryError, and
    BuilderError where the store lacks a layer that the registry lacks too.
    """
    host, _, path = prefix.partition("/")
    transfer = Transfer(registry)

    def describe(name: str, repository: str) -> int:
        assert inventory
        return attach_inventory(
            registry, repository, name, images[name][1].manifest, inventory(name)
        )[1]

    def bring(name: str, repository: str, blob: oci.Descriptor) -> Moved:
        return transfer.bring(
            repository, stored(store, registry, repository, blob), lambda size: progress(name, size)
        )

    def one(name: str) -> Pushed:
        key, image = images[name]
        reference = Reference(host=host, repository=f"{path}/{name}", digest=image.digest)
        if name in there and not tags:
            return Pushed(name, reference, 0, 0, 0, already=True)
        found = registry.head_manifest(reference.repository, key_tag(key))
        if found and found.digest == image.digest and not tags:
            return Pushed(name, reference, 0, 0, 0, already=True)
        every = (*(layer.blob for layer in image.layers), image.config_blob)
        wanted = {blob.digest: blob for blob in every}
        known = _blobs_there(store, registry, reference) & wanted.keys()
        transfer.found(reference.repository, known)
        with ThreadPoolExecutor(jobs) as pool:
            # What refers to the image may be there before it.
            attaching = pool.submit(describe, name, reference.repository) if inventory else None
            new = (blob for digest, blob in wanted.items() if digest not in known)
            moved = sum(
                pool.map(lambda blob: bring(name, reference.repository, blob), new), Moved()
            )
        attached = attaching.result() if attaching else 0
        manifest = store.read(image.digest)

        def tag_it() -> None:
            for tag in (key_tag(key), *tags):
                registry.put_manifest(
                    reference.repository, tag, manifest, image.manifest.media_type
                )

        try:
            tag_it()
        except RegistryError as error:
            if not known or error.status not in _LACKING:
                raise
            transfer.lost(known)  # it has lost some of what it should have
            moved = sum((bring(name, reference.repository, wanted[d]) for d in known), moved)
            tag_it()
        store.put_result(_place(reference), {"manifest": image.digest})
        return Pushed(
            name,
            reference,
            moved.uploaded + len(manifest),
            moved.uploads,
            moved.mounts,
            already=False,
            attached=attached,
        )

    if not path:
        raise BuilderError(f"{prefix!r} is not HOST/PREFIX, for example localhost:5000/plateline")
    with store.in_use(), ThreadPoolExecutor(jobs) as pool:
        return dict(zip(images, pool.map(one, images), strict=True))


def _place(reference: Reference) -> str:
    """Return the key under which the store remembers what was pushed to a repository last."""
    name = f"pushed to {reference.host}/{reference.repository}"
    return canonical.sha256(name.encode()).removeprefix("sha256:")


def _blobs_there(store: Store, registry: Registry, reference: Reference) -> set[str]:
    """Return the blobs of the image that was pushed there last, if the repository still has it."""
    before = store.get_result(_place(reference))
    try:
        image = store.image(before["manifest"]) if before else None
    except BuilderError:
        return set()
    if image is None:
        return set()
    found = registry.head_manifest(reference.repository, image.digest)
    if found is None or found.digest != image.digest:
        return set()
    return {image.config_blob.digest, *(layer.blob.digest for layer in image.layers)}


def stored(store: Store, registry: Registry, repository: str, blob: oci.Descriptor) -> Blob:
    """Return a blob of the store to be brought to `repository`, or to be mounted from its origin.

    Opening it fetches it where only a registry has it; raises BuilderError where none is known.
    """

    def opened() -> BinaryIO:
        if not pull.bring(store, blob):
            raise BuilderError(
                f"neither {registry.host}/{repository} nor the store {store.root} has the blob "
                f"{blob.digest}; run `invoke build-images` and push again"
            )
        return store.open_blob(blob.digest)

    return Blob(blob, opened, origins.of(store, blob))
