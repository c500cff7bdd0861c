"""Batches of one size, so that a network is traced once, and a network's answers in them."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from numpy.typing import NDArray

Arrays = Sequence[NDArray[np.generic]]
# Tiles whose answers are computed at once. The maps of more leave the processor's caches, and are
# memory that the system must clear each time: 32 at once took half as much processor time again.
_AT_ONCE = 4


def places(
    count: int, size: int, order: NDArray[np.int64] | None = None
) -> list[NDArray[np.int64]]:
    """Return which of `count` items make up each batch, in `order`.

    The batches are alike and of `size` at most; the last one is filled up from the beginning.
    """
    order = np.arange(count) if order is None else order
    batches = -(-count // size)
    even = -(-count // batches)
    return list(np.resize(order, batches * even).reshape(batches, even))


def run(model: keras.Model, inputs: Arrays) -> list[NDArray[np.float32]]:
    """Return the outputs of `model` for `inputs`, arrays with the same first axis [n, …]."""
    count = len(inputs[0])
    found: list[list[NDArray[np.float32]]] = []
    for place in places(count, _AT_ONCE):
        given = [np.ascontiguousarray(array[place]) for array in inputs]
        answer = model.predict_on_batch(given if len(given) > 1 else given[0])
        found.append(answer if isinstance(answer, list) else [answer])
    return [np.concatenate(parts)[:count] for parts in zip(*found, strict=True)]
