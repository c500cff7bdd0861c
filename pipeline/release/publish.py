"""Releases: a package and every image it runs, behind one digest in a registry.

A release is an OCI index in the repository PREFIX/pipeline. It names the package, an artifact of
its own, the manifest of every image and its bill of materials: so the registry's garbage
collection keeps them, and a copy of the release has them. The images' blobs are mounted there, not
uploaded again; each bill refers to its image too. Format:
https://github.com/opencontainers/image-spec/blob/v1.1.0/image-index.md
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from builder import oci
from builder.errors import BuilderError
from builder.oci import canonical
from builder.oci.reference import Reference, is_tag
from builder.registry import artifacts
from builder.registry.blobs import Transfer
from builder.registry.client import Registry, Source
from builder.registry.http import parse
from builder.registry.push import attach_inventory, stored
from builder.signing.keys import SigningKey
from builder.signing.results import PROVENANCE
from builder.signing.signatures import carry, sign, state
from builder.store import Store, roots
from pipeline.errors import PipelineError
from pipeline.release.materials import package_provenance
from pipeline.spec import provenance

RELEASE = "application/vnd.plateline.release.v1"
PACKAGE = "application/vnd.plateline.package.v1"
_TITLE = "org.opencontainers.image.title"
_REVISION = "org.opencontainers.image.revision"
_CREATED = "org.opencontainers.image.created"
_DIRTY = "plateline.dirty"


@dataclass(frozen=True)
class Release:
    """One release: the index's digest, the package's, its tags, its commit, name -> digest.

    `date` is the commit's, in UTC (RFC 3339); empty in a release of before it was kept.
    """

    digest: str
    package: str
    tags: tuple[str, ...]
    commit: str
    dirty: bool
    images: Mapping[str, str]
    date: str = ""


def repository(path: str) -> str:
    """Return the repository of a registry's `path` that holds its releases."""
    return f"{path}/pipeline" if path else "pipeline"


def tag_of(package: str) -> str:
    """Return the tag of a package's digest: a colon cannot be in one."""
    return package.replace(":", "-")


def is_release_name(text: str) -> bool:
    """Tell whether `text` can name a release, as a digest or a tag, rather than a file only."""
    return oci.is_digest(text) or (is_tag(text) and not text.endswith((".yaml", ".yml")))


def publish(
    registry: Registry,
    path: str,
    store: Store,
    package: bytes,
    images: Mapping[str, oci.Image | oci.Index],
    name: str = "",
    inventory: Callable[[str, oci.Image], bytes] | None = None,
    key: SigningKey | None = None,
    date: str = "",
) -> Release:
    """Put a release of `images`, which lie in `path`/<name>, into `path`/pipeline.

    One for several platforms is an index, whose images all come along. The same package and images
    give the same digest; so `date` is that of the commit. `name` is a further tag, which moves.
    `inventory` returns the bill of materials of an image of that name. `key` signs the images, the
    indexes and the release, and says how the package was made. Raises BuilderError where the
    registry refuses, and PipelineError for a package of others; the tags come last, so none points
    at half a release or at one that is not wholly signed.
    """
    home, transfer = repository(path), Transfer(registry)
    bills = []
    for title, named in sorted(images.items()):
        for image in named.images:
            _bring(registry, transfer, home, f"{path}/{title}", store, image)
            if inventory:
                bill = inventory(title, image)
                attached, _ = attach_inventory(registry, home, title, image.manifest, bill)
                bills.append(attached)
            if key:
                # So that a copy of the release has what was said of its images: how each was made.
                carry(registry, f"{path}/{title}", home, image.manifest)
        if not registry.head_manifest(home, named.digest):
            registry.put_manifest(home, named.digest, store.read(named.digest), oci.INDEX)
    made = provenance.read(package)
    notes = {_REVISION: made["commit"], _DIRTY: "true" if made["dirty"] else "false"}
    if date:
        notes[_CREATED] = date
    layer = oci.describe("application/yaml", package, annotations={_TITLE: "plateline.yaml"})
    entry, _ = artifacts.put(registry, home, PACKAGE, layer, package)
    entries = [
        entry,
        *(
            replace(named.manifest, annotations={_TITLE: title})
            for title, named in sorted(images.items())
        ),
        *bills,
    ]
    index = canonical.dumps(
        {
            "schemaVersion": 2,
            "mediaType": oci.INDEX,
            "artifactType": RELEASE,
            "manifests": [entry.to_json() for entry in entries],
            "annotations": notes,
        }
    )
    if key:
        # A registry may refuse what refers to a manifest that it does not have.
        registry.put_manifest(home, canonical.sha256(index), index, oci.INDEX)
        subjects = {
            f"image {title}" + (f", {each.digest}" if each.digest != named.digest else ""): each
            for title, named in sorted(images.items())
            for each in (*(image.manifest for image in named.images), named.manifest)
        }
        subjects["release"] = oci.describe(oci.INDEX, index)
        _sign(registry, home, entry, package_provenance(made), subjects, key)
    tags = [tag_of(canonical.sha256(package)), *([name] if name else [])]
    for tag in tags:
        registry.put_manifest(home, tag, index, oci.INDEX)
    # What a release runs stays in the store that it was made from.
    roots.keep(store, f"release {registry.host}/{home}:{tags[-1]}", store.add(index, oci.INDEX))
    return _release(canonical.sha256(index), json.loads(index), tags)


def _sign(
    registry: Registry,
    home: str,
    package: oci.Descriptor,
    provenance_of_it: Mapping[str, Any],
    subjects: Mapping[str, oci.Descriptor],
    key: SigningKey,
) -> None:
    """Sign `subjects` in order, and how the package was made; raises BuilderError with the rest."""
    unsigned = ["package", *subjects]
    try:
        state(registry, home, package, key, PROVENANCE, provenance_of_it)
        unsigned.pop(0)
        for subject in subjects.values():
            sign(registry, home, subject, key)
            unsigned.pop(0)
    except BuilderError as error:
        raise BuilderError(
            f"signing the {unsigned[0]} failed, so the release got no name: {error}; "
            f"not signed: {', '.join(unsigned)}; run the same command again"
        ) from None


def _bring(
    registry: Registry,
    transfer: Transfer,
    home: str,
    source: str,
    store: Store,
    image: oci.Image,
) -> None:
    """See to it that `home` has an image that lies in the repository `source`."""
    if registry.head_manifest(home, image.digest):
        return
    for descriptor in (image.config_blob, *(layer.blob for layer in image.layers)):
        blob = stored(store, registry, home, descriptor)
        transfer.bring(home, replace(blob, home=Reference(registry.host, source)))
    registry.put_manifest(home, image.digest, store.read(image.digest), image.manifest.media_type)


def _release(digest: str, index: Mapping[str, Any], tags: list[str]) -> Release:
    package = next((tag for tag in tags if tag.startswith("sha256-")), "").replace("-", ":", 1)
    notes = index.get("annotations", {})
    return Release(
        digest=digest,
        package=package,
        tags=tuple(tag for tag in tags if not tag.startswith("sha256-")),
        commit=notes.get(_REVISION, ""),
        dirty=notes.get(_DIRTY) != "false",
        date=notes.get(_CREATED, ""),
        images={
            entry["annotations"][_TITLE]: entry["digest"]
            for entry in index["manifests"]
            if not entry.get("artifactType")
        },
    )


def releases(registry: Source, path: str) -> list[Release]:
    """Return every release that `path`/pipeline holds, by package digest; raises RegistryError."""
    home = repository(path)
    found: dict[str, tuple[Mapping[str, Any], list[str]]] = {}
    for tag in registry.tags(home):
        manifest = registry.get_manifest(home, tag)
        index = parse(manifest[1], f"{registry.host}/{home}") if manifest else {}
        if manifest and index.get("artifactType") == RELEASE:
            found.setdefault(manifest[0].digest, (index, []))[1].append(tag)
    made = [_release(digest, index, tags) for digest, (index, tags) in found.items()]
    return sorted(made, key=lambda release: release.package)


def find(registry: Source, path: str, which: str) -> tuple[str, list[oci.Descriptor]]:
    """Return the digest of a release, and what it names: the package, the images, their bills.

    `which` is the package's digest, the release's, or a tag. Raises PipelineError where the
    registry has no such release, and BuilderError where it sends other bytes.
    """
    home = repository(path)
    # The tag of a release's digest may list what refers to it, in a registry without that list; and
    # some registries fail where the digest of a blob, as a package has it, is asked for a manifest.
    for name in dict.fromkeys((tag_of(which), which)):
        manifest = registry.get_manifest(home, name)
        index = parse(manifest[1], f"{registry.host}/{home}") if manifest else {}
        if manifest and index.get("artifactType") == RELEASE:
            break
    else:
        raise PipelineError(f"{registry.host}/{home} has no release {which}; see `invoke releases`")
    listed = index.get("manifests")
    entries = [oci.Descriptor.from_json(e) for e in listed] if isinstance(listed, list) else []
    digest = manifest[0].digest
    if oci.is_digest(which) and which not in (digest, package_of(registry, home, entries).digest):
        raise PipelineError(
            f"{registry.host}/{home} has another package under the name of {which}; "
            "find out who may push there"
        )
    return digest, entries


def named_images(entries: Sequence[oci.Descriptor]) -> dict[str, str]:
    """Return the images of a release, name -> digest, from what it names (`find`).

    Raises PipelineError where two have one name: one of them would be overlooked.
    """
    images = [entry for entry in entries if not entry.artifact_type]
    found = {image.annotations.get(_TITLE, ""): image.digest for image in images}
    if len(found) != len(images):
        raise PipelineError("the release has two images of one name; do not use it")
    return found


def package_of(registry: Source, home: str, entries: Sequence[oci.Descriptor]) -> oci.Descriptor:
    """Return the file of a release's package; raises PipelineError where the registry lost it."""
    for entry in entries:
        manifest = (
            registry.get_manifest(home, entry.digest) if entry.artifact_type == PACKAGE else None
        )
        layers = parse(manifest[1], entry.digest).get("layers") if manifest else None
        if isinstance(layers, list) and len(layers) == 1:
            return oci.Descriptor.from_json(layers[0])
    raise PipelineError(f"{registry.host}/{home} lost the package of a release; publish it again")


def fetch(registry: Source, path: str, which: str) -> bytes:
    """Return the bytes of a released package; `which` and errors are those of `find`."""
    home = repository(path)
    _, entries = find(registry, path, which)
    return registry.get_blob(home, package_of(registry, home, entries))
