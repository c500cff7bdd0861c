"""A target for several platforms: an image for each, and the one OCI index that names them all.

Docker, podman and Kubernetes take the image that fits from an index. Source:
https://github.com/opencontainers/image-spec/blob/v1.1.0/image-index.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder import oci
from builder.build.make import Built, PartError
from builder.build.plan import action_key
from builder.errors import BuilderError
from builder.oci import canonical
from builder.platform import Platform
from builder.store import Store, builds

if TYPE_CHECKING:
    from builder.registry.client import Registry  # costs time

Build = Callable[[Platform], Mapping[str, Built]]


@dataclass(frozen=True, slots=True)
class Indexed:
    """A target's index, the action key that follows from those of its images, and these."""

    name: str
    key: str
    index: oci.Descriptor
    images: Mapping[Platform, Built]

    @property
    def digest(self) -> str:
        """What pins it for every platform."""
        return self.index.digest

    @property
    def named(self) -> oci.Index:
        """What its digest names."""
        images = tuple(built.image for built in self.images.values())
        return oci.Index(manifest=self.index, images=images)


def build_each(platforms: Sequence[Platform], build: Build) -> dict[Platform, Mapping[str, Built]]:
    """Return what `build` makes for each of `platforms`.

    One that fails stops no other. Raises BuilderError with every failure, each with its platform.
    """
    found: dict[Platform, Mapping[str, Built]] = {}
    failures = []
    for platform in platforms:
        try:
            found[platform] = build(platform)
        except BuilderError as error:
            found[platform] = error.built if isinstance(error, PartError) else {}
            failures.append(f"for {platform.name}: {error}")
    if failures:
        made = {n: b for built in found.values() for n, b in built.items()}
        raise PartError("\n".join(failures), made)
    return found


def index(
    store: Store, found: Mapping[Platform, Mapping[str, Built]], root: Path
) -> dict[str, Indexed]:
    """Write to `store` the index of each target that `found` has an image of for each platform.

    The images stand in it in the order of their platforms' names, so that the same images are the
    same index. It stays in the store as what the checkout at `root` built last.
    """
    platforms = sorted(found, key=lambda platform: platform.name)
    indexed = {}
    for name in found[platforms[0]]:
        if not all(name in built for built in found.values()):
            continue
        images = {platform: found[platform][name] for platform in platforms}
        entries = [
            {**built.image.manifest.to_json(), "platform": platform.oci}
            for platform, built in images.items()
        ]
        document = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": entries}
        key = index_key({platform: built.key for platform, built in images.items()})
        data = canonical.dumps(document)
        store.add(data)
        together = ",".join(platform.name for platform in platforms)
        record = {"key": key, "images": {p.name: built.key for p, built in images.items()}}
        digest = canonical.sha256(data)
        builds.remember(store, root, f"{name} for {together}", digest, record)
        indexed[name] = Indexed(name, key, oci.describe(oci.INDEX, data), images)
    return indexed


def index_key(keys: Mapping[Platform, str]) -> str:
    """Return the action key of the index over the images of these keys."""
    names = sorted((platform.name, key) for platform, key in keys.items())
    return action_key({"index": [list(pair) for pair in names]})


def publish(store: Store, registry: Registry, path: str, found: Indexed) -> bool:
    """Put an index into `path`/<name> of a registry that has its images; tell whether it lacked it.

    Raises RegistryError.
    """
    from builder.registry.cache import key_tag  # costs time

    repository, tag = f"{path}/{found.name}", key_tag(found.key)
    there = registry.head_manifest(repository, tag)
    if there and there.digest == found.index.digest:
        return False
    registry.put_manifest(repository, tag, store.read(found.index.digest), oci.INDEX)
    return True
