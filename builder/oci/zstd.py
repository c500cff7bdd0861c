"""Zstandard whose bytes follow from the plain bytes alone: not from how they came, nor the host.

zstd promises equal output for one version only. So requirements.lock pins the library, which brings
its own zstd, and a sample is compared with what the pinned one makes; one thread, a fixed level,
pieces of one size. Source of the format: RFC 8878.
"""

from __future__ import annotations

import functools
import hashlib
from typing import BinaryIO, Self, cast

import zstandard

from builder import oci
from builder.errors import BuilderError
from builder.oci import gzip
from builder.oci.layer import Hashed

# Measured on the images here: 3 saves half as much, 9 costs half as much time again.
LEVEL = 6
# Bytes that the compressor is fed at a time; the last piece is what is left.
PIECE = 1 << 18
# What the keys of layers name, so that a change here changes every key.
FORMAT = "zstd-6+pieces-1"
# What the pinned zstandard makes of the sample below.
_SAMPLE = "b848508a"
# Bytes that a stranger's frame may make a reader keep in memory; zstd's own level 19 needs 8 MiB.
WINDOW = 1 << 27


def write_layer(plain: BinaryIO, layer: oci.Layer, sink: BinaryIO) -> oci.Layer:
    """Compress the tar of `layer`, read from `plain`, into `sink`; return that layer.

    Its diff_id is that of `layer`. Raises BuilderError where the tar is not what the diff_id says,
    and where the zstandard library is not the one that is pinned.
    """
    check()
    seen = hashlib.sha256()
    compressed = Hashed(sink)
    compressor = _compressor()
    while piece := plain.read(PIECE):
        seen.update(piece)
        compressed.write(compressor.compress(piece))
    compressed.write(compressor.flush())
    if f"sha256:{seen.hexdigest()}" != layer.diff_id:
        raise BuilderError(
            f"layer {layer.blob.digest[:19]} is not the tar that its diff_id {layer.diff_id} says; "
            "run `invoke build-images` to make it again"
        )
    blob = oci.Descriptor(
        media_type=oci.ZSTD_LAYER, digest=compressed.digest(), size=compressed.size
    )
    return oci.Layer(diff_id=layer.diff_id, blob=blob, created_by=layer.created_by)


def opened(raw: BinaryIO) -> BinaryIO:
    """Return what the frames of `raw` hold, to be read; what is no frame raises OSError when read.

    A stream that ends in the middle of a frame is not noticed here, but by its digest.
    """
    return cast("BinaryIO", _Frames(raw))


class _Source:
    """A stream that remembers what it raised, for zstandard raises an error of its own instead."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.error: Exception | None = None

    def read(self, size: int) -> bytes:
        try:
            return self._raw.read(size)
        except Exception as error:
            self.error = error
            raise


class _Frames:
    """The plain bytes of one frame after the other: those who pack in pieces write several."""

    def __init__(self, raw: BinaryIO) -> None:
        self._source = _Source(raw)
        unpack = zstandard.ZstdDecompressor(max_window_size=WINDOW)
        source = cast("BinaryIO", self._source)
        self._plain = unpack.stream_reader(source, read_across_frames=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, size: int) -> bytes:
        try:
            return self._plain.read(size)
        except zstandard.ZstdError as error:
            raise self._source.error or OSError(str(error)) from None


def _compressor() -> zstandard.ZstdCompressionObj:
    return zstandard.ZstdCompressor(level=LEVEL, write_content_size=False).compressobj()


@functools.cache
def check() -> None:
    """Raise BuilderError where the zstandard library here gives other bytes than the pinned one."""
    found = hashlib.sha256(_compressed_sample()).hexdigest()
    if not found.startswith(_SAMPLE):
        raise BuilderError(
            f"zstandard {zstandard.__version__} ({zstandard.__file__}) does not compress as the "
            "pinned one does: every digest would be another; install what requirements.lock pins "
            "(`./invoke` does), or leave --compression zstd away"
        )


def _compressed_sample() -> bytes:
    sample = gzip.sample()
    compressor = _compressor()
    pieces = (sample[start : start + PIECE] for start in range(0, len(sample), PIECE))
    return b"".join(map(compressor.compress, pieces)) + compressor.flush()
