"""The one place that writes tar headers, and the one that compresses."""

from __future__ import annotations

import hashlib
import struct
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO, cast

from isal import igzip, isal_zlib

from builder import oci
from builder.errors import BuilderError
from builder.oci.entry import Entry, arrange

# 2020-01-01T00:00:00Z: later than what zip files can say, the same for everyone.
EPOCH = 1577836800
# isal's level 3 depends on the processor; levels 1 and 2 give the same bytes everywhere.
LEVEL = 2
# What a layer's key names, so that a change here changes every key.
FORMAT = "tar-pax-1+isal-2+spliced-1"
_CHUNK = 1 << 20
_IsalError = cast("type[Exception]", isal_zlib.error)
# A file of this many bytes or more that an archive holds deflated goes into the layer as it is.
SPLICE = 4096
# Deflate, no flags, no time, no level, unknown system: RFC 1952, section 2.3.
_MEMBER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_TYPES = {
    "file": tarfile.REGTYPE,
    "dir": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
}


class _Digest:
    """Passes bytes on to a stream while it hashes and counts them."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        self._sink.write(data)
        return len(data)

    def flush(self) -> None:
        self._sink.flush()

    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()


def header(entry: Entry, size: int, mtime: int = EPOCH) -> tarfile.TarInfo:
    """Return the tar header of `entry`: numeric owner, no user names, the given time."""
    info = tarfile.TarInfo(entry.path)
    info.type = _TYPES[entry.kind]
    info.mode, info.uid, info.gid, info.mtime = entry.mode, entry.uid, entry.gid, mtime
    info.linkname = entry.target
    info.size = size if entry.kind == "file" else 0
    return info


class _Compressor:
    """Hashes what a layer holds and writes it as gzip members to a sink.

    What an archive holds deflated becomes a member of its own, its bytes unchanged: nothing is
    compressed a second time, and the archive's publisher has had more patience than a build has.
    """

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._hash = hashlib.sha256()
        self._member: Any = None

    def write(self, data: bytes) -> int:
        if self._member is None:
            self._member = igzip.GzipFile(  # type: ignore[no-untyped-call]
                filename="", mode="wb", compresslevel=LEVEL, fileobj=self._sink, mtime=0
            )
        self._hash.update(data)
        self._member.write(data)
        return len(data)

    def splice(self, raw: BinaryIO, path: str, size: int) -> None:
        """Write a raw DEFLATE stream of `size` plain bytes; raises BuilderError for another."""
        self.close()
        self._sink.write(_MEMBER)
        inflate = isal_zlib.decompressobj(wbits=-15)
        crc, seen = 0, 0
        with suppress(_IsalError):  # then it has not come to its end
            for plain in self._copy(raw, inflate):
                crc, seen = isal_zlib.crc32(plain, crc), seen + len(plain)
                self._hash.update(plain)
        if not inflate.eof or inflate.unused_data or raw.read(1) or seen != size:
            raise BuilderError(f"{path}: its archive does not hold the {size} bytes it promises")
        self._sink.write(struct.pack("<II", crc, size & 0xFFFFFFFF))

    def _copy(self, raw: BinaryIO, inflate: Any) -> Iterator[bytes]:
        """Copy `raw` to the sink, and yield what it inflates to in pieces of bounded size."""
        while not inflate.eof and (chunk := raw.read(_CHUNK)):
            self._sink.write(chunk)
            plain = inflate.decompress(chunk, _CHUNK)
            while plain:
                yield plain
                plain = b"" if inflate.eof else inflate.decompress(inflate.unconsumed_tail, _CHUNK)

    def close(self) -> None:
        """End the member that is being written."""
        if self._member is not None:
            self._member.close()
            self._member = None

    def digest(self) -> str:
        """Return the digest of the plain bytes."""
        return "sha256:" + self._hash.hexdigest()


def write_tar(entries: Iterable[Entry], sink: BinaryIO | _Compressor, mtime: int = EPOCH) -> None:
    """Write `entries` to `sink` as an uncompressed pax tar, sorted, parents first.

    Raises BuilderError where a file changes its size while it is read.
    """
    for entry in arrange(entries):
        if entry.kind != "file":
            sink.write(header(entry, 0, mtime).tobuf(tarfile.PAX_FORMAT))
            continue
        if isinstance(sink, _Compressor) and entry.deflated and (entry.size or 0) >= SPLICE:
            size = cast("int", entry.size)
            sink.write(header(entry, size, mtime).tobuf(tarfile.PAX_FORMAT))
            with entry.deflated() as raw:
                sink.splice(raw, entry.path, size)
        else:
            size = _write_file(entry, sink, mtime)
        sink.write(b"\0" * (-size % tarfile.BLOCKSIZE))
    sink.write(b"\0" * (2 * tarfile.BLOCKSIZE))


def _write_file(entry: Entry, sink: BinaryIO | _Compressor, mtime: int) -> int:
    """Write a file's header and content, and return its size."""
    with entry.open() as content:
        size = entry.size
        if size is None:
            size = content.seek(0, 2)
            content.seek(0)
        sink.write(header(entry, size, mtime).tobuf(tarfile.PAX_FORMAT))
        written = 0
        while chunk := content.read(min(_CHUNK, size - written + 1)):
            written += len(chunk)
            if written > size:
                break
            sink.write(chunk)
    if written != size:
        raise BuilderError(
            f"{entry.path}: the file changed from {size} bytes while it was read; "
            "build again when nothing writes to it"
        )
    return size


def write_layer(
    entries: Iterable[Entry], sink: BinaryIO, *, created_by: str = "", mtime: int = EPOCH
) -> oci.Layer:
    """Write `entries` to `sink` as a compressed layer and return its description.

    One pass: the tar is hashed and compressed as it is written; memory does not grow with its size.
    """
    compressed = _Digest(sink)
    plain = _Compressor(cast("BinaryIO", compressed))
    write_tar(entries, plain, mtime)
    plain.close()
    blob = oci.Descriptor(media_type=oci.LAYER, digest=compressed.digest(), size=compressed.size)
    return oci.Layer(diff_id=plain.digest(), blob=blob, created_by=created_by)
