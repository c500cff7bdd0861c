"""A registry -> the store: images by digest, and results by action key."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from builder import oci
from builder.errors import BuilderError
from builder.push import key_tag
from builder.reference import Reference
from builder.registry import Registry
from builder.store import Store


def find_by_key(store: Store, registry: Registry, repository: str, key: str) -> oci.Image | None:
    """Return the image that was pushed for the action `key`, or None; two requests, no layer.

    Its manifest and config are kept in the store.
    """
    return _documents(store, registry, repository, key_tag(key), {})


def _documents(
    store: Store, registry: Registry, repository: str, reference: str, platform: dict[str, str]
) -> oci.Image | None:
    found = registry.get_manifest(repository, reference)
    if found is None:
        return None
    descriptor, data = found
    if descriptor.media_type in (oci.INDEX, oci.DOCKER_INDEX):
        entries = [oci.Descriptor.from_json(entry) for entry in json.loads(data)["manifests"]]
        chosen = [e for e in entries if platform.items() <= dict(e.platform).items()]
        if not chosen:
            has = ", ".join(
                sorted(
                    {f"{e.platform.get('os')}/{e.platform.get('architecture')}" for e in entries}
                )
            )
            raise BuilderError(
                f"{registry.host}/{repository}@{descriptor.digest} has no image for "
                f"{platform.get('os')}/{platform.get('architecture')}, only for {has}"
            )
        return _documents(store, registry, repository, chosen[0].digest, platform)
    config_blob = oci.Descriptor.from_json(json.loads(data)["config"])
    config = registry.get_blob(repository, config_blob)
    store.add(config)
    store.add(data)
    return oci.parse(data, config)


def pull(
    store: Store,
    registry: Registry,
    reference: Reference,
    *,
    architecture: str = "amd64",
    jobs: int = 4,
    progress: Callable[[int], object] = lambda _: None,
) -> oci.Image:
    """Bring the image `reference` (by digest) into the store, layers that are there left alone.

    An index is resolved to the image for linux/`architecture`. Every blob is checked before it gets
    its name. Raises BuilderError where the registry lacks it or sends something else.
    """
    platform = {"os": "linux", "architecture": architecture}
    image = _documents(store, registry, reference.repository, reference.digest, platform)
    if image is None:
        raise BuilderError(f"{reference} is not in the registry; push it or mend the digest")

    def bring(blob: oci.Descriptor) -> None:
        if store.has(blob):
            return
        with store.writing() as (stream, keep):

            def sink(data: bytes) -> None:
                stream.write(data)
                progress(len(data))

            registry.read_blob(reference.repository, blob, sink)
            keep(blob.digest)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(bring, {layer.blob.digest: layer.blob for layer in image.layers}.values()))
    return image
