"""A PNG given to Pillow as stored blocks is judged and decoded as the PNG itself."""

import io
import struct
import zlib

import numpy as np
import pytest
from common.png import stored
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

MANY = 1 << 24


def picture(seed, mode, size):
    channels = {"L": (), "RGB": (3,), "LA": (2,), "RGBA": (4,), "P": (), "I;16": ()}[mode]
    values = np.random.default_rng(seed).integers(0, 40, (*size[::-1], *channels), np.uint8)
    if mode == "P":
        return Image.fromarray(values).convert("P")
    return Image.fromarray(values.astype(np.uint16) if mode == "I;16" else values)


def png(image, **options):
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def verdict(data):
    """Return the pixels, or that there are none."""
    try:
        image = Image.open(io.BytesIO(data), formats=["PNG"])
        return image.mode, image.size, image.tobytes()
    except Exception:  # noqa: BLE001 - Pillow's decoders raise whatever their input provokes
        return "refused"


SIZES = st.tuples(st.integers(1, 300), st.integers(1, 300))


@given(st.integers(0, 99), st.sampled_from(["L", "RGB"]), SIZES, st.integers(0, 9))
@settings(deadline=None)
def test_the_pixels_stay_and_the_compression_goes(seed, mode, size, level):
    image = picture(seed, mode, size)
    data = png(image, compress_level=level)
    plain = stored(data, MANY)
    assert verdict(plain) == (mode, size, image.tobytes())
    assert len(plain) > len(image.tobytes())


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "I;16"])
def test_other_kinds_are_left_to_pillow(mode):
    data = png(picture(0, mode, (30, 20)))
    assert stored(data, MANY) is data


def test_text_and_transparency_are_kept():
    data = png(picture(0, "RGB", (30, 20)), transparency=(1, 2, 3), dpi=(72, 72))
    plain = Image.open(io.BytesIO(stored(data, MANY)))
    assert stored(data, MANY) is not data
    assert plain.info == Image.open(io.BytesIO(data)).info
    assert plain.info["transparency"] == (1, 2, 3)


@pytest.mark.parametrize("name", [b"tEXt", b"zzZz"])
def test_a_picture_inside_of_another_chunk_is_left_alone(name):
    good, other = (png(picture(seed, "RGB", (30, 20))) for seed in (1, 2))
    start, end = other.index(b"IDAT") - 4, other.index(b"IEND") - 4
    content = b"Comment\0" + other[start:end]
    chunk = struct.pack(">I4s", len(content), name) + content
    chunk += struct.pack(">I", zlib.crc32(name + content))
    data = good[:33] + chunk + good[33:]
    assert verdict(stored(data, MANY))[2] == picture(1, "RGB", (30, 20)).tobytes()


def test_more_pixels_than_allowed_are_not_inflated():
    data = png(Image.new("RGB", (100, 100)))
    assert stored(data, 9_999) is data
    assert stored(data, 10_000) is not data


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_a_damaged_file_is_judged_as_pillow_judges_it(data):
    good = png(picture(1, "RGB", (200, 180)))  # two IDAT chunks
    assert good.count(b"IDAT") == 2
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        bad[data.draw(st.integers(0, len(bad) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    bad = bytes(bad[: data.draw(st.integers(0, len(bad)) | st.just(len(bad)))])
    assert verdict(stored(bad, MANY)) == verdict(bad)


@pytest.mark.parametrize("extra", [b"", b"\0", b"more"])
def test_a_stream_with_more_behind_its_end_is_left_to_pillow(extra):
    def chunk(name, content):
        return struct.pack(">I4s", len(content), name) + content + struct.pack(
            ">I", zlib.crc32(name + content)
        )  # fmt: skip

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 0))
    rows = zlib.compress(b"\0ab\0cd") + extra
    data = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    assert (stored(data, MANY) is data) == bool(extra)
    assert verdict(stored(data, MANY)) == verdict(data)
