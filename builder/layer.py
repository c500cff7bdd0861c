"""The one place that writes tar headers, and the one that compresses."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable
from typing import BinaryIO, cast

from isal import igzip

from builder import oci
from builder.errors import BuilderError
from builder.tree import Entry, arrange

# 2020-01-01T00:00:00Z: later than what zip files can say, the same for everyone.
EPOCH = 1577836800
# isal's level 3 depends on the processor; levels 1 and 2 give the same bytes everywhere.
LEVEL = 2
# What a layer's key names, so that a change here changes every key.
FORMAT = "tar-pax-1+isal-2"
_CHUNK = 1 << 20
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


def write_tar(entries: Iterable[Entry], sink: BinaryIO, mtime: int = EPOCH) -> None:
    """Write `entries` to `sink` as an uncompressed pax tar, sorted, parents first.

    Raises BuilderError where a file changes its size while it is read.
    """
    for entry in arrange(entries):
        if entry.kind != "file":
            sink.write(header(entry, 0, mtime).tobuf(tarfile.PAX_FORMAT))
            continue
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
        sink.write(b"\0" * (-size % tarfile.BLOCKSIZE))
    sink.write(b"\0" * (2 * tarfile.BLOCKSIZE))


def write_layer(
    entries: Iterable[Entry], sink: BinaryIO, *, created_by: str = "", mtime: int = EPOCH
) -> oci.Layer:
    """Write `entries` to `sink` as a compressed layer and return its description.

    One pass: the tar is hashed and compressed as it is written; memory does not grow with its size.
    """
    compressed = _Digest(sink)
    stream = igzip.GzipFile(  # type: ignore[no-untyped-call]
        filename="", mode="wb", compresslevel=LEVEL, fileobj=cast("BinaryIO", compressed), mtime=0
    )
    plain = _Digest(cast("BinaryIO", stream))
    write_tar(entries, cast("BinaryIO", plain), mtime)
    stream.close()
    blob = oci.Descriptor(media_type=oci.LAYER, digest=compressed.digest(), size=compressed.size)
    return oci.Layer(diff_id=plain.digest(), blob=blob, created_by=created_by)
