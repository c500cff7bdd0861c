"""EfficientNet-Lite0, written with Keras layers.

Source: https://github.com/tensorflow/tpu, models/official/efficientnet/lite: EfficientNet-B0
(Tan and Le, ICML 2019) without squeeze-and-excitation, with ReLU6, stem and head not scaled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

# Kernel, stride of the first, expansion, filters, repeats of each group of blocks.
GROUPS = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_EPSILON = 1e-3


def _norm(x: Any, name: str) -> Any:
    return keras.layers.BatchNormalization(epsilon=_EPSILON, momentum=0.99, name=name)(x)


def _relu6(x: Any) -> Any:
    return keras.layers.ReLU(max_value=6.0)(x)


def _pointwise(x: Any, filters: int, name: str) -> Any:
    return keras.layers.Conv2D(filters, 1, use_bias=False, name=name)(x)


def stages(inputs: Any) -> list[Any]:
    """Return the feature map after each group of blocks, of `inputs`, [n, h, w, 3] in [-1, 1].

    The last one, [n, h/32, w/32, 1280], is the network's own.
    """
    x = keras.layers.Conv2D(
        32, 3, strides=2, padding="same", use_bias=False, name="_conv_stem"
    )(inputs)  # fmt: skip
    x = _relu6(_norm(x, "_bn0"))
    found = []
    number, filters_in = 0, 32
    for kernel, first, expansion, filters, repeats in GROUPS:
        for repeat in range(repeats):
            name, stride, block_in = f"_blocks_{number}_", first if repeat == 0 else 1, x
            if expansion != 1:
                x = _pointwise(x, filters_in * expansion, name + "_expand_conv")
                x = _relu6(_norm(x, name + "_bn0"))
            x = keras.layers.DepthwiseConv2D(
                kernel, strides=stride, padding="same", use_bias=False,
                name=name + "_depthwise_conv",
            )(x)  # fmt: skip
            x = _relu6(_norm(x, name + "_bn1"))
            x = _norm(_pointwise(x, filters, name + "_project_conv"), name + "_bn2")
            if stride == 1 and filters_in == filters:
                x = keras.layers.Add()([x, block_in])
            number, filters_in = number + 1, filters
        found.append(x)
    return [*found, _relu6(_norm(_pointwise(x, 1280, "_conv_head"), "_bn1"))]


def load(model: keras.Model, weights: Mapping[str, np.ndarray]) -> None:
    """Copy PyTorch's arrays into the layers of `model` that `features` made.

    A convolution is [out, in, h, w] there and [h, w, in, out] here, a depthwise one [c, 1, h, w]
    there and [h, w, c, 1] here. Raises KeyError where an array is missing, and ValueError where one
    has another shape.
    """
    for layer in model.layers:
        if not layer.name.startswith("_") or not layer.weights:
            continue
        name = layer.name.replace("_blocks_", "_blocks.").replace("__", "._")
        if isinstance(layer, keras.layers.BatchNormalization):
            parts = ("weight", "bias", "running_mean", "running_var")
            layer.set_weights([weights[f"{name}.{part}"] for part in parts])
        elif isinstance(layer, keras.layers.DepthwiseConv2D):
            layer.set_weights([weights[f"{name}.weight"].transpose(2, 3, 0, 1)])
        else:
            layer.set_weights([weights[f"{name}.weight"].transpose(2, 3, 1, 0)])
