"""Other views of the training tiles: flips, quarter turns, brightness."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# How many views of the training tiles there are beside the plain one, at most.
VIEWS = 4
# The logarithm of the largest change of a channel's brightness, 2.2-fold either way: where in a
# cell the signal lies decides, not how bright a well was stained or exposed.
_BRIGHTNESS = 0.8


def view(tiles: NDArray[np.uint8], number: int, seed: int) -> NDArray[np.uint8]:
    """Return the view `number` of `tiles` [n, h, h, 3]; view 0 is the tiles as they are.

    Each tile is turned and flipped in one of the eight ways and each of its channels multiplied by
    its own factor. A function of `seed` and `number` alone, so a run that was killed goes on alike.
    """
    if number == 0:
        return np.ascontiguousarray(tiles)
    random = np.random.default_rng([seed, number])
    ways = random.integers(8, size=len(tiles))
    factors = np.exp(random.uniform(-_BRIGHTNESS, _BRIGHTNESS, (len(tiles), 3)))
    made = np.empty_like(tiles)
    for place, (tile, way) in enumerate(zip(tiles, ways, strict=True)):
        turned = np.rot90(tile, way % 4)
        turned = turned[:, ::-1] if way >= 4 else turned
        for channel, factor in enumerate(factors[place]):
            levels = np.minimum(np.arange(256) * factor + 0.5, 255).astype(np.uint8)
            made[place, ..., channel] = levels[turned[..., channel]]
    return made
