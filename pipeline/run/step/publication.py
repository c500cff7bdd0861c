"""What a step publishes to this machine's store: written to a store of its own, checked, imported.

No step can write to the store of the machine, which other builds believe.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder import oci
from builder.errors import BuilderError
from builder.oci import canonical
from builder.oci.reference import Reference
from builder.sandbox.process import Mount
from builder.store import Store, origins, roots
from pipeline.run import beneath
from pipeline.run.beneath import Refused
from pipeline.spec.documents import load_json

_LENT = "lent"  # the folder of a step's store in which it sees blobs of the machine's
_DOCUMENT = 4 * 1024 * 1024  # bytes of a manifest, as registries limit it


def targets(parameters: Mapping[str, Any]) -> frozenset[str]:
    """Return the repositories of the local store that a step's parameters name: localhost/…."""
    return frozenset(
        f"{found.host}/{found.repository}"
        for found in _references(parameters)
        if found.local and not found.digest
    )


def pins(parameters: Mapping[str, Any]) -> bool:
    """Return whether a step's parameters pin an image of the local store: localhost/…@sha256:…."""
    return any(found.local and found.digest for found in _references(parameters))


def _references(parameters: Mapping[str, Any]) -> Iterator[Reference]:
    for value in parameters.values():
        if isinstance(value, str):
            try:
                yield Reference.parse(value)
            except BuilderError:
                continue


@dataclass(frozen=True)
class Publication:
    """A store at `folder` for one step, whose `names` may be imported into `store`.

    `lent` are the blobs of the machine's store that the step sees there, read-only.
    """

    store: Store
    folder: Path
    names: frozenset[str]
    lent: tuple[str, ...]

    @staticmethod
    def open(store: Store, folder: Path, parameters: Mapping[str, Any]) -> Publication:
        """Return the publication of a step with `parameters`.

        Lent are the images that a parameter pins, and what the targets hold now. Raises
        BuilderError where a layer cannot be brought from its registry.
        """
        names = targets(parameters)
        kept = roots.kept(store)
        digests = {found.digest for found in _references(parameters) if found.digest}
        digests |= {kept[name].digest for name in names if name in kept}
        lent = [digest for manifest in sorted(digests) for digest in _blobs(store, manifest)]
        return Publication(store, folder, names, tuple(dict.fromkeys(lent)))

    def renew(self) -> None:
        """Make the step's store, empty, for another attempt."""
        self.folder.mkdir(exist_ok=True)
        beneath.empty(self.folder)
        own = Store.open(self.folder)
        (self.folder / _LENT).mkdir()
        for digest in self.lent:
            # A link, since nothing can be renamed onto a mounted file, which a step does that makes
            # the same blob again.
            own.path(digest).symlink_to(f"../../{_LENT}/{_hex(digest)}")
            (self.folder / _LENT / _hex(digest)).touch()  # the place to mount the blob at

    def mounts(self, target: str) -> list[Mount]:
        """Return the step's store at `target`, writable, and the lent blobs in it, read-only."""
        own = [Mount(self.folder, target, writable=True)]
        return own + [
            Mount(self.store.path(digest), f"{target}/{_LENT}/{_hex(digest)}")
            for digest in self.lent
        ]

    def holds(self, published: Mapping[str, str]) -> bool:
        """Tell whether the machine's store holds all that was `published`: name -> digest.

        What the store keeps under a name is whole; layers may be in a registry that it knows.
        """
        kept = roots.kept(self.store)
        return all(
            name in kept
            and kept[name].digest == digest
            and all(
                self.store.has(blob) or origins.of(self.store, blob)
                for blob in _named(self.store, digest)
            )
            for name, digest in published.items()
        )

    def take(self) -> dict[str, str]:
        """Import what the step published, each blob checked against its digest; remove the rest.

        Return name -> digest.

        Only manifests and what they name are taken: no results of builds. Raises Refused, before
        any name of the store changes, for a name that no parameter gave and for what is damaged.
        """
        found = self._index()
        for name, descriptor in found.items():
            if name not in self.names:
                raise Refused(
                    f"it published {name!r}, which none of its parameters names "
                    f"({', '.join(sorted(self.names))})"
                )
            self._take_manifest(descriptor)
        for name, descriptor in found.items():
            roots.keep(self.store, name, descriptor)
        self.remove()
        return {name: descriptor.digest for name, descriptor in found.items()}

    def remove(self) -> None:
        """Remove the step's store."""
        if self.folder.exists():
            beneath.empty(self.folder)
            self.folder.rmdir()

    def _index(self) -> dict[str, oci.Descriptor]:
        # `roots` reads a store by its path; what a step made is read without following links.
        try:
            data = beneath.read(self.folder, "index.json", _DOCUMENT)
        except FileNotFoundError:
            return {}
        entries = _json(data, "the index of what it published")["manifests"]
        found = {}
        for entry in entries:
            descriptor = oci.Descriptor.from_json(entry)
            name = descriptor.annotations.get("org.opencontainers.image.ref.name", "")
            found[name] = oci.Descriptor(
                media_type=descriptor.media_type, digest=descriptor.digest, size=descriptor.size,
                artifact_type=descriptor.artifact_type,
            )  # fmt: skip
        return found

    def _take_manifest(self, descriptor: oci.Descriptor, *, within: bool = False) -> None:
        if not self.store.has(descriptor):
            data = beneath.read(self.folder, _place(descriptor.digest), _DOCUMENT)
            if canonical.sha256(data) != descriptor.digest:
                raise Refused(f"it published {descriptor.digest}, whose content is another")
        else:
            data = self.store.read(descriptor.digest)
        document = _json(data, f"the manifest {descriptor.digest} that it published")
        if "manifests" in document:
            if within or not isinstance(document["manifests"], list):
                raise Refused(f"it published {descriptor.digest}, an index of something else")
            for entry in document["manifests"]:
                self._take_manifest(oci.Descriptor.from_json(entry), within=True)
            self.store.add(data)
            return
        for entry in [document["config"], *document["layers"]]:
            self._take_blob(oci.Descriptor.from_json(entry))
        if document["config"].get("mediaType") == oci.CONFIG:
            oci.parse(data, self.store.read(document["config"]["digest"]))
        self.store.add(data)

    def _take_blob(self, blob: oci.Descriptor) -> None:
        if self.store.has(blob):
            return
        seen, left = hashlib.sha256(), blob.size
        try:
            with (
                beneath.opened(self.folder, _place(blob.digest)) as source,
                self.store.writing() as (stream, keep),
            ):
                while chunk := source.read(min(1 << 20, left + 1)):
                    left -= len(chunk)
                    seen.update(chunk)
                    stream.write(chunk)
                    if left < 0:
                        break
                if left or seen.hexdigest() != blob.digest.partition(":")[2]:
                    raise Refused(f"it published the blob {blob.digest}, whose content is another")
                keep(blob.digest)
        except FileNotFoundError:
            raise Refused(f"it published a manifest without its blob {blob.digest}") from None


def _blobs(store: Store, manifest: str) -> list[str]:
    """Return a manifest of the store and all it names, layers brought there; [] if it has none."""
    from builder.registry import pull  # costs time

    try:
        document = json.loads(store.read(manifest))
        if "manifests" in document:
            images = [oci.Descriptor.from_json(entry).digest for entry in document["manifests"]]
            return [manifest, *(digest for image in images for digest in _blobs(store, image))]
        found = _named(store, manifest)
    except (BuilderError, KeyError, TypeError):
        return []  # the step says itself what it lacks
    return [manifest, *(blob.digest for blob in found if pull.bring(store, blob))]


def _named(store: Store, manifest: str) -> list[oci.Descriptor]:
    """Return what a manifest of the store names; of an index also what its images name."""
    document = json.loads(store.read(manifest))
    if "manifests" in document:
        images = [oci.Descriptor.from_json(entry) for entry in document["manifests"]]
        return [*images, *(blob for image in images for blob in _named(store, image.digest))]
    return [oci.Descriptor.from_json(entry) for entry in [document["config"], *document["layers"]]]


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _place(digest: str) -> str:
    return f"blobs/sha256/{_hex(digest)}"


def _json(data: bytes, what: str) -> dict[str, Any]:
    document = load_json(data, what)
    if not isinstance(document, dict):
        raise Refused(f"{what} is not a JSON object")
    return document
