"""What the frozen layers make of tiles is what Keras says it is."""

from __future__ import annotations

import os

import numpy as np
import pytest
from numpy.typing import NDArray
from train import maps, network


@pytest.fixture
def tiles() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (3, 256, 256, 3)).astype(np.uint8)


@pytest.mark.usefixtures("thin_lite0")
def test_maps_are_those_of_the_network_in_order_on_any_number_of_cores(
    tiles: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    body = network.build("EfficientNet_Lite0", network.Normalisation((0.0,) * 3, (32.0,) * 3))
    assert body.frozen is not None
    compute = maps.computing(body.frozen)
    found = compute(tiles)
    for ours, wanted in zip(found, body.frozen(tiles), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-3, atol=1e-3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    for ours, alone in zip(found, compute(tiles), strict=True):
        np.testing.assert_array_equal(ours, alone)
