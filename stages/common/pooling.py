"""A picture's probability from its tiles': the same code for validate and for serving."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SMALLEST = 2.0**-24  # what a 32-bit float resolves below 1


def log_odds(probability: NDArray[Any]) -> NDArray[np.float64]:
    """Return ln(p / (1 - p)), with p kept 2^-24 away from 0 and 1."""
    kept = np.clip(probability.astype(np.float64), _SMALLEST, 1 - _SMALLEST)
    return np.asarray(np.log(kept / (1 - kept)))


def pooled(tiles: NDArray[Any]) -> NDArray[np.float64]:
    """Return the probability of each picture from those of its tiles, [..., tiles] -> [...].

    The tiles' mean log odds, as a probability: the logarithmic opinion pool with equal weights
    (Genest & Zidek 1986, Statistical Science 1:114). A model's log odds are linear in a tile's
    features, so that this is its answer for the picture's mean features: all cells are averaged
    first and judged once. Tiles of one well are one experiment: more of them are no more evidence.
    """
    return np.asarray(1 / (1 + np.exp(-log_odds(tiles).mean(axis=-1))))
