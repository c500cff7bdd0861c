"""Claims about shrinking: whatever the sizes, the pixels are Pillow's."""

import numpy as np
import pytest
from common import shrink, tiling
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

SIZES = st.integers(1, 700)


def pillow(picture, size, part):
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX, box=part))


def noise(width, height):
    return np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width), np.uint8)


@given(SIZES, SIZES, st.floats(0.05, 1), st.floats(0.05, 1), st.floats(0, 0.4), st.floats(0, 0.4))
@example(540, 540, 512 / 540, 512 / 540, 0, 0)
@settings(max_examples=200, deadline=None)
def test_any_part_of_any_picture_shrinks_to_the_pixels_of_pillow(
    width, height, across, down, left, top
):
    picture = noise(width, height)
    part = (width * left, height * top, width - width * left / 2, height - height * top / 2)
    size = (max(1, int(width * across)), max(1, int(height * down)))
    assert np.array_equal(shrink.box(picture, size, part), pillow(picture, size, part))


@pytest.mark.parametrize("size", [(2160, 2160), (1080, 1080), (1392, 1040), (1104, 1104)])
def test_pictures_of_cameras_fit_to_the_pixels_of_pillow(size):
    picture = noise(*size)
    across, down = tiling.default_target(*size)
    scale = max(across / size[0], down / size[1])
    left, top = (size[0] - across / scale) / 2, (size[1] - down / scale) / 2
    part = (left, top, size[0] - left, size[1] - top)
    assert np.array_equal(tiling.fit(picture), pillow(picture, (across, down), part))
