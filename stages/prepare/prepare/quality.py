"""Flags of a well's images: blank, saturated, out of focus. Simple measures, never a filter.

blank         the 99.5th percentile of the DNA image is fewer than 8 grey levels above its median
saturated     more than 1 % of the pixels of a channel have the value 255
out_of_focus  the focus measure of the DNA image is below a quarter of the plate's median; it is
              the variance of the 4-neighbour Laplacian over the variance of the image, in the
              central 768 x 768 pixels (after Pertuz et al., Pattern Recognition 46, 2013, LAP4)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from common.shrink import Grey
from numpy.typing import NDArray
from PIL import Image

BLANK_BELOW = 8
SATURATED_ABOVE = 0.01
FOCUS_BELOW = 0.25
_CENTRE = 768


@dataclass(frozen=True)
class Quality:
    """Measures of one field of a well; shares are 0..1, levels 0..255."""

    contrast: int
    saturated: float
    focus: float
    means: tuple[float, float]


def measure(signal: Grey, dna: Grey) -> Quality:
    """Return the measures of a field's two pictures [h, w]."""
    counts = [_counts(picture) for picture in (signal, dna)]
    pixels = counts[1].sum()
    below = np.cumsum(counts[1])
    low, high = np.searchsorted(below, [0.5 * pixels, 0.995 * pixels])
    levels = np.arange(256)
    return Quality(
        contrast=int(high - low),
        saturated=max(float(count[255] / count.sum()) for count in counts),
        focus=_focus(dna),
        means=(
            float((counts[0] * levels).sum() / counts[0].sum()),
            float((counts[1] * levels).sum() / pixels),
        ),
    )


def _counts(picture: Grey) -> NDArray[np.int64]:
    """Return how many pixels have each of the 256 levels.

    Four pixels in a row are taken for one of four bands: Pillow then has four counters at hand, and
    needs half the time, since a counter must not wait for its own last step.
    """
    levels = np.ascontiguousarray(picture).reshape(-1)
    whole = levels.size // 4 * 4
    counts = np.bincount(levels[whole:], minlength=256)
    if whole:
        bands = Image.frombuffer("RGBA", (whole // 4, 1), levels[:whole], "raw", "RGBA", 0, 1)
        counts += np.asarray(bands.histogram()).reshape(4, 256).sum(axis=0)
    return counts


def _focus(picture: Grey) -> float:
    height, width = picture.shape
    left, top = max(0, (width - _CENTRE) // 2), max(0, (height - _CENTRE) // 2)
    values = picture[top : top + _CENTRE, left : left + _CENTRE].astype(np.int16)
    variance = float(values.var(dtype=np.float32))
    if variance == 0 or min(values.shape) < 3:
        return 0.0
    centre = values[1:-1, 1:-1]
    laplacian = (
        values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:] - 4 * centre
    )
    return float(laplacian.var(dtype=np.float32)) / variance


def flags(fields: Sequence[Quality]) -> list[str]:
    """Return each field's flags, separated by a space, in the order given."""
    seen = [q.focus for q in fields if q.contrast >= BLANK_BELOW]
    usual = float(np.median(seen)) if seen else 0.0
    found = []
    for q in fields:
        blank = q.contrast < BLANK_BELOW
        names = ["blank"] if blank else []
        if q.saturated > SATURATED_ABOVE:
            names.append("saturated")
        if not blank and q.focus < FOCUS_BELOW * usual:
            names.append("out_of_focus")
        found.append(" ".join(names))
    return found
