"""An OCI image layout as one tar: written whole or not at all, and read as a registry is.

Format: https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md. `index.json` comes
last, so that a tar which was cut short has none. It names what has a tag, whatever refers to
something, and, as tools without an index of subjects look for it, the list of referrers under the
tag `sha256-<hex>`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from builder import oci
from builder.errors import BuilderError
from builder.mirror.graph import Document, Graph
from builder.oci import canonical, tar
from builder.oci.reference import Reference
from builder.registry.artifacts import fallback_tag
from builder.registry.http import LARGEST, parse, shown
from builder.store import Store

_NAME = "org.opencontainers.image.ref.name"
_CHUNK = 1 << 20
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_MARKER = b'{"imageLayoutVersion":"1.0.0"}'
_MOST = 100_000
_AGAIN = "copy the file again from where it was made"


@dataclass(frozen=True, slots=True)
class Part:
    """What one repository gives to a layout: its graph, and tags with their digests.

    `prefix` goes before the names of its tags; two repositories may have one tag for two things.
    """

    graph: Graph
    tags: Mapping[str, str]
    prefix: str = ""


def write(path: Path, store: Store, parts: Sequence[Part]) -> int:
    """Write a layout of `parts`, all of whose blobs the store has, and return its bytes.

    The same parts give the same bytes. The file gets its name when it is whole. Raises BuilderError
    where it cannot be written, or a blob of the store is missing or damaged.
    """
    documents = {d: found for part in parts for d, found in part.graph.documents.items()}
    blobs = {d: blob for part in parts for d, blob in part.graph.blobs.items()}
    index, lists = _index(parts, documents)
    contents = {found.descriptor.digest: found.data for found in (*documents.values(), *lists)}
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                _member(stream, "oci-layout", _MARKER)
                for digest in sorted({*blobs, *contents}):
                    place = f"blobs/sha256/{digest.removeprefix('sha256:')}"
                    if digest in contents:
                        _member(stream, place, contents[digest])
                    else:
                        _head(stream, place, blobs[digest].size)
                        with store.open_blob(digest) as source:
                            while chunk := source.read(_CHUNK):
                                stream.write(chunk)
                        stream.write(tar.pad(blobs[digest].size))
                _member(stream, "index.json", index)
                stream.write(bytes(2 * tar.BLOCK))
                size = stream.tell()
                stream.flush()
                os.fchmod(stream.fileno(), 0o644)
                os.fsync(stream.fileno())
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise BuilderError(
            f"writing {path} failed ({error.strerror or error}); nothing was left there: free some "
            "space, or name another place"
        ) from None
    return size


def _index(
    parts: Sequence[Part], documents: Mapping[str, Document]
) -> tuple[bytes, list[Document]]:
    """Return `index.json`, and the lists of referrers that it names."""
    entries = [
        replace(documents[digest].descriptor, annotations={_NAME: part.prefix + tag})
        for part in parts
        for tag, digest in {**part.graph.tags, **part.tags}.items()
    ]
    referrers: dict[str, list[oci.Descriptor]] = {}
    for document in documents.values():
        if document.subject:
            entries.append(replace(document.descriptor, annotations={}))
            referrers.setdefault(document.subject, []).append(document.descriptor)
    lists = []
    for subject, found in referrers.items():
        data = _document(found)
        described = oci.describe(oci.INDEX, data)
        lists.append(Document(described, data))
        entries.append(replace(described, annotations={_NAME: fallback_tag(subject)}))
    return _document(entries), lists


def _document(entries: Sequence[oci.Descriptor]) -> bytes:
    listed = sorted((entry.to_json() for entry in entries), key=canonical.dumps)
    return canonical.dumps({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": listed})


def _member(stream: BinaryIO, name: str, data: bytes) -> None:
    _head(stream, name, len(data))
    stream.write(data + tar.pad(len(data)))


def _head(stream: BinaryIO, name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    stream.write(tar.encode(info))


class Layout:
    """A layout in a tar, open to be read (a `Source`); threads may share it.

    A repository's name is the prefix of its tags, where the layout has one. Every document and
    blob is checked against its digest when it is read.
    """

    def __init__(self, path: Path) -> None:
        self.host = str(path)
        try:
            self._file = path.open("rb")
            self._places = dict(_members(self._file, self.host))
        except OSError as error:
            raise BuilderError(f"reading {path} failed ({error.strerror or error})") from None
        index = parse(self._document("index.json"), f"index.json of {path}")
        listed = index.get("manifests")
        entries = [
            oci.Descriptor.from_json(entry, f"index.json of {path}")
            for entry in (listed if isinstance(listed, list) else [])
        ]
        self.named = {e.annotations[_NAME]: e for e in entries if _NAME in e.annotations}
        self._referrers: dict[str, list[oci.Descriptor]] = {}
        for entry in {entry.digest: entry for entry in entries}.values():
            self._note(entry)

    def _note(self, entry: oci.Descriptor) -> None:
        document = parse(self.read(entry.digest, LARGEST), f"{self.host}: {entry.digest}")
        if subject := document.get("subject"):
            about = oci.Descriptor.from_json(subject, entry.digest).digest
            kind = document.get("artifactType") or (document.get("config") or {}).get("mediaType")
            described = replace(
                entry, artifact_type=str(kind or ""), annotations=document.get("annotations") or {}
            )
            self._referrers.setdefault(about, []).append(described)

    def at(self, host: str) -> Layout:  # noqa: ARG002
        """Return this layout, which has things by digest, in the place of a registry."""
        return self

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def get_manifest(self, repository: str, reference: str) -> tuple[oci.Descriptor, bytes] | None:
        """Return a manifest by tag or digest with its bytes, or None."""
        digest = reference
        if not oci.is_digest(reference):
            named = self.named.get(f"{repository}/{reference}") or self.named.get(reference)
            if named is None:
                return None
            digest = named.digest
        if _place(digest) not in self._places:
            return None
        data = self.read(digest, LARGEST)
        kind = parse(data, f"{self.host}: {digest}").get("mediaType") or oci.MANIFEST
        return oci.Descriptor(media_type=shown(kind), digest=digest, size=len(data)), data

    def referrers(self, repository: str, digest: str) -> list[oci.Descriptor]:  # noqa: ARG002
        """Return what refers to `digest`."""
        return list(self._referrers.get(digest, ()))

    def tags(self, repository: str) -> list[str]:
        """Return the names that the repository has here, and those without a prefix."""
        own = {name.removeprefix(f"{repository}/") for name in self.named}
        return sorted(name for name in own if "/" not in name)

    def resolve(self, reference: Reference) -> Reference:
        """Return `reference`, which must have a digest."""
        if not reference.digest:
            raise BuilderError(f"{reference} has no digest, by which {self.host} has its images")
        return reference

    def get_blob(
        self, repository: str, blob: oci.Descriptor, largest: int = LARGEST  # noqa: ARG002
    ) -> bytes:  # fmt: skip
        """Return a document of `largest` bytes at most, checked."""
        return self.read(blob.digest, largest)

    def read_blob(
        self, repository: str, blob: oci.Descriptor, sink: Callable[[bytes], object]  # noqa: ARG002
    ) -> None:  # fmt: skip
        """Stream a blob into `sink` and check it; raises BuilderError that names it."""
        seen = hashlib.sha256()
        for chunk in self._chunks(_place(blob.digest)):
            seen.update(chunk)
            sink(chunk)
        if f"sha256:{seen.hexdigest()}" != blob.digest:
            raise BuilderError(
                f"{self.host}: the blob {blob.digest} has other content (it hashes to "
                f"{seen.hexdigest()[:12]}); the file is damaged or was tampered with: {_AGAIN}"
            )

    def read(self, digest: str, largest: int) -> bytes:
        """Return a blob of `largest` bytes at most, checked; raises BuilderError that names it."""
        size = self._places.get(_place(digest), (0, 0))[1]
        if size > largest:
            raise BuilderError(f"{self.host}: {digest} has {size} bytes; a document has {largest}")
        pieces: list[bytes] = []
        self.read_blob("", oci.Descriptor(media_type="", digest=digest, size=size), pieces.append)
        return b"".join(pieces)

    def check(self) -> int:
        """Read every blob and return how many there are; raises BuilderError for a damaged one."""
        digests = [
            f"sha256:{named[1]}" for name in self._places if (named := _BLOB.fullmatch(name))
        ]
        for digest in digests:
            blob = oci.Descriptor(media_type="", digest=digest, size=0)
            self.read_blob("", blob, lambda _: None)
        return len(digests)

    def _document(self, name: str) -> bytes:
        if name not in self._places:
            last = next(reversed(self._places), "nothing")
            raise BuilderError(
                f"{self.host} has no {name}: it is no OCI image layout, or was cut short after "
                f"{shown(last, 100)}; {_AGAIN}"
            )
        if self._places[name][1] > LARGEST:
            raise BuilderError(f"{self.host}: its {name} is larger than {LARGEST} bytes")
        return b"".join(self._chunks(name))

    def _chunks(self, name: str) -> Iterator[bytes]:
        if name not in self._places:
            digest = f"sha256:{name.rpartition('/')[2]}"
            raise BuilderError(f"{self.host} lacks the blob {digest}; {_AGAIN}")
        offset, left = self._places[name]
        while left:
            chunk = os.pread(self._file.fileno(), min(_CHUNK, left), offset)
            if not chunk:
                raise BuilderError(f"{self.host} was cut short in {name}; {_AGAIN}")
            yield chunk
            offset, left = offset + len(chunk), left - len(chunk)


def _place(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _members(file: BinaryIO, name: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the path of each file of a layout's tar, and where its content begins and its bytes.

    Raises BuilderError for an entry that no layout has, and for a tar that was cut short.
    """
    whole = os.fstat(file.fileno()).st_size
    seen: set[str] = set()
    at = "its beginning"
    try:
        with tarfile.open(fileobj=file, mode="r:", tarinfo=tar.Header) as archive:
            while (member := archive.next()) is not None:
                cast("Any", archive).members.clear()
                path = member.name.removeprefix("./")
                if member.isdir():
                    continue
                if not member.isreg() or not (
                    path in ("oci-layout", "index.json") or _BLOB.fullmatch(path)
                ):
                    raise BuilderError(
                        f"{name} holds {shown(path, 80)!r}, which no OCI image layout has; it was "
                        "not read"
                    )
                if path in seen or len(seen) > _MOST:
                    raise BuilderError(f"{name} holds {path} twice, or too many files")
                if member.offset_data + member.size > whole:
                    raise BuilderError(
                        f"{name} was cut short in {path} ({whole - member.offset_data} of its "
                        f"{member.size} bytes are there); {_AGAIN}"
                    )
                seen.add(path)
                at = path
                yield path, (member.offset_data, member.size)
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise BuilderError(
            f"{name} cannot be read as a tar after {at} ({error}); {_AGAIN}"
        ) from None


def is_layout(text: str) -> bool:
    """Tell whether `text` names a layout in a tar rather than something in a registry."""
    return text.endswith(".tar")


def names(layout: Layout, artifact_type: str) -> dict[str, str]:
    """Return the digests of the named documents of one artifact type, with a name of each."""
    found: dict[str, str] = {}
    for name, entry in sorted(layout.named.items()):
        document = json.loads(layout.read(entry.digest, LARGEST))
        if document.get("artifactType") == artifact_type:
            found.setdefault(entry.digest, name)
    return found
