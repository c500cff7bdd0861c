"""The entries of a layer's blob, hashed and checked as they are read.

Format: https://github.com/opencontainers/image-spec/blob/v1.1.0/layer.md.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from isal import igzip, isal_zlib

from builder import oci
from builder.errors import BuilderError
from builder.oci import tar
from builder.oci.entry import Entry, check_path
from builder.oci.tree import RATIO_FROM, Bounds, Tree, beyond
from builder.store import Store

_CHUNK = 1 << 18
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_DAMAGED = (tarfile.TarError, OSError, EOFError, cast("type[Exception]", isal_zlib.error))


def read(store: Store, layer: oci.Layer) -> Iterator[Entry]:
    """Yield the entries of a layer in the order of its tar; contents must be read at once.

    Raises BuilderError for a missing or damaged blob, for an entry that leaves the tree, is a
    device or does not follow those before it (see `Tree.add`), for a layer that unpacks beyond
    `Bounds`, and, after the last entry, where the layer's content does not hash to its diff_id.
    """
    bounds = Bounds.read()
    source = f"layer {layer.blob.digest[:19]}"
    bring(store, layer)
    try:
        with (
            store.open_blob(layer.blob.digest) as raw,
            opened(raw, layer.blob) as stream,
        ):
            plain = _Plain(stream, os.fstat(raw.fileno()).st_size, bounds, source)
            tree = Tree(source, bounds)
            with tarfile.open(
                fileobj=cast("BinaryIO", plain), mode="r|", bufsize=_CHUNK, tarinfo=tar.Header
            ) as archive:
                while (member := archive.next()) is not None:
                    cast("Any", archive).members.clear()  # else memory grows with the layer
                    if member.name not in (".", "./", "/"):
                        yield tree.add(_entry(archive, member, source))
            plain.drain()
    except _DAMAGED as error:
        store.verify(layer.blob.digest)  # a blob that rotted is removed and named
        raise BuilderError(f"{source} cannot be unpacked ({error})") from error
    if plain.digest() != layer.diff_id:
        store.verify(layer.blob.digest)
        raise BuilderError(
            f"{source} is not what its image's config says: the diff_id there is {layer.diff_id}, "
            f"the content hashes to {plain.digest()}; the image was made wrongly or to deceive, "
            "so use another"
        )


def bring(store: Store, layer: oci.Layer) -> None:
    """Fetch the layer's blob where the store lacks it; raises BuilderError where that fails."""
    from builder.registry import pull  # httpx costs time, and most layers are here

    pull.bring(store, layer.blob)


def opened(raw: BinaryIO, blob: oci.Descriptor) -> BinaryIO:
    """Return the tar that the layer `blob` holds; `raw` is its bytes, which raise if damaged."""
    if blob.media_type == oci.ZSTD_LAYER:
        from builder.oci import zstd  # costs time, and most layers are gzip

        return zstd.opened(raw)
    return cast("BinaryIO", igzip.open(raw, "rb"))  # type: ignore[no-untyped-call]


class _Plain:
    """The uncompressed layer: hashed, and bounded, as it is read."""

    def __init__(self, stream: BinaryIO, compressed: int, bounds: Bounds, source: str) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self._size = 0
        self._source = source
        self._total = bounds.total
        self._expanded = max(RATIO_FROM, bounds.ratio * compressed)
        self._ratio = bounds.ratio

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._hash.update(data)
        self._size += len(data)
        if self._size > min(self._total, self._expanded):
            if self._expanded < self._total:
                raise beyond(self._source, f"{self._ratio} times its size", "ratio")
            raise beyond(self._source, f"{self._total} bytes", "total")
        return data

    def drain(self) -> None:
        while self.read(_CHUNK):
            pass

    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo, source: str) -> Entry:
    name = check_path(member.name.removeprefix("./"), source)
    owner = (member.uid, member.gid)
    mode = member.mode & 0o7777
    folder, last = posixpath.split(name)
    if last == _OPAQUE:
        return Entry(folder, "opaque")
    if last.startswith(_WHITEOUT):
        gone = posixpath.join(folder, last.removeprefix(_WHITEOUT))
        if check_path(gone, source) != gone:
            raise BuilderError(f"{source}: refused the entry {name!r}: it deletes no name")
        return Entry(gone, "whiteout")
    if member.isdir():
        return Entry(name, "dir", mode, *owner)
    if member.issym():
        return Entry(name, "symlink", 0o777, *owner, target=_target(member, source))
    if member.islnk():
        return Entry(name, "hardlink", mode, *owner, target=check_path(member.linkname, source))
    if not member.isreg():
        raise BuilderError(f"{source}: refused the entry {name}: a device or other special file")
    stream = archive.extractfile(member)
    assert stream is not None
    return Entry(
        name, "file", mode, *owner, content=lambda: cast("BinaryIO", stream), size=member.size
    )


def _target(member: tarfile.TarInfo, source: str) -> str:
    """Return where a symbolic link points; it is written as it is, and never followed."""
    try:
        if member.linkname and len(member.linkname.encode()) < 4096:
            return member.linkname
        why = "it points nowhere, or further than a disk can say"
    except UnicodeEncodeError:
        why = "where it points is not UTF-8"
    raise BuilderError(f"{source}: refused the link {member.name[:60]!r}: {why}")
