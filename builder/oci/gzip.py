"""Gzip whose bytes follow from the plain bytes alone: not from how they came, nor from the host.

isal's output depends on the pieces it is fed, and `GzipFile` cuts them in another way in every
Python. So they are cut here. Source of the format: RFC 1952, section 2.3.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import BinaryIO, cast

import isal
from isal import isal_zlib

from builder.errors import BuilderError

# isal's level 3 depends on the processor; levels 1 and 2 give the same bytes everywhere.
LEVEL = 2
# Bytes that the compressor is fed at a time; the last piece of a member is what is left.
PIECE = 1 << 18
# What a layer's key names, so that a change here changes every key.
FORMAT = "isal-2+pieces-1+spliced-1"
# What the pinned isal makes of the sample below.
_SAMPLE = "65258797"
_CHUNK = 1 << 20
# Deflate, no flags, no time, no level, unknown system.
_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_IsalError = cast("type[Exception]", isal_zlib.error)


class Gzip:
    """Hashes plain bytes and writes them as gzip members to `sink`.

    What an archive holds deflated becomes a member of its own, its bytes unchanged: nothing is
    compressed a second time, and the archive's publisher has had more patience than a build has.
    """

    def __init__(self, sink: BinaryIO) -> None:
        """Raise BuilderError where the isal library is not the one that is pinned."""
        check()
        self._sink = sink
        self._hash = hashlib.sha256()
        self._member: _Member | None = None

    def write(self, data: bytes) -> int:
        """Take plain bytes; in how many writes they come makes no difference."""
        if self._member is None:
            self._member = _Member(self._sink)
        self._hash.update(data)
        self._member.write(data)
        return len(data)

    def splice(self, raw: BinaryIO, path: str, size: int) -> Iterator[bytes]:
        """Write a raw DEFLATE stream of `size` plain bytes, and yield these as they pass.

        Raises BuilderError for another stream.
        """
        self.close()
        self._sink.write(_HEADER)
        crc = 0
        for plain in inflated(raw, path, size, self._sink.write):
            crc = isal_zlib.crc32(plain, crc)
            self._hash.update(plain)
            yield plain
        self._sink.write(_trailer(crc, size))

    def close(self) -> None:
        """End the member that is being written."""
        if self._member is not None:
            self._member.close()
            self._member = None

    def digest(self) -> str:
        """Return the digest of the plain bytes."""
        return "sha256:" + self._hash.hexdigest()


class _Member:
    """One gzip member, compressed in pieces of `PIECE` bytes."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._compressor = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, -15)
        self._waiting = bytearray()
        self._crc = self._size = 0
        sink.write(_HEADER)

    def write(self, data: bytes) -> None:
        self._waiting += data
        if len(self._waiting) < PIECE:
            return
        whole = len(self._waiting) // PIECE * PIECE
        with memoryview(self._waiting) as view:
            for start in range(0, whole, PIECE):
                self._feed(view[start : start + PIECE])
        del self._waiting[:whole]

    def _feed(self, piece: bytearray | memoryview) -> None:
        self._crc = isal_zlib.crc32(piece, self._crc)
        self._size += len(piece)
        self._sink.write(self._compressor.compress(piece))

    def close(self) -> None:
        self._feed(self._waiting)
        self._sink.write(self._compressor.flush())
        self._sink.write(_trailer(self._crc, self._size))


def inflated(
    raw: BinaryIO, path: str, size: int, copy: Callable[[bytes], object] = lambda _: None
) -> Iterator[bytes]:
    """Yield what a raw DEFLATE stream holds, in pieces of bounded size; `copy` takes its own bytes.

    Raises BuilderError, naming `path`, where it does not hold `size` bytes or something follows it.
    """
    inflate = isal_zlib.decompressobj(wbits=-15)
    seen = 0
    with suppress(_IsalError):  # then it has not come to its end
        while not inflate.eof and (chunk := raw.read(_CHUNK)):
            copy(chunk)
            plain = inflate.decompress(chunk, _CHUNK)
            while plain:
                seen += len(plain)
                yield plain
                plain = b"" if inflate.eof else inflate.decompress(inflate.unconsumed_tail, _CHUNK)
    if not inflate.eof or inflate.unused_data or raw.read(1) or seen != size:
        raise BuilderError(f"{path}: its archive does not hold the {size} bytes it promises")


def _trailer(crc: int, size: int) -> bytes:
    return struct.pack("<II", crc, size & 0xFFFFFFFF)


@functools.cache
def check() -> None:
    """Raise BuilderError where the isal library here gives other bytes than the pinned one."""
    found = hashlib.sha256(_compressed_sample()).hexdigest()
    if not found.startswith(_SAMPLE):
        raise BuilderError(
            f"isal {isal.__version__} ({isal.__file__}) does not compress as the pinned one does: "
            "every digest would be another; install what requirements.lock pins (`./invoke` does)"
        )


def sample() -> bytes:
    """Return some of each: what repeats, what is like text, and what cannot be compressed."""
    noise = hashlib.shake_256(b"").digest(1 << 17)
    return noise + bytes(PIECE) + noise.hex().encode() + str([*range(9999)]).encode()


def _compressed_sample() -> bytes:
    plain = sample()
    compressor = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, -15)
    pieces = (plain[start : start + PIECE] for start in range(0, len(plain), PIECE))
    return b"".join(map(compressor.compress, pieces)) + compressor.flush()
