"""Batches of one size that leave nothing out."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from train import batches


@given(st.integers(1, 300), st.integers(1, 64))
def test_all_are_there_in_order_and_little_twice(count: int, size: int) -> None:
    found = batches.places(count, size)
    assert len({len(place) for place in found}) == 1
    assert len(found[0]) <= size
    flat = np.concatenate(found)
    assert flat[:count].tolist() == list(range(count))
    assert len(flat) - count < len(found)
