"""The exported files answer as the network that was trained."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from tf2onnx.optimizer import ConstFoldOptimizer
from train import export, network

TILES = np.random.default_rng(0).integers(0, 256, (4, 256, 256, 3)).astype(np.uint8)


def small() -> keras.Model:
    """Return a network of one convolution, with the layers of the real ones around it."""
    tiles = keras.Input((256, 256, 3), dtype="uint8", name="tiles")
    x = network.Normalise([0.0] * 3, [30.0] * 3, name="normalise")(tiles)
    maps = keras.layers.Conv2D(4, 3, strides=8, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="features")(maps)
    return network.with_head(keras.Model(tiles, x), np.ones(4, np.float32), 0.0)


def test_an_optimiser_of_the_graph_that_fails_ends_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the graph without it would be written, slower and with other bytes."""
    export.export(small(), TILES, tmp_path)
    monkeypatch.setattr(ConstFoldOptimizer, "_optimize", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export.export(small(), TILES, tmp_path)
