"""The model: raw tiles in, the probability of the positive class out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from common.errors import StageError
from numpy.typing import NDArray

from train import efficientnet, weights

TILE = 256
MODEL_TYPES = ("EfficientNet_Lite0",)
# Percentiles of the training tiles that become -1 and 1; a few bright pixels must not set them.
_LOW, _HIGH = 1.0, 99.8
# The groups of blocks whose maps are pooled.
_GROUPS = (2, 3, 4, 5)


@dataclass(frozen=True)
class Normalisation:
    """Channel-wise scaling of 2 sqrt(x + 3/8) to [-1, 1]: `low` and `high` become -1 and 1.

    The transform makes Poisson noise of a variance that does not depend on the signal: F. J.
    Anscombe, Biometrika 35 (1948), 246.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]


def anscombe(x: Any) -> Any:
    """Return 2 sqrt(x + 3/8)."""
    return 2.0 * (x + 0.375) ** 0.5


def fit_normalisation(tiles: NDArray[np.uint8]) -> Normalisation:
    """Fit the scaling on tiles [n, 256, 256, 3] of the training wells.

    Raises StageError where the signal or the DNA channel is constant.
    """
    values = anscombe(tiles[:, ::4, ::4].reshape(-1, 3).astype(np.float64))
    low, high = np.percentile(values, [_LOW, _HIGH], axis=0)
    for channel, name in ((1, "signal"), (2, "DNA")):
        if high[channel] <= low[channel]:
            raise StageError(
                f"the {name} channel of the training wells is constant; check the plate and layout"
            )
    # The first channel is always 0: any width will do.
    high = np.where(high > low, high, low + 1)
    return Normalisation(tuple(low.tolist()), tuple(high.tolist()))


@keras.saving.register_keras_serializable("plateline")
class Normalise(keras.layers.Layer):
    """uint8 tiles -> float32 in [-1, 1], as `Normalisation` says."""

    def __init__(self, low: list[float], high: list[float], **members: Any) -> None:
        super().__init__(**members)
        self.low, self.high = list(low), list(high)

    def call(self, tiles: Any) -> Any:
        """Normalise `tiles`, [n, 256, 256, 3]."""
        values = 2.0 * keras.ops.sqrt(keras.ops.cast(tiles, "float32") + 0.375)
        low = np.asarray(self.low, dtype="float32")
        width = np.asarray(self.high, dtype="float32") - low
        return keras.ops.clip((values - low) / width, 0.0, 1.0) * 2.0 - 1.0

    def get_config(self) -> dict[str, Any]:
        """Return what makes the layer again."""
        return {**super().get_config(), "low": self.low, "high": self.high}


@keras.saving.register_keras_serializable("plateline")
class Moments(keras.layers.Layer):
    """Feature map [n, h, w, c] -> its mean and standard deviation over the tile, [n, 2 c]."""

    def call(self, x: Any) -> Any:
        """Pool `x`."""
        mean = keras.ops.mean(x, axis=(1, 2), keepdims=True)
        variance = keras.ops.mean(keras.ops.square(x - mean), axis=(1, 2))
        width = keras.ops.sqrt(variance + 1e-6)
        return keras.ops.concatenate([keras.ops.squeeze(mean, (1, 2)), width], axis=-1)


def backbone(model_type: str, scaling: Normalisation) -> keras.Model:
    """Return the network up to its pooled features, [n, 848], pretrained weights loaded.

    Mean and deviation of the maps after four groups of blocks (strides 8, 16, 16 and 32): where in
    a cell the signal lies is seen better there than in the last layer, which tells cats from dogs.
    Raises StageError for a model type there is not.
    """
    if model_type not in MODEL_TYPES:
        raise StageError(f"unknown model_type {model_type!r}; there are {', '.join(MODEL_TYPES)}")
    tiles = keras.Input((TILE, TILE, 3), dtype="uint8", name="tiles")
    x = Normalise(list(scaling.low), list(scaling.high), name="normalise")(tiles)
    pooled = [
        Moments(name=f"moments_{group}")(found)
        for group, found in enumerate(efficientnet.stages(x))
        if group in _GROUPS
    ]
    model = keras.Model(tiles, keras.layers.Concatenate(name="features")(pooled))
    efficientnet.load(model, weights.read(weights.default_path()))
    return model


def with_head(body: keras.Model, kernel: NDArray[np.float32], bias: float) -> keras.Model:
    """Return `body` with the one sigmoid on top: [n, 256, 256, 3] uint8 -> probability [n, 1]."""
    head = keras.layers.Dense(1, activation="sigmoid", name="probability")
    model = keras.Model(body.input, head(body.output))
    head.set_weights([kernel.reshape(-1, 1), np.array([bias], dtype=np.float32)])
    return model
