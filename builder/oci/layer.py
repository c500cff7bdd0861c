"""Writing layers: one function for the entries' headers, one pass for tar, hashes and gzip."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable
from typing import BinaryIO, cast

from builder import oci
from builder.errors import BuilderError
from builder.oci import gzip, tar
from builder.oci.entry import Entry, arrange

# 2020-01-01T00:00:00Z: later than what zip files can say, the same for everyone.
EPOCH = 1577836800
# What a layer's key names, so that a change here changes every key.
FORMAT = f"tar-pax-1+{gzip.FORMAT}"
# A file of this many bytes or more that an archive holds deflated goes into the layer as it is.
SPLICE = 4096
_CHUNK = 1 << 20
_TYPES = {
    "file": tarfile.REGTYPE,
    "dir": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
}


class Hashed:
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


def write_tar(entries: Iterable[Entry], sink: BinaryIO | gzip.Gzip, mtime: int = EPOCH) -> None:
    """Write `entries` to `sink` as an uncompressed pax tar, sorted, parents first.

    Raises BuilderError where a file changes its size while it is read, or is not what its archive
    promises.
    """
    for entry in arrange(entries):
        if entry.kind != "file":
            sink.write(tar.encode(header(entry, 0, mtime)))
            continue
        if isinstance(sink, gzip.Gzip) and entry.deflated and (entry.size or 0) >= SPLICE:
            size = cast("int", entry.size)
            sink.write(tar.encode(header(entry, size, mtime)))
            promised = _Promise(entry)
            with entry.deflated() as raw:
                for plain in sink.splice(raw, getattr(raw, "name", entry.path), size):
                    promised.see(plain)
            promised.check()
        else:
            size = _write_file(entry, sink, mtime)
        sink.write(tar.pad(size))
    sink.write(bytes(2 * tar.BLOCK))


def _write_file(entry: Entry, sink: BinaryIO | gzip.Gzip, mtime: int) -> int:
    """Write a file's header and content, and return its size."""
    with entry.open() as content:
        size = entry.size
        if size is None:
            size = content.seek(0, 2)
            content.seek(0)
        sink.write(tar.encode(header(entry, size, mtime)))
        written, promised = 0, _Promise(entry)
        while chunk := content.read(min(_CHUNK, size - written + 1)):
            written += len(chunk)
            if written > size:
                break
            sink.write(chunk)
            promised.see(chunk)
    if written != size:
        raise BuilderError(
            f"{entry.path}: the file changed from {size} bytes while it was read; "
            "build again when nothing writes to it"
        )
    promised.check()
    return size


class _Promise:
    """The digest that an archive promises for an entry, if it does, against what was written."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._hash = hashlib.sha256() if entry.sha256 else None

    def see(self, plain: bytes) -> None:
        if self._hash:
            self._hash.update(plain)

    def check(self) -> None:
        if self._hash and self._hash.digest() != self._entry.sha256:
            raise BuilderError(
                f"{self._entry.path}: its content is not what the RECORD of its wheel promises; "
                "ask the wheel's publisher, or pin another version"
            )


def write_layer(
    entries: Iterable[Entry], sink: BinaryIO, *, created_by: str = "", mtime: int = EPOCH
) -> oci.Layer:
    """Write `entries` to `sink` as a compressed layer and return its description.

    One pass: the tar is hashed and compressed as it is written; memory does not grow with its size.
    """
    compressed = Hashed(sink)
    plain = gzip.Gzip(cast("BinaryIO", compressed))
    write_tar(entries, plain, mtime)
    plain.close()
    blob = oci.Descriptor(media_type=oci.LAYER, digest=compressed.digest(), size=compressed.size)
    return oci.Layer(diff_id=plain.digest(), blob=blob, created_by=created_by)
