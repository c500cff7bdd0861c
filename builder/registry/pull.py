"""A registry -> the store: images by digest, at once or layer by layer when needed.

A recipe that says `FROM host/repository@sha256:…` needs that image's config to be planned; its
layers are only pointed at, and fetched by whoever needs their bytes.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any

from builder import oci
from builder.errors import BuilderError
from builder.oci.reference import Reference
from builder.platform import NATIVE, Platform, here
from builder.registry.client import Registries, Source
from builder.registry.connection import RegistryError
from builder.registry.http import parse, shown
from builder.store import Store, origins

# An index may list indexes; images of others do so once at most.
_DEPTH = 3


@cache
def _registries() -> Registries:
    """Return the clients for what is fetched when it is needed, kept as long as the process."""
    clients = Registries()
    atexit.register(clients.__exit__)
    return clients


def documents(
    store: Store, registry: Source, repository: str, reference: str, platform: Mapping[str, str]
) -> oci.Image | None:
    """Return an image by tag or digest, or None, its documents kept in the store; no layer.

    An index is kept too, and resolved to its image for `platform`. Raises RegistryError, and
    BuilderError for what is no image, or none for `platform`.
    """
    for _ in range(_DEPTH):
        found = registry.get_manifest(repository, reference)
        if found is None:
            return None
        descriptor, data = found
        name = f"{registry.host}/{repository}@{descriptor.digest}"
        document = parse(data, name)
        if "manifests" not in document:
            break
        store.add(data)
        reference = choose(document, platform, name).digest
    else:
        raise BuilderError(f"{name} is an index of indexes of indexes; name one of its images")
    if "config" not in document or "layers" not in document:
        raise BuilderError(f"{name} is no image but {descriptor.media_type or 'something else'}")
    config = registry.get_blob(repository, oci.Descriptor.from_json(document["config"], name))
    image = oci.parse(data, config)
    store.add(config)
    store.add(data)
    return image


def named(
    store: Store, registry: Source, repository: str, digest: str
) -> oci.Image | oci.Index | None:
    """Return what a digest names, or None: an image, or an index with all its images; no layer.

    The documents are kept in the store. Raises RegistryError, and BuilderError for what is neither.
    """
    found = registry.get_manifest(repository, digest)
    if found is None:
        return None
    descriptor, data = found
    name = f"{registry.host}/{repository}@{digest}"
    document = parse(data, name)
    if "manifests" not in document:
        return documents(store, registry, repository, digest, {})
    images = []
    for entry in listed(document, name):
        image = documents(store, registry, repository, entry.digest, {})
        if image is None or image.digest != entry.digest:
            raise BuilderError(f"{name} names {entry.digest}, which is no image that is there")
        images.append(image)
    store.add(data)
    return oci.Index(manifest=descriptor, images=tuple(images))


def listed(index: Mapping[str, Any], name: str) -> list[oci.Descriptor]:
    """Return the images that an index (OCI or Docker) names; attestations beside them are none.

    Raises BuilderError where there are none.
    """
    entries = index["manifests"] if isinstance(index["manifests"], list) else []
    found = [oci.Descriptor.from_json(entry, name) for entry in entries]
    images = [entry for entry in found if entry.platform.get("os", "unknown") != "unknown"]
    if not images:
        raise BuilderError(f"{name} is an index that names no image of a platform")
    return images


def choose(index: Mapping[str, Any], platform: Mapping[str, str], name: str) -> oci.Descriptor:
    """Return the entry of an index (OCI or Docker) for `platform`, the plainest variant first.

    Raises BuilderError that lists the platforms there are.
    """
    manifests = index["manifests"] if isinstance(index["manifests"], list) else []
    entries = [oci.Descriptor.from_json(entry, name) for entry in manifests]
    chosen = [entry for entry in entries if platform.items() <= dict(entry.platform).items()]
    if not chosen:
        others = {f"{e.platform.get('os')}/{e.platform.get('architecture')}" for e in entries}
        raise BuilderError(
            f"{name} has no image for {'/'.join(platform.values()) or 'any platform'}, "
            f"only for {shown(', '.join(sorted(others))) or 'nothing'}"
        )
    return min(chosen, key=lambda entry: entry.platform.get("variant", ""))


def fetch(
    store: Store,
    registry: Source,
    repository: str,
    blob: oci.Descriptor,
    progress: Callable[[int], object] = lambda _: None,
) -> None:
    """Bring one blob into the store unless it is there; it is checked before it gets its name.

    Raises RegistryError, and BuilderError where the store cannot be written.
    """
    if store.has(blob):
        return
    with store.writing() as (stream, keep):

        def sink(data: bytes) -> None:
            stream.write(data)
            progress(len(data))

        registry.read_blob(repository, blob, sink)
        keep(blob.digest)


def pull(
    store: Store,
    registry: Source,
    reference: Reference,
    *,
    jobs: int = 4,
    progress: Callable[[int], object] = lambda _: None,
) -> oci.Image:
    """Bring the image `reference` into the store, layers that are there left alone.

    A tag is resolved, and an index to its image for this machine. Every blob is checked before it
    gets its name. Raises BuilderError where the registry lacks it or sends something else.
    """
    reference = registry.resolve(reference)
    image = documents(store, registry, reference.repository, reference.digest, here().oci)
    if image is None:
        raise BuilderError(f"{reference} is not in the registry; push it or mend the digest")

    def bring(blob: oci.Descriptor) -> None:
        fetch(store, registry, reference.repository, blob, progress)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(bring, {layer.blob.digest: layer.blob for layer in image.layers}.values()))
    return image


def known(store: Store, registry: Source, reference: Reference) -> oci.Image:
    """Return the image `reference`, its documents in the store; of its layers only where they are.

    Whoever needs the bytes of one gets them by `bring`. For registries that `bring` can reach as
    well: with the credentials of this machine, and over TLS unless they are on it. Raises as
    `pull`.
    """
    reference = registry.resolve(reference)
    image = documents(store, registry, reference.repository, reference.digest, here().oci)
    if image is None:
        raise BuilderError(f"{reference} is not in the registry; push it or mend the digest")
    for layer in image.layers:
        origins.remember(store, layer.blob.digest, reference)
    return image


# Two steps that start together share layers: each is fetched once.
_turns: dict[str, threading.Lock] = {}


def bring(store: Store, blob: oci.Descriptor) -> bool:
    """Fetch a layer that the store lacks from where it is known to be; tell whether it is there.

    Raises BuilderError where its registry fails or sends something else.
    """
    if store.has(blob):
        return True
    with _turns.setdefault(blob.digest, threading.Lock()):
        return _brought(store, blob)


def _brought(store: Store, blob: oci.Descriptor) -> bool:
    if store.has(blob):  # by another thread, meanwhile
        return True
    known = origins.of(store, blob)
    if known is None:
        return False
    try:
        fetch(store, _registries().at(known.host), known.repository, blob)
    except RegistryError as error:
        if error.status == 404:
            origins.forget(store, blob.digest)
            raise BuilderError(f"{error}; run `invoke build-images` to make it here") from None
        raise
    return True


# What a layer may be, and how images of the builder say it: the OCI way.
_LAYERS = {layer: layer for layer in (oci.LAYER, oci.ZSTD_LAYER)} | {oci.DOCKER_LAYER: oci.LAYER}


def pinned(store: Store, reference: Reference, platform: Platform = NATIVE) -> oci.Image:
    """Return the image that `reference` pins, for `platform`; at most three requests, no layer.

    What the store has is not asked for. Raises BuilderError where the registry lacks it, and for
    images that cannot be built on: another platform, triggers, layers of a kind of their own.
    """
    try:
        found = stored(store, reference.digest, platform)
    except BuilderError:
        # A damaged blob has been removed by now, and a missing one is asked for.
        registry = _registries().at(reference.host)
        asked = documents(store, registry, reference.repository, reference.digest, platform.oci)
        if asked is None:
            raise BuilderError(
                f"{reference} is not in the registry; push it there or mend the digest"
            ) from None
        found = asked
    _check(found, reference, platform)
    layers = tuple(
        replace(layer, blob=replace(layer.blob, media_type=_LAYERS[layer.blob.media_type]))
        for layer in found.layers
    )
    for layer in layers:
        origins.remember(store, layer.blob.digest, reference)
    return replace(found, layers=layers)


def stored(store: Store, digest: str, platform: Platform | None = None) -> oci.Image:
    """Return the image of a manifest, or of an index for `platform` (this machine's), in the store.

    Raises BuilderError where a document of it is not there, and as `choose`.
    """
    document = parse(store.read(digest), digest)
    if "manifests" in document:
        digest = choose(document, (platform or here()).oci, digest).digest
    return store.image(digest)


def _check(found: oci.Image, reference: Reference, platform: Platform) -> None:
    said = f"{found.config.get('os')}/{found.config.get('architecture')}"
    if said != platform.name:
        raise BuilderError(
            f"{reference} is for {said}; pin the digest of its image for {platform.name}, or of "
            "the index that has one"
        )
    if (found.config.get("config") or {}).get("OnBuild"):
        raise BuilderError(
            f"{reference} has ONBUILD triggers, which would run commands; build on an image without"
        )
    for layer in found.layers:
        if layer.blob.media_type not in _LAYERS:
            raise BuilderError(
                f"{reference} has a layer of the type {layer.blob.media_type}; only tars "
                "compressed by gzip or zstd can be built on: copy it with "
                "`skopeo copy --dest-compress-format gzip` and pin that digest"
            )
