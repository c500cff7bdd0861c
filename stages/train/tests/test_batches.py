"""Batches of one size that leave nothing out, and answers in their order."""

from __future__ import annotations

import keras
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


def test_each_input_has_its_own_answer() -> None:
    given = keras.Input((3,))
    model = keras.Model(given, [given * 2, keras.ops.sum(given, axis=1)])
    inputs = np.arange(21, dtype="float32").reshape(7, 3)
    twice, total = batches.run(model, [inputs])
    np.testing.assert_array_equal(twice, inputs * 2)
    np.testing.assert_array_equal(total, inputs.sum(axis=1))
