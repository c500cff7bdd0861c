"""Images of registries that recipes name by digest: documents at once, layers when needed.

A recipe that says `FROM host/repository@sha256:…` needs that image's config to be planned; its
layers are only pointed at. The store remembers beside the blobs (`origins/<hex>`) which repository
has a layer, so that whoever needs its bytes - a sandbox, a push to another registry, a COPY - can
bring them.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

from builder import oci
from builder.errors import BuilderError
from builder.reference import Reference
from builder.store import Store

# Both are a gzip-compressed tar; images of the builder say it the OCI way.
_GZIP = (oci.LAYER, oci.DOCKER_LAYER)


def image(store: Store, reference: Reference) -> oci.Image:
    """Return the image that `reference` pins, for linux/amd64; at most three requests, no layer.

    What the store has is not asked for. Raises BuilderError where the registry lacks it, and for
    images that cannot be built on: another platform, triggers, layers that are not gzip.
    """
    found = _stored(store, reference.digest)
    if found is None:
        from builder.pull import PLATFORM, documents
        from builder.registry import Registry

        with Registry(reference.host) as registry:
            found = documents(store, registry, reference.repository, reference.digest, PLATFORM)
        if found is None:
            raise BuilderError(
                f"{reference} is not in the registry; push it there or mend the digest"
            )
    _check(found, reference)
    layers = tuple(
        replace(layer, blob=replace(layer.blob, media_type=oci.LAYER)) for layer in found.layers
    )
    for layer in layers:
        remember(store, layer.blob.digest, reference)
    return replace(found, layers=layers)


def of(store: Store, blob: oci.Descriptor) -> Reference | None:
    """Return the repository that a layer is known to be in, pinned by the layer's digest."""
    try:
        text = _path(store, blob.digest).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return Reference.parse(f"{text}@{blob.digest}")


def bring(store: Store, blob: oci.Descriptor) -> bool:
    """Fetch a layer that the store lacks from where it is known to be; tell whether it is there.

    Raises BuilderError where its registry fails or sends something else.
    """
    if store.has(blob):
        return True
    known = of(store, blob)
    if known is None:
        return False
    from builder.connection import RegistryError
    from builder.pull import fetch
    from builder.registry import Registry

    try:
        with Registry(known.host) as registry:
            fetch(store, registry, known.repository, blob)
    except RegistryError as error:
        if error.status == 404:
            _path(store, blob.digest).unlink(missing_ok=True)
            raise BuilderError(f"{error}; run `invoke build-images` to make it here") from None
        raise
    return True


def at_hand(store: Store, found: oci.Image) -> bool:
    """Tell whether every layer of an image is in the store, or can be brought there."""
    return all(store.has(layer.blob) or of(store, layer.blob) for layer in found.layers)


def _path(store: Store, digest: str) -> Path:
    return store.root / "origins" / digest.removeprefix("sha256:")


def remember(store: Store, digest: str, reference: Reference) -> None:
    """Keep that the repository of `reference` has the layer `digest`."""
    path = _path(store, digest)
    text = f"{reference.host}/{reference.repository}"
    try:
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return
        path.parent.mkdir(exist_ok=True)
        handle, name = tempfile.mkstemp(dir=store.root / "tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(name).replace(path)
    except OSError as error:
        raise BuilderError(
            f"writing to the store {store.root} failed ({error.strerror or error}); "
            "free some space there or point PLATELINE_STORE elsewhere"
        ) from error


def _stored(store: Store, digest: str) -> oci.Image | None:
    """Return the image of a manifest or index that an earlier build kept, if all of it is there."""
    from builder.pull import PLATFORM, choose

    if not store.path(digest).exists():
        return None
    try:
        document = json.loads(store.read(digest))
        if "manifests" in document:
            digest = choose(document, PLATFORM, digest).digest
        return store.image(digest)
    except BuilderError:
        return None  # a damaged blob has been removed by now, and a missing one is asked for


def _check(found: oci.Image, reference: Reference) -> None:
    system, architecture = found.config.get("os"), found.config.get("architecture")
    if (system, architecture) != ("linux", "amd64"):
        raise BuilderError(
            f"{reference} is for {system}/{architecture}; pin the digest of its image for "
            "linux/amd64, or of the index that has one"
        )
    if (found.config.get("config") or {}).get("OnBuild"):
        raise BuilderError(
            f"{reference} has ONBUILD triggers, which would run commands; build on an image without"
        )
    for layer in found.layers:
        if layer.blob.media_type not in _GZIP:
            raise BuilderError(
                f"{reference} has a layer of the type {layer.blob.media_type}; only tars "
                "compressed by gzip can be built on: copy it with "
                "`skopeo copy --dest-compress-format gzip` and pin that digest"
            )
