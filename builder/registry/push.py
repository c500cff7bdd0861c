"""Images of the store -> a registry: only what is missing goes up, and each blob once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from builder import oci
from builder.errors import BuilderError
from builder.oci.reference import Reference
from builder.registry import pull
from builder.registry.artifacts import attach
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


@dataclass
class _Counts:
    uploaded: int = 0
    uploaded_blobs: int = 0
    mounted_blobs: int = 0


@dataclass
class _Blobs:
    """Which repository has, or is just being given, each blob: the second one to ask mounts it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    owners: dict[str, tuple[str, Future[None]]] = field(default_factory=dict)

    def claim(self, digest: str, repository: str) -> tuple[str, Future[None], bool]:
        """Return who has the blob, when it will be there, and whether that is up to the caller."""
        with self.lock:
            if found := self.owners.get(digest):
                return *found, False
            self.owners[digest] = (repository, Future())
            return *self.owners[digest], True


# CycloneDX as JSON, for `push` and those who look for it.
INVENTORY = "application/vnd.cyclonedx+json"


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
    The manifest goes last, so that no tag ever points at half an image. `progress` is called with
    an image's name and the bytes that just arrived. What `inventory` returns for an image that
    goes up, its bill of materials, refers to it in the registry. Raises RegistryError, and
    BuilderError where the store lacks a layer that the registry lacks too.
    """
    host, _, path = prefix.partition("/")
    blobs = _Blobs()

    def describe(name: str, repository: str) -> int:
        assert inventory
        return attach(
            registry, repository, images[name][1].manifest, inventory(name),
            INVENTORY, {"org.opencontainers.image.title": f"{name}.cdx.json"},
        )  # fmt: skip

    def one(name: str) -> Pushed:
        key, image = images[name]
        reference = Reference(host=host, repository=f"{path}/{name}", digest=image.digest)
        if name in there and not tags:
            return Pushed(name, reference, 0, 0, 0, already=True)
        found = registry.head_manifest(reference.repository, key_tag(key))
        if found and found.digest == image.digest and not tags:
            return Pushed(name, reference, 0, 0, 0, already=True)
        counts = _Counts()
        every = (*(layer.blob for layer in image.layers), image.config_blob)
        wanted = {blob.digest: blob for blob in every}.values()
        with ThreadPoolExecutor(jobs) as pool:
            # What refers to the image may be there before it.
            attaching = pool.submit(describe, name, reference.repository) if inventory else None
            list(
                pool.map(
                    lambda blob: _bring(
                        store,
                        registry,
                        reference.repository,
                        blob,
                        blobs,
                        counts,
                        lambda size: progress(name, size),
                    ),
                    wanted,
                )
            )
        attached = attaching.result() if attaching else 0
        manifest = store.read(image.digest)
        for tag in (key_tag(key), *tags):
            registry.put_manifest(reference.repository, tag, manifest, image.manifest.media_type)
        return Pushed(
            name,
            reference,
            counts.uploaded + len(manifest),
            counts.uploaded_blobs,
            counts.mounted_blobs,
            already=False,
            attached=attached,
        )

    if not path:
        raise BuilderError(f"{prefix!r} is not HOST/PREFIX, for example localhost:5000/plateline")
    with store.in_use(), ThreadPoolExecutor(jobs) as pool:
        return dict(zip(images, pool.map(one, images), strict=True))


def _bring(
    store: Store,
    registry: Registry,
    repository: str,
    blob: oci.Descriptor,
    blobs: _Blobs,
    counts: _Counts,
    sent: Callable[[int], object],
) -> None:
    """See to it that `repository` has `blob`: it is there, mounted from another, or uploaded."""
    owner, ready, mine = blobs.claim(blob.digest, repository)
    if not mine:
        ready.result()
        if owner == repository:
            return
        if registry.has_blob(repository, blob.digest):
            return
        if registry.mount_blob(repository, blob.digest, owner):
            counts.mounted_blobs += 1
            return
    try:
        if registry.has_blob(repository, blob.digest):
            pass
        elif _mount_from_origin(store, registry, repository, blob):
            counts.mounted_blobs += 1
        else:
            _upload(store, registry, repository, blob, counts, sent)
    except BaseException as error:
        if mine:
            ready.set_exception(error)
        raise
    if mine:
        ready.set_result(None)


def _mount_from_origin(
    store: Store, registry: Registry, repository: str, blob: oci.Descriptor
) -> bool:
    """Take a layer of a base image over from its own repository, where that is in this registry."""
    known = origins.of(store, blob)
    if known is None or known.host != registry.host or known.repository == repository:
        return False
    return registry.mount_blob(repository, blob.digest, known.repository)


def _upload(
    store: Store,
    registry: Registry,
    repository: str,
    blob: oci.Descriptor,
    counts: _Counts,
    sent: Callable[[int], object],
) -> None:
    if not pull.bring(store, blob):
        raise BuilderError(
            f"neither {registry.host}/{repository} nor the store {store.root} has the blob "
            f"{blob.digest}; run `invoke build-images` and push again"
        )
    try:
        registry.put_blob(repository, blob, lambda: store.path(blob.digest).open("rb"), sent)
    except RegistryError as error:
        if error.status == 400:
            # The registry found another digest than promised: tell which side is wrong.
            store.verify(blob.digest)
        raise
    counts.uploaded += blob.size
    counts.uploaded_blobs += 1
