"""A registry -> the store: images by digest, and results by action key."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from builder import oci, origin
from builder.errors import BuilderError
from builder.push import key_tag
from builder.reference import Reference
from builder.registry import Registry
from builder.store import Store

PLATFORM = {"os": "linux", "architecture": "amd64"}


def find_by_key(store: Store, registry: Registry, repository: str, key: str) -> oci.Image | None:
    """Return the image that was pushed for the action `key`, or None; two requests, no layer.

    Its manifest and config are kept in the store.
    """
    return documents(store, registry, repository, key_tag(key), PLATFORM)


@dataclass
class RegistryCache:
    """The results that were pushed to `registry` under `path`, by action key (a RemoteCache).

    `found` holds the names of the images that were there.
    """

    store: Store
    registry: Registry
    path: str
    found: set[str] = field(default_factory=set)

    def find(self, name: str, key: str) -> oci.Image | None:
        """Return the image that was pushed as `path/name` for `key`, or None.

        Its layers stay where they are; the store remembers where, for whoever needs their bytes.
        """
        repository = f"{self.path}/{name}"
        image = find_by_key(self.store, self.registry, repository, key)
        if image is not None:
            self.found.add(name)
            if not self.registry.insecure:
                for layer in image.layers:
                    reference = Reference(self.registry.host, repository)
                    origin.remember(self.store, layer.blob.digest, reference)
        return image


def documents(
    store: Store, registry: Registry, repository: str, reference: str, platform: Mapping[str, str]
) -> oci.Image | None:
    """Return an image by tag or digest, or None, its documents kept in the store; no layer.

    An index is kept too, and resolved to its image for `platform`.
    """
    found = registry.get_manifest(repository, reference)
    if found is None:
        return None
    descriptor, data = found
    document = json.loads(data)
    name = f"{registry.host}/{repository}@{descriptor.digest}"
    if "manifests" in document:
        store.add(data)
        digest = choose(document, platform, name).digest
        return documents(store, registry, repository, digest, platform)
    if "config" not in document or "layers" not in document:
        raise BuilderError(f"{name} is no image but {descriptor.media_type or 'something else'}")
    config = registry.get_blob(repository, oci.Descriptor.from_json(document["config"]))
    store.add(config)
    store.add(data)
    return oci.parse(data, config)


def choose(index: Mapping[str, Any], platform: Mapping[str, str], name: str) -> oci.Descriptor:
    """Return the entry of an index (OCI or Docker) for `platform`, the plainest variant first.

    Raises BuilderError that lists the platforms there are.
    """
    entries = [oci.Descriptor.from_json(entry) for entry in index["manifests"]]
    chosen = [entry for entry in entries if platform.items() <= dict(entry.platform).items()]
    if not chosen:
        shown = {f"{e.platform.get('os')}/{e.platform.get('architecture')}" for e in entries}
        raise BuilderError(
            f"{name} has no image for {platform['os']}/{platform['architecture']}, "
            f"only for {', '.join(sorted(shown)) or 'nothing'}"
        )
    return min(chosen, key=lambda entry: entry.platform.get("variant", ""))


def fetch(
    store: Store,
    registry: Registry,
    repository: str,
    blob: oci.Descriptor,
    progress: Callable[[int], object] = lambda _: None,
) -> None:
    """Bring one blob into the store unless it is there; it is checked before it gets its name."""
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
    registry: Registry,
    reference: Reference,
    *,
    jobs: int = 4,
    progress: Callable[[int], object] = lambda _: None,
) -> oci.Image:
    """Bring the image `reference` (by digest) into the store, layers that are there left alone.

    An index is resolved to the image for linux/amd64. Every blob is checked before it gets
    its name. Raises BuilderError where the registry lacks it or sends something else.
    """
    image = documents(store, registry, reference.repository, reference.digest, PLATFORM)
    if image is None:
        raise BuilderError(f"{reference} is not in the registry; push it or mend the digest")

    def bring(blob: oci.Descriptor) -> None:
        fetch(store, registry, reference.repository, blob, progress)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(bring, {layer.blob.digest: layer.blob for layer in image.layers}.values()))
    return image
