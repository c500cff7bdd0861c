"""Claims about reading images and cutting tiles."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from common import tiling
from common.errors import StageError
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image


def encode(array, form="PNG", mode=None):
    stream = io.BytesIO()
    (Image.fromarray(array) if mode is None else Image.fromarray(array).convert(mode)).save(
        stream, form
    )
    return stream.getvalue()


GREY = np.arange(100 * 120, dtype=np.uint32).reshape(100, 120).astype(np.uint8)


def test_tiles_are_numbered_row_by_row_as_they_are_cut():
    picture = np.zeros((512, 768, 3), np.uint8)
    for y in range(2):
        for x in range(3):
            picture[256 * y : 256 * y + 256, 256 * x : 256 * x + 256] = 10 * y + x
    assert tiling.cut(picture)[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12]


@given(st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=10, deadline=None)
def test_tiles_of_any_rectangle_are_its_blocks_with_signal_green_and_dna_blue(across, down):
    random = np.random.default_rng(0)
    signal, dna = random.integers(0, 256, (2, down * 256, across * 256), np.uint8)
    tiles = tiling.tile_well(Image.fromarray(signal), Image.fromarray(dna))
    picture = np.stack([np.zeros_like(signal), signal, dna], axis=-1)
    assert np.array_equal(tiles, tiling.cut(picture))


@given(st.integers(1, 1500), st.integers(1, 1500))
@settings(max_examples=30, deadline=None)
def test_any_size_fits_a_multiple_of_256(width, height):
    fitted = tiling.fit(np.full((height, width), 7, np.uint8))
    assert all(n and n % 256 == 0 for n in fitted.shape)
    assert np.unique(fitted).tolist() == [7]


def test_a_circle_stays_a_circle():
    y, x = np.mgrid[:1024, :1360]
    disc = (((x - 680) ** 2 + (y - 512) ** 2) < 300**2).astype(np.uint8) * 255
    fitted = tiling.fit(disc, (768, 768)) > 127
    assert abs(int(fitted.any(0).sum()) - int(fitted.any(1).sum())) <= 2


def test_an_empty_tile_stays_dark_and_a_constant_one_constant():
    dark = Image.fromarray(np.random.default_rng(0).integers(3, 5, (512, 512), np.uint8))
    assert tiling.tile_well(dark, dark).max() == 4
    flat = Image.new("L", (256, 256), 90)
    assert np.unique(tiling.tile_well(flat, flat)[..., 1:]).tolist() == [90]


def test_serving_and_preparing_give_the_same_tiles():
    random = np.random.default_rng(1)
    signal, dna = random.integers(0, 256, (2, 300, 700), np.uint8)
    well = tiling.tile_well(Image.fromarray(signal), Image.fromarray(dna))
    picture = encode(np.stack([signal * 0, signal, dna], axis=-1))
    assert np.array_equal(tiling.tile_well(*tiling.picture_channels(picture)), well)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_grey_images_are_read_from_every_format_and_mode(form, mode):
    assert np.array_equal(np.asarray(tiling.grey(encode(GREY, form, mode), "a")), GREY)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_images_lose_their_low_bits_and_only_when_the_layout_says_so(form):
    data = encode(GREY.astype(np.uint16) << 4, form)
    assert np.array_equal(np.asarray(tiling.grey(data, "a", bits=12)), GREY)
    with pytest.raises(StageError, match=r"a has 16-bit values .* set files.bits"):
        tiling.grey(data, "a")
    with pytest.raises(StageError, match=r"needs 12 bits where .* set files.bits = 12 or more"):
        tiling.grey(data, "a", bits=10)


def test_a_colour_image_is_refused():
    colour = np.zeros((8, 8, 3), np.uint8)
    colour[..., 0] = 9
    with pytest.raises(StageError, match=r"a\.png is a colour image"):
        tiling.grey(encode(colour), "a.png")


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
@given(share=st.floats(0, 0.95))
@settings(max_examples=30, deadline=None)
def test_a_truncated_image_is_an_error_never_a_picture(form, share):
    data = encode(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8), form)
    with pytest.raises(StageError, match="copy it again"):
        tiling.grey(data[: int(len(data) * share)], "a")


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_any_bytes_give_an_image_or_one_clear_error(data):
    with pytest.raises(StageError, match=r"^a "):
        tiling.grey(data, "a")


def test_pixels_are_counted_before_they_are_decoded():
    with pytest.raises(StageError, match="more than 100"):
        tiling.grey(encode(GREY), "a", most_pixels=100)


@pytest.mark.parametrize(
    ("form", "kind"),
    [("GIF", "GIF"), ("JPEG", "JPEG"), ("JPEG2000", "JPEG 2000"), ("WEBP", "WebP")],
)
def test_another_format_is_refused_by_its_name_not_as_damaged(form, kind):
    with pytest.raises(
        StageError, match=f"a is no readable PNG, TIFF or BMP image but a {kind} file; save"
    ):
        tiling.grey(encode(GREY, form), "a")


def png(depth, colour, row, extra=b"", width=8):
    """Return a PNG of two equal rows; `extra` chunks (name and content) come before the pixels."""

    def chunk(name, content):
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 2, depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress((b"\0" + row) * 2))
    more = chunk(extra[:4], extra[4:]) if extra else b""
    return b"\x89PNG\r\n\x1a\n" + head + more + pixels + chunk(b"IEND", b"")


def bmp(bits, pixels, width=4):
    """Return a BMP of one row without a palette."""
    start = 14 + 40
    return (
        struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start)
        + struct.pack("<IiiHHIIiiII", 40, width, 1, 1, bits, 0, len(pixels), 0, 0, 0, 0)
        + pixels
    )


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encode(GREY, "PNG", "LA"), "2 samples a pixel"),
        (encode(GREY, "PNG", "RGBA"), "4 samples a pixel"),
        (png(16, 4, bytes(32)), "several samples of 16 bits a pixel"),
        (png(16, 2, bytes(48)), "several samples of 16 bits a pixel"),
        (png(16, 6, bytes(64)), "several samples of 16 bits a pixel"),
        (png(1, 0, bytes(1)), "1 bits a sample"),
        (png(2, 0, bytes(2)), "2 bits a sample"),
        (png(4, 0, bytes(4)), "4 bits a sample"),
        (png(8, 0, bytes(8), b"tRNS\0\0"), "a transparent colour"),
        (png(16, 0, bytes(16), b"tRNS\0\0"), "a transparent colour"),
        (png(8, 2, bytes(24), b"tRNS" + bytes(6)), "a transparent colour"),
        (bmp(16, bytes(8)), "5 bits a sample"),
    ],
    ids=lambda value: value if isinstance(value, str) else "file",
)
def test_what_no_layout_declares_is_refused_with_its_name_at_any_depth(data, reason, bits):
    with pytest.raises(StageError, match=f"a has {reason}"):
        tiling.grey(data, "a", bits)


def test_a_palette_of_few_colours_is_read_as_the_colours_that_it_names():
    data = png(4, 3, bytes([0x01] * 4), b"PLTE" + bytes([9, 9, 9, 7, 7, 7]))
    assert np.unique(np.asarray(tiling.grey(data, "a"))).tolist() == [7, 9]


@pytest.mark.parametrize("bits", [9, 12, 16])
@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP"])
def test_8_bits_where_the_layout_declares_more_are_refused(form, bits):
    with pytest.raises(StageError, match=f"a has 8-bit values where the layout says {bits}"):
        tiling.grey(encode(GREY, form), "a", bits)


@pytest.mark.parametrize(
    ("samples", "extra"), [(4, "unspecified"), (5, "unspecified"), (4, "unassalpha")]
)
def test_a_picture_to_serve_loses_no_sample_of_a_tiff(samples, extra):
    stream = io.BytesIO()
    array = np.zeros((256, 256, samples), np.uint8)
    tifffile.imwrite(stream, array, photometric="rgb", extrasamples=[extra] * (samples - 3))
    with pytest.raises(StageError, match=rf"a (has {samples} samples|is RGBA, not RGB|is damaged)"):
        tiling.picture_channels(stream.getvalue(), "a")


def test_a_picture_to_serve_has_no_transparent_colour():
    data = png(8, 2, bytes(256 * 3), b"tRNS" + bytes(6), width=256)
    with pytest.raises(StageError, match="a has a transparent colour"):
        tiling.picture_channels(data, "a")


def test_a_tiff_that_serving_cannot_read_is_not_only_called_damaged():
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.zeros((256, 256, 3), np.uint16), photometric="rgb")
    with pytest.raises(StageError, match=r"save it (as PNG|with 8 bits)"):
        tiling.picture_channels(stream.getvalue(), "a")


def test_a_grey_picture_is_no_rgb_picture():
    with pytest.raises(StageError, match="red = 0, green = signal, blue = DNA"):
        tiling.picture_channels(encode(GREY))


def test_a_second_frame_is_not_dropped_in_silence():
    stream = io.BytesIO()
    first = Image.fromarray(GREY)
    first.save(stream, "TIFF", save_all=True, append_images=[first])
    with pytest.raises(StageError, match="a has 2 frames"):
        tiling.grey(stream.getvalue(), "a")


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "LA", "CMYK"])
def test_a_picture_to_serve_is_rgb_without_alpha(mode):
    stream = io.BytesIO()
    Image.new(mode, (256, 256)).save(stream, "TIFF")
    with pytest.raises(StageError, match=f"is {mode}, not RGB"):
        tiling.picture_channels(stream.getvalue(), "a")


def test_a_picture_to_serve_is_at_least_a_tile():
    with pytest.raises(StageError, match="a has 255 x 256 pixels; a tile has 256 x 256"):
        tiling.picture_channels(encode(np.zeros((256, 255, 3), np.uint8)), "a")
