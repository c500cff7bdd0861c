"""Layers by zstd: the same bytes wherever they are made; strangers' frames have a bound."""

from __future__ import annotations

import hashlib
import io

import pytest
import zstandard

from builder import oci
from builder.errors import BuilderError
from builder.oci import zstd

PLAIN = b"".join(hashlib.sha256(b"%d" % (n % 999)).digest() for n in range(30_000))
DIFF_ID = "sha256:" + hashlib.sha256(PLAIN).hexdigest()
SKIPPED = b"\x50\x2a\x4d\x18\4\0\0\0skip"


def layer(diff_id: str = DIFF_ID) -> oci.Layer:
    return oci.Layer(diff_id=diff_id, blob=oci.describe(oci.LAYER, b""), created_by="COPY a /a")


def test_the_bytes_are_these_on_every_host_and_hold_the_tar() -> None:
    """Written down once: another Python or processor must give the same."""
    sink = io.BytesIO()
    made = zstd.write_layer(io.BytesIO(PLAIN), layer(), sink)
    assert made.blob.digest == DIGEST
    assert made.blob == oci.describe(oci.ZSTD_LAYER, sink.getvalue())
    assert (made.diff_id, made.created_by) == (DIFF_ID, "COPY a /a")
    with zstd.opened(io.BytesIO(sink.getvalue())) as stream:
        assert stream.read(len(PLAIN) + 1) == PLAIN


DIGEST = "sha256:44c99da907b821fa1972c584efb57b5c4a61a9d4af39a7235d83cdcb9a21ba52"


def test_another_zstandard_is_refused_before_it_gives_another_digest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(zstd, "LEVEL", 1)  # as a library would that compresses otherwise
    zstd.check.cache_clear()
    try:
        with pytest.raises(BuilderError, match=r"zstandard .* does not compress as the pinned one"):
            zstd.write_layer(io.BytesIO(PLAIN), layer(), io.BytesIO())
    finally:
        zstd.check.cache_clear()


def test_a_tar_that_is_not_what_the_layer_says_is_not_compressed() -> None:
    with pytest.raises(BuilderError, match="is not the tar that its diff_id"):
        zstd.write_layer(io.BytesIO(PLAIN[1:]), layer(), io.BytesIO())


def test_frames_in_a_row_are_read_and_those_for_others_are_passed_over() -> None:
    """Zstd:chunked and seekable files are written so (RFC 8878, 3.1.2)."""
    one, two = (zstandard.ZstdCompressor().compress(text) for text in (b"one", b"two"))
    with zstd.opened(io.BytesIO(one + SKIPPED + two + SKIPPED)) as stream:
        assert b"".join(iter(lambda: stream.read(2), b"")) == b"onetwo"


@pytest.mark.parametrize("window", [27, 28])
def test_a_frame_may_ask_for_so_much_memory_and_no_more(window: int) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=window, write_content_size=False)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    frame = packer.compress(b"a") + packer.flush()
    with zstd.opened(io.BytesIO(frame)) as stream:
        if window <= 27:
            assert stream.read(9) == b"a"
        else:
            with pytest.raises(OSError, match="memory"):
                stream.read(9)


def test_what_is_no_frame_is_an_error() -> None:
    with zstd.opened(io.BytesIO(b"\x1f\x8b\x08\0")) as stream, pytest.raises(OSError, match="zstd"):
        stream.read(9)
