"""Which results of the shared cache in a registry no release reaches, and removing them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from builder import oci
from builder.registry.artifacts import fallback_tag
from builder.registry.blobs import push_scope
from builder.registry.cache import key_tag
from builder.registry.client import Registry
from builder.registry.http import RegistryError
from builder.signing.signatures import signature_tag
from pipeline.errors import PipelineError
from pipeline.release.publish import releases

_PREFIX = key_tag("")
_INDEXES = (oci.INDEX, oci.DOCKER_INDEX)
# A registry says that it deletes nothing, or no tags, or not for this user.
_REFUSED = (400, 401, 403, 405)


@dataclass(frozen=True, slots=True, order=True)
class Stale:
    """A manifest that only tags of the cache lead to: its repository, its digest, these tags."""

    repository: str
    digest: str
    tags: tuple[str, ...]


def stale(
    registry: Registry, path: str, names: Iterable[str], keep: Collection[str] = ()
) -> list[Stale]:
    """Return what no release of `path` reaches, among the images `names` and those of releases.

    An image stays as well where a tag that is no key's leads to it, the tag of a key in `keep`, or
    an index that stays. Raises RegistryError.
    """
    made = releases(registry, path)
    reached = {digest for release in made for digest in release.images.values()}
    kept = {key_tag(key) for key in keep}
    found = []
    for name in sorted({*names, *(name for release in made for name in release.images)}):
        repository = f"{path}/{name}"
        leads: dict[str, list[str]] = {}
        indexes = set()
        for tag in registry.tags(repository):
            # What hangs beside an image does not keep it: its signatures, and who refers to it.
            if not tag.startswith("sha256-"):
                manifest = registry.head_manifest(repository, tag)
                if manifest:
                    leads.setdefault(manifest.digest, []).append(tag)
                    if manifest.media_type in _INDEXES:
                        indexes.add(manifest.digest)
        stays = {
            digest for digest, tags in leads.items()
            if digest in reached
            or not all(tag.startswith(_PREFIX) and tag not in kept for tag in tags)
        }  # fmt: skip
        for digest in stays & indexes:
            stays |= _named(registry, repository, digest)
        found += [
            Stale(repository, digest, tuple(sorted(tags)))
            for digest, tags in leads.items()
            if digest not in stays
        ]
    return sorted(found)


def _named(registry: Registry, repository: str, index: str) -> set[str]:
    """Return the digests of the images that an index names."""
    there = registry.get_manifest(repository, index)
    document = json.loads(there[1]) if there else {}
    return {oci.Descriptor.from_json(entry).digest for entry in document.get("manifests", ())}


def delete(registry: Registry, one: Stale) -> None:
    """Delete a manifest with its tags, and the tags of what signs it or refers to it.

    Raises PipelineError where the registry refuses, which is named.
    """
    for tag in (signature_tag(one.digest), fallback_tag(one.digest)):
        manifest = registry.head_manifest(one.repository, tag)
        if manifest:
            _delete(registry, one.repository, manifest.digest)
    _delete(registry, one.repository, one.digest)


def _delete(registry: Registry, repository: str, digest: str) -> None:
    scope = f"{push_scope(repository)},delete"
    try:
        registry.request(
            "DELETE", f"{repository}/manifests/{digest}", scope=scope, expect=(202, 404)
        )
    except RegistryError as error:
        if error.status not in _REFUSED:
            raise
        raise PipelineError(
            f"{registry.host} refuses to delete {repository}@{digest} ({error}); allow deletion "
            "there (docker-registry: storage.delete.enabled), or delete it by its own tools"
        ) from None
