"""The network written here is the one the weights were trained with."""

from __future__ import annotations

import keras
import numpy as np
from train import efficientnet, weights


def test_every_array_but_the_classifier_finds_its_layer() -> None:
    inputs = keras.Input((64, 64, 3))
    model = keras.Model(inputs, efficientnet.stages(inputs)[-1])
    arrays = weights.read(weights.default_path())
    efficientnet.load(model, arrays)
    mine = sum(int(np.prod(weight.shape)) for weight in model.weights)
    theirs = sum(
        array.size
        for name, array in arrays.items()
        if not name.startswith("_fc") and not name.endswith("num_batches_tracked")
    )
    assert mine == theirs
    assert model.output_shape == (None, 2, 2, 1280)
    noise = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)).astype("float32")
    found = np.asarray(model(noise))
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 6
