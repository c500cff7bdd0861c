"""The registry as the shared cache: images found by the action key that made them."""

from __future__ import annotations

from dataclasses import dataclass, field

from builder import oci
from builder.oci.reference import Reference
from builder.registry.client import Registry
from builder.registry.pull import PLATFORM, documents
from builder.store import Store, origins


def key_tag(key: str) -> str:
    """Return the tag under which the registry is asked for the result of an action key."""
    return f"key-{key}"


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
                    origins.remember(self.store, layer.blob.digest, reference)
        return image
