"""Pillow's box filter at half its time, for pictures that shrink to more than half their size.

Each pixel of the result is then a pixel of the picture, or the mean of two neighbours, along each
axis: most of the work is copying. The values are those of Pillow 13, along x and then along y,
rounded in between: `precompute_coeffs` and `ImagingResample*_8bpc` in its Resample.c. Where much
more goes away along y, Pillow begins with that: such pictures are left to it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Grey = NDArray[np.uint8]


def box(picture: Grey, size: tuple[int, int], of: tuple[float, float, float, float]) -> Grey:
    """Return the part `of` (left, top, right, bottom) of a picture [h, w], in `size` (w, h).

    The values are those of `Image.resize(size, Image.Resampling.BOX, box=of)`.
    """
    height, width = picture.shape
    left, top, right, bottom = of
    columns, rows = _taps(width, left, right, size[0]), _taps(height, top, bottom, size[1])
    along_x_first = height - size[1] <= 2 * (width - size[0])
    if columns is None or rows is None or not along_x_first:
        resized = Image.fromarray(picture).resize(size, Image.Resampling.BOX, box=of)
        return np.asarray(resized)
    return _take(_take(picture, *columns, axis=1), *rows, axis=0)


def _taps(
    length: int, start: float, end: float, count: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]] | None:
    """Return the first pixel that each of `count` is made of, and which are made of two.

    None where one is made of more than two, or of none.
    """
    first, last = np.float32(start), np.float32(end)  # as Pillow's C code takes them
    scale = float(last - first) / count
    if not 1 <= scale < 2:
        return None
    centres = float(first) + (np.arange(count) + 0.5) * scale
    lowest = np.maximum(0, (centres - 0.5 * scale + 0.5).astype(np.intp))
    highest = np.minimum(length, (centres + 0.5 * scale + 0.5).astype(np.intp))
    pixels = lowest + np.arange(4)[:, None]
    apart = (pixels - centres + 0.5) * (1 / scale)
    inside = (apart > -0.5) & (apart <= 0.5) & (pixels < highest)
    made_of = inside.sum(axis=0)
    if not ((made_of == 1) | (made_of == 2)).all():
        return None
    return lowest + inside.argmax(axis=0), np.flatnonzero(made_of == 2)


def _take(
    picture: Grey, first: NDArray[np.intp], pairs: NDArray[np.intp], *, axis: int
) -> Grey:  # fmt: skip
    # The default mode checks every index, and takes twice as long.
    made = picture.take(first, axis=axis, mode="clip")
    one = picture.take(first[pairs], axis=axis, mode="clip")
    other = picture.take(first[pairs] + 1, axis=axis, mode="clip")
    mean = (one | other) - ((one ^ other) >> 1)  # (one + other + 1) // 2, in 8 bits
    made.swapaxes(0, axis)[pairs] = mean.swapaxes(0, axis)
    return made
