"""The entries of a layer's blob, hashed and checked as they are read.

Format: https://github.com/opencontainers/image-spec/blob/v1.1.0/layer.md.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import tarfile
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from queue import SimpleQueue
from typing import Any, BinaryIO, Self, cast

from isal import igzip, isal_zlib

from builder import oci
from builder.errors import BuilderError
from builder.oci import tar
from builder.oci.entry import Entry, check_path
from builder.oci.tree import RATIO_FROM, Bounds, Tree, beyond
from builder.store import Store

# What is unpacked and hashed at a time, and how many pieces of it at most before they are read.
_CHUNK = 1 << 18
_AHEAD = 16
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_DAMAGED = (tarfile.TarError, OSError, EOFError, cast("type[Exception]", isal_zlib.error))


def read(store: Store, layer: oci.Layer) -> Generator[Entry, None, None]:
    """Yield the entries of a layer in the order of its tar; contents must be read at once.

    Raises BuilderError for a missing or damaged blob, for an entry that leaves the tree, is a
    device or does not follow those before it (see `Tree.add`), for a layer that unpacks beyond
    `Bounds`, and, after the last entry, where the layer's content does not hash to its diff_id.
    """
    bounds = Bounds.read()
    damaged = partial(_damaged, store, layer)
    source = f"layer {layer.blob.digest[:19]}"
    bring(store, layer)
    try:
        with (
            store.open_blob(layer.blob.digest) as raw,
            opened(raw, layer.blob) as stream,
            closing(_Plain(stream, os.fstat(raw.fileno()).st_size, bounds, source)) as plain,
        ):
            tree = Tree(source, bounds)
            with tarfile.TarFile(fileobj=cast("BinaryIO", plain), tarinfo=tar.Header) as archive:
                while (member := archive.next()) is not None:
                    cast("Any", archive).members.clear()  # else memory grows with the layer
                    if member.name not in (".", "./", "/"):
                        yield tree.add(_entry(plain, member, source, damaged))
            found = plain.digest()
    except _DAMAGED as error:
        raise damaged(error) from error
    if found != layer.diff_id:
        store.verify(layer.blob.digest)
        raise BuilderError(
            f"{source} is not what its image's config says: the diff_id there is {layer.diff_id}, "
            f"the content hashes to {found}; the image was made wrongly or to deceive, "
            "so use another"
        )


def _damaged(store: Store, layer: oci.Layer, error: Exception) -> BuilderError:
    """Return the error for a layer that cannot be read; a blob that rotted is removed and named."""
    store.verify(layer.blob.digest)
    return BuilderError(f"layer {layer.blob.digest[:19]} cannot be unpacked ({error})")


def bring(store: Store, layer: oci.Layer) -> None:
    """Fetch the layer's blob where the store lacks it; raises BuilderError where that fails."""
    from builder.registry import pull  # costs time, and most layers are here

    pull.bring(store, layer.blob)


def opened(raw: BinaryIO, blob: oci.Descriptor) -> BinaryIO:
    """Return the tar that the layer `blob` holds; `raw` is its bytes, which raise if damaged."""
    if blob.media_type == oci.ZSTD_LAYER:
        from builder.oci import zstd  # costs time, and most layers are gzip

        return zstd.opened(raw)
    return cast("BinaryIO", igzip.open(raw, "rb"))  # type: ignore[no-untyped-call]


class _Plain:
    """The uncompressed layer, read forwards; a thread unpacks, hashes and bounds it a bit ahead.

    Both give the interpreter's lock away, so that meanwhile another thread writes what has come.
    """

    def __init__(self, stream: BinaryIO, compressed: int, bounds: Bounds, source: str) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self._source = source
        self._bounds = bounds
        self._expanded = max(RATIO_FROM, bounds.ratio * compressed)
        self._pieces: SimpleQueue[bytes | Exception] = SimpleQueue()
        self._room = threading.Semaphore(_AHEAD)
        self._closed = False
        # The piece that is being read, where in it, and where it begins in the layer.
        self._piece, self._at, self._begin = b"", 0, 0
        self._thread = threading.Thread(target=self._read_ahead, name="unpacking", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._room.release()
        self._thread.join()

    def _read_ahead(self) -> None:
        size = 0
        try:
            while self._room.acquire() and not self._closed:
                piece = self._stream.read(_CHUNK)
                self._hash.update(piece)
                size += len(piece)
                self._check(size)
                self._pieces.put(piece)
                if not piece:
                    break
        except Exception as error:  # noqa: BLE001 - raised where the layer is read
            self._pieces.put(error)

    def _check(self, size: int) -> None:
        if size > min(self._bounds.total, self._expanded):
            if self._expanded < self._bounds.total:
                raise beyond(self._source, f"{self._bounds.ratio} times its size", "ratio")
            raise beyond(self._source, f"{self._bounds.total} bytes", "total")

    def _next(self) -> bool:
        """Go on to the next piece; raise what ended the thread; tell whether there is one."""
        found = self._pieces.get()
        if isinstance(found, Exception) or not found:
            self._pieces.put(found)  # whoever asks again gets the same
        if isinstance(found, Exception):
            raise found
        if found:
            self._begin += len(self._piece)
            self._piece, self._at = found, 0
            self._room.release()
        return bool(found)

    def tell(self) -> int:
        return self._begin + self._at

    def read(self, size: int) -> bytes:
        """Return `size` bytes, fewer at the end only."""
        end = self._at + size
        if end <= len(self._piece):
            found, self._at = self._piece[self._at : end], end
            return found
        pieces = [self._piece[self._at :]]
        missing = size - len(pieces[0])
        self._at = len(self._piece)
        while missing and self._next():
            pieces.append(self._piece[:missing])
            self._at = len(pieces[-1])
            missing -= self._at
        return b"".join(pieces)

    def seek(self, position: int) -> None:
        """Leave out what is before `position`; raises TarError where that is behind."""
        if position < self.tell():
            raise tarfile.StreamError("a layer is read in the order of its entries")
        while position > self._begin + len(self._piece) and self._next():
            pass
        self._at = min(position - self._begin, len(self._piece))

    def digest(self) -> str:
        """Return the digest of the whole layer, having read what is left of it."""
        while self._next():
            pass
        return "sha256:" + self._hash.hexdigest()


class _Content:
    """A file's bytes in the layer, to be read before the entries that follow."""

    def __init__(
        self, plain: _Plain, begin: int, size: int, damaged: Callable[[Exception], BuilderError]
    ) -> None:
        self._plain, self._at, self._left = plain, begin, size
        self._damaged = damaged

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, size: int = -1) -> bytes:
        size = self._left if size < 0 else min(size, self._left)
        try:
            self._plain.seek(self._at)
            data = self._plain.read(size)
            if len(data) < size:
                raise tarfile.ReadError("unexpected end of data")
        except _DAMAGED as error:
            raise self._damaged(error) from error
        self._at += size
        self._left -= size
        return data


def _entry(
    plain: _Plain,
    member: tarfile.TarInfo,
    source: str,
    damaged: Callable[[Exception], BuilderError],
) -> Entry:
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
    if member.size < 0:
        raise BuilderError(f"{source}: refused the entry {name}: its size is negative")
    content = partial(_Content, plain, member.offset_data, member.size, damaged)
    return Entry(
        name, "file", mode, *owner, content=cast("Callable[[], BinaryIO]", content),
        size=member.size,
    )  # fmt: skip


def _target(member: tarfile.TarInfo, source: str) -> str:
    """Return where a symbolic link points; it is written as it is, and never followed."""
    try:
        if member.linkname and len(member.linkname.encode()) < 4096:
            return member.linkname
        why = "it points nowhere, or further than a disk can say"
    except UnicodeEncodeError:
        why = "where it points is not UTF-8"
    raise BuilderError(f"{source}: refused the link {member.name[:60]!r}: {why}")
