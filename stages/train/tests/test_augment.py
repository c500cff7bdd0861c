"""Other views of a tile show the same cells."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from train import augment


def tiles(count: int = 6) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 16, 16, 3)).astype(np.uint8)


def test_view_0_is_the_tiles_as_they_are() -> None:
    assert (augment.view(tiles(), 0, 3) == tiles()).all()


@given(st.integers(1, 100), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_a_view_is_turned_and_brighter_or_darker_and_nothing_else(number: int, seed: int) -> None:
    found = augment.view(tiles(), number, seed)
    assert (found == augment.view(tiles(), number, seed)).all(), "not a function of its arguments"
    for tile, before in zip(found, tiles(), strict=True):
        # A channel's pixels sorted: another order of theirs and a rising function leave this alike.
        for channel in range(3):
            one, two = np.sort(tile[..., channel].ravel()), np.sort(before[..., channel].ravel())
            free = (one < 255) & (two > 0)
            ratio = one[free] / two[free]
            assert (np.abs(one[free] - np.median(ratio) * two[free]) < 1.6).all() or not free.any()


def test_views_and_seeds_differ() -> None:
    made = [augment.view(tiles(), number, seed).tobytes() for number in (1, 2) for seed in (0, 1)]
    assert len(set(made)) == 4
