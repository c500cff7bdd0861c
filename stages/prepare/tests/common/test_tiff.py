"""Claims about TIFF files: what a layout declares is read as it is, all else is refused by name."""

import io
import re
import struct
import time

import numpy as np
import pytest
import tifffile
from common import tiling
from common.errors import StageError
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

EIGHT = np.arange(60 * 70, dtype=np.uint32).reshape(60, 70).astype(np.uint8)
SIXTEEN = (np.arange(60 * 70, dtype=np.uint32).reshape(60, 70) * 15).astype(np.uint16)
LOSSLESS = [None, "lzw", "zlib", "packbits", "zstd", "lzma", "jpeg2000", "jpegxr"]


def tiff(array, **options):
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def pages(*written):
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for array, options in written:
            writer.write(array, metadata=None, **options)
    return stream.getvalue()


def read(data, bits=8):
    return np.asarray(tiling.grey(data, "a.tif", bits))


def refusal(data, bits=8):
    with pytest.raises(StageError, match=r"^a\.tif ") as error:
        tiling.grey(data, "a.tif", bits)
    return str(error.value)


@given(
    seed=st.integers(0, 99),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    bits=st.integers(8, 16),
    compression=st.sampled_from(LOSSLESS),
    byteorder=st.sampled_from("<>"),
    bigtiff=st.booleans(),
    cut=st.sampled_from([{}, {"tile": (16, 32)}, {"rowsperstrip": 7}]),
    form=st.sampled_from([{}, {"ome": True}, {"metadata": None}]),
    predictor=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_pixels_come_back_whatever_holds_them(
    seed, size, bits, compression, byteorder, bigtiff, cut, form, predictor
):
    kind = np.uint8 if bits == 8 else np.uint16
    array = np.random.default_rng(seed).integers(0, 1 << bits, size, kind)
    options = {"compression": compression, "byteorder": byteorder, "bigtiff": bigtiff, **cut}
    if predictor and compression in {"lzw", "zlib", "zstd"}:
        options["predictor"] = True
    if compression in {"jpeg2000", "jpegxr"}:  # they have an order of their own, and are no strips
        options = {"compression": compression} if min(size) >= 16 else {}
    data = tiff(array, photometric="minisblack", **options, **form)
    assert np.array_equal(read(data, bits), array >> (bits - 8))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("array", [EIGHT, SIXTEEN])
def test_a_turned_or_mirrored_picture_is_put_upright_as_pillow_does(orientation, array):
    data = tiff(array, extratags=[(274, "H", 1, orientation, True)])
    image = Image.open(io.BytesIO(data))
    image.load()  # Pillow turns it here
    expected = np.asarray(image)
    if array is SIXTEEN:
        assert np.array_equal(read(data, 16), (expected >> 8).astype(np.uint8))
    else:
        assert np.array_equal(read(data), expected)


def test_12_bits_are_12_bits_packed_or_in_16():
    rows = [bytes([0x12, 0x34, 0x56]) * 2, bytes([0xFF, 0xF0, 0x00]) * 2]
    packed = plain_tiff(4, 2, b"".join(rows), bits=12)
    assert read(packed, 12).tolist() == [[0x12, 0x45, 0x12, 0x45], [0xFF, 0, 0xFF, 0]]
    assert "has 12-bit values where the layout says 16" in refusal(packed, 16)
    assert np.array_equal(read(tiff(SIXTEEN >> 4), 12), SIXTEEN >> 8)
    assert "needs 16 bits where the layout says 12; set files.bits = 16" in refusal(
        tiff(SIXTEEN), 12
    )


def plain_tiff(width, height, pixels, bits=8, tags=()):
    """Return an uncompressed TIFF of one strip; `tags` (code, value) replace its own.

    A value of three is an entry's type, count and offset, from the beginning of the pixels.
    """
    found = {
        256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 0, 277: 1, 278: height,
        279: len(pixels),
    } | dict(tags)  # fmt: skip
    found = {code: value for code, value in found.items() if value is not None}
    start = 8 + 2 + 12 * len(found) + 4
    found[273] = start if found.get(273) == 0 else found.get(273, start)
    entries = b"".join(
        struct.pack("<HHII", code, *value[:2], start + value[2])
        if isinstance(value, tuple)
        else struct.pack("<HHII", code, 4, 1, value)
        for code, value in sorted(found.items())
    )
    return b"II*\0" + struct.pack("<IH", 8, len(found)) + entries + b"\0\0\0\0" + pixels


WHITE = {"photometric": "miniswhite"}
BLACK = {"photometric": "minisblack"}
PAIR = np.stack([EIGHT, EIGHT[::-1]], -1)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(PAIR, planarconfig="contig", **BLACK), "2 samples a pixel"),
        (tiff(np.moveaxis(PAIR, -1, 0), planarconfig="separate", **BLACK), "2 samples a pixel"),
        (tiff(PAIR.astype(np.uint16), planarconfig="contig", **BLACK), "2 samples a pixel"),
        (tiff(PAIR, planarconfig="contig", extrasamples=["unassalpha"], **BLACK), "2 samples"),
        (tiff(np.stack([EIGHT] * 5, -1), planarconfig="contig", **BLACK), "5 samples a pixel"),
        (tiff(np.stack([EIGHT] * 4, -1), photometric="rgb"), "4 samples a pixel"),
        (tiff(np.stack([SIXTEEN] * 3, -1), photometric="rgb"), "16 bits a channel"),
        (tiff(np.stack([EIGHT, EIGHT, EIGHT[::-1]], -1), photometric="rgb"), "a colour image"),
        (tiff(EIGHT.astype(np.int8)), "signed samples"),
        (tiff(SIXTEEN.astype(np.int16)), "signed samples"),
        (tiff(SIXTEEN.astype(np.int32)), "signed samples"),
        (tiff(SIXTEEN.astype(np.float32)), "floating-point samples"),
        (tiff(SIXTEEN.astype(np.float16)), "floating-point samples"),
        (tiff(SIXTEEN.astype(np.complex64)), "complex samples"),
        (tiff(SIXTEEN.astype(np.uint32)), "32 bits a sample"),
        (tiff(SIXTEEN.astype(np.uint64)), "64 bits a sample"),
        (tiff(EIGHT > 100, **BLACK), "1 bits a sample"),
        (tiff(EIGHT, **WHITE), "white as 0 (MinIsWhite)"),
        (tiff(SIXTEEN, **WHITE), "white as 0 (MinIsWhite)"),
        (tiff(np.stack([EIGHT] * 3, -1), photometric="rgb", compression="jpeg"), "YCBCR"),
        (tiff(EIGHT, compression="lerc"), "compressed with LERC"),
        (tiff(EIGHT, compression="jpegxl"), "compressed with JPEGXL"),
        (plain_tiff(4, 2, bytes(8), tags=[(262, None)]), "whether black or white is 0"),
        (plain_tiff(4, 2, bytes(8), tags=[(262, 4)]), "kind MASK"),
        (plain_tiff(4, 2, bytes(8), tags=[(339, 4)]), "undefined samples"),
        (plain_tiff(4, 2, bytes(8), tags=[(274, 9)]), "orientation 9"),
        (b"II*\0" + bytes(4), "holds no picture"),
    ],
    ids=lambda value: value if isinstance(value, str) else "file",
)
def test_what_no_layout_declares_is_refused_with_its_name_at_any_depth(data, reason, bits):
    assert reason in refusal(data, bits)


def test_8_bits_where_the_layout_declares_more_are_refused():
    for bits in (9, 12, 16):
        assert f"has 8-bit values where the layout says {bits}" in refusal(tiff(EIGHT), bits)
    assert "has 16-bit values where the layout says 8" in refusal(tiff(SIXTEEN), 8)


def test_grey_in_three_equal_samples_or_a_palette_is_grey():
    stacked = np.stack([EIGHT] * 3)
    assert np.array_equal(read(tiff(np.moveaxis(stacked, 0, -1), photometric="rgb")), EIGHT)
    planar = tiff(stacked, photometric="rgb", planarconfig="separate")
    assert np.array_equal(read(planar), EIGHT)
    inverted = np.stack([np.arange(255, -1, -1) * 257] * 3).astype(np.uint16)
    data = tiff(EIGHT, photometric="palette", colormap=inverted)
    assert np.array_equal(read(data), 255 - EIGHT)
    inverted[1] = 0
    assert "is a colour image" in refusal(tiff(EIGHT, photometric="palette", colormap=inverted))


def test_a_smaller_copy_of_the_picture_is_no_second_frame():
    small = (EIGHT[::4, ::4], {"subfiletype": 1})
    assert np.array_equal(read(pages((EIGHT, {}), small)), EIGHT)
    assert np.array_equal(read(pages(small, (EIGHT, {}))), EIGHT)
    assert "has 2 frames" in refusal(pages((EIGHT, {}), (EIGHT[::4, ::4], {})))


def test_thousands_of_frames_are_refused_before_they_are_counted():
    """Two passes over 50,000 pages would take seconds of the processor, one over 65 does not."""
    one = tiff(EIGHT, photometric="minisblack", metadata=None)
    (first,) = struct.unpack_from("<I", one, 4)
    (entries,) = struct.unpack_from("<H", one, first)
    directory = one[first : first + 2 + 12 * entries]
    size = len(directory) + 4
    tail = b"".join(
        directory + struct.pack("<I", len(one) + size * (number + 1)) for number in range(50_000)
    )
    last = directory + struct.pack("<I", 0)
    at = first + len(directory)
    data = one[:at] + struct.pack("<I", len(one)) + one[at + 4 :] + tail + last
    began = time.process_time()
    assert "has more than 64 frames" in refusal(data)
    assert time.process_time() - began < 1


STACK = np.stack([EIGHT, EIGHT, EIGHT])


@pytest.mark.parametrize(
    "data",
    [
        tiff(STACK, **BLACK),
        tiff(STACK, ome=True, metadata={"axes": "CYX"}, **BLACK),
        tiff(STACK, imagej=True, **BLACK),
        tiff(STACK, imagej=True, metadata={"truncate": True}, **BLACK),
        tiff(STACK, metadata={"truncate": True}, **BLACK),
        plain_tiff(4, 2, bytes(96), tags=[(279, 8), (33628, (4, 3, 0)), (33629, (5, 3, 24))]),
    ],
    ids=["pages", "ome", "imagej", "imagej in one page", "one page", "metamorph"],
)
def test_a_stack_is_refused_also_where_it_has_one_page_only(data):
    assert "give one picture a file" in refusal(data)


@pytest.mark.parametrize("options", [{"compression": c} for c in LOSSLESS] + [{"tile": (16, 32)}])
@given(share=st.floats(0, 0.999))
@settings(max_examples=25, deadline=None)
def test_a_truncated_file_is_an_error_never_a_picture(options, share):
    data = tiff(np.random.default_rng(0).integers(0, 256, (60, 70), np.uint8), **options)
    with pytest.raises(StageError, match="copy it again"):
        tiling.grey(data[: int(len(data) * share)], "a.tif")


@pytest.mark.parametrize("code", [273, 279])
def test_a_strip_that_is_missing_is_not_read_as_black(code):
    data = tiff(EIGHT, rowsperstrip=20)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tag = file.pages[0].tags[code]
        place, width = tag.valueoffset, {3: 2, 4: 4}[tag.dtype]
    hole = data[:place] + bytes(width) + data[place + width :]
    assert "it ends before its pixels do" in refusal(hole)


def verdict(data):
    """Return that there is a picture, or why there is none."""
    try:
        image = tiling.grey(data, "a.tif")
    except StageError as error:
        return str(error)
    return f"a picture of {image.size}"


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_file_gives_a_whole_picture_or_one_clear_error(data):
    compression = data.draw(st.sampled_from(LOSSLESS))
    bad = bytearray(tiff(EIGHT, compression=compression))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, min(len(bad), 400) - 1) | st.integers(0, len(bad) - 1))
        bad[place] = data.draw(st.integers(0, 255))
    assert re.match(r"a picture|a\.tif ", verdict(bytes(bad)))


def test_pixels_are_counted_before_they_are_decoded():
    with pytest.raises(StageError, match="more than 100"):
        tiling.grey(tiff(EIGHT), "a.tif", most_pixels=100)


def test_a_tile_far_larger_than_its_picture_is_not_decoded():
    tags = [(278, None), (273, None), (279, None), (322, 65520), (323, 65520), (325, 8)]
    data = plain_tiff(4, 2, bytes(8), tags=[*tags, (324, 200)])
    assert "more than 64,000,000" in refusal(data)
