"""Claims about reading images and cutting tiles."""

import io

import numpy as np
import pytest
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
    fitted = tiling.fit(Image.new("L", (width, height), 7))
    assert all(n and n % 256 == 0 for n in fitted.size)
    assert fitted.getextrema() == (7, 7)


def test_a_circle_stays_a_circle():
    y, x = np.mgrid[:1024, :1360]
    disc = (((x - 680) ** 2 + (y - 512) ** 2) < 300**2).astype(np.uint8) * 255
    fitted = np.asarray(tiling.fit(Image.fromarray(disc), (768, 768))) > 127
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
    with pytest.raises(StageError, match="outside 10 bits"):
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


def test_formats_that_no_microscope_writes_are_refused():
    with pytest.raises(StageError, match=r"no readable PNG, TIFF or BMP"):
        tiling.grey(encode(GREY, "GIF"), "a")


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
