"""The model: raw tiles in, the probability of the positive class out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from common import digest
from common.errors import StageError
from numpy.typing import NDArray

from train import efficientnet, weights

TILE = 256
# Percentiles of the training tiles that become -1 and 1; a few bright pixels must not set them.
_LOW, _HIGH = 1.0, 99.8


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


def _scaled(x: Any, factor: Any, term: Any) -> Any:
    """Return `x` [n, 256, 256, 3] times `factor` [3] plus `term` [3].

    Row by row: onnxruntime takes ten times as long for three numbers at a time.
    """
    factors, terms = (np.tile(np.asarray(v, "float32"), TILE) for v in (factor, term))
    rows = keras.ops.reshape(x, (-1, TILE, TILE * 3))
    return keras.ops.reshape(rows * factors + terms, (-1, TILE, TILE, 3))


@keras.saving.register_keras_serializable("plateline")
class Scale(keras.layers.Layer):
    """[n, 256, 256, 3] -> the same times `factor` [3] plus `term` [3]."""

    def __init__(self, factor: list[float], term: list[float], **members: Any) -> None:
        super().__init__(**members)
        self.factor, self.term = list(factor), list(term)

    def call(self, x: Any) -> Any:
        """Scale `x`."""
        return _scaled(x, self.factor, self.term)

    def get_config(self) -> dict[str, Any]:
        """Return what makes the layer again."""
        return {**super().get_config(), "factor": self.factor, "term": self.term}


@keras.saving.register_keras_serializable("plateline")
class Normalise(keras.layers.Layer):
    """uint8 tiles -> float32 in [-1, 1], as `Normalisation` says."""

    def __init__(self, low: list[float], high: list[float], **members: Any) -> None:
        super().__init__(**members)
        self.low, self.high = list(low), list(high)

    def call(self, tiles: Any) -> Any:
        """Normalise `tiles`, [n, 256, 256, 3]."""
        # 2 ((2 sqrt(x + 3/8) - low) / (high - low)) - 1, in as few passes as that can be had
        low, high = np.asarray(self.low), np.asarray(self.high)
        factor, term = 4.0 / (high - low), -2.0 * low / (high - low) - 1.0
        values = keras.ops.sqrt(keras.ops.cast(tiles, "float32") + 0.375)
        return keras.ops.clip(_scaled(values, factor, term), -1.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        """Return what makes the layer again."""
        return {**super().get_config(), "low": self.low, "high": self.high}


@keras.saving.register_keras_serializable("plateline")
class Cells(keras.layers.Layer):
    """Where cells are: normalised tiles [n, 256, 256, 3] -> DNA's intensity, [n, 256, 256]."""

    def call(self, x: Any) -> Any:
        """Return the DNA channel, scaled to 1e-4 to 1: a tile without cells has weights too."""
        return (x[..., 2] + 1.0) * 0.5 + 1e-4


@keras.saving.register_keras_serializable("plateline")
class Averages(keras.layers.Layer):
    """[n, a, b] -> [n, height, width]: the means over `height` x `width` equal areas."""

    def __init__(self, height: int, width: int, **members: Any) -> None:
        super().__init__(**members)
        self.height, self.width = height, width

    def call(self, x: Any) -> Any:
        """Average `x`; the areas need not hold whole pixels."""
        down = np.asarray(areas(x.shape[1], self.height), "float32")
        across = np.asarray(areas(x.shape[2], self.width), "float32")
        return keras.ops.matmul(keras.ops.matmul(down, x), across.T)

    def get_config(self) -> dict[str, Any]:
        """Return what makes the layer again."""
        return {**super().get_config(), "height": self.height, "width": self.width}


def areas(before: int, after: int) -> NDArray[np.float64]:
    """Return the matrix [after, before] that averages `before` pixels over `after` equal areas."""
    ends = np.arange(after + 1) * before / after
    pixels = np.arange(before)
    shared = np.minimum(ends[1:, None], pixels + 1) - np.maximum(ends[:-1, None], pixels)
    return np.asarray(np.clip(shared, 0, None) * after / before)


@keras.saving.register_keras_serializable("plateline")
class Weights(keras.layers.Layer):
    """Where cells are, [n, h, w] -> what each place counts, [n, h, w, 1]; the sum of a tile is 1.

    Maps of one size share one: of two equal ones TensorFlow keeps either, by chance, and the names
    in the exported file would differ.
    """

    def call(self, cells: Any) -> Any:
        """Divide by the sum."""
        weights = cells / keras.ops.sum(cells, axis=(1, 2), keepdims=True)
        return keras.ops.expand_dims(weights, -1)


@keras.saving.register_keras_serializable("plateline")
class Moments(keras.layers.Layer):
    """Feature map [n, h, w, c], weights [n, h, w, 1] -> weighted mean and deviation, [n, 2 c].

    Weighted by where cells are, so that how much background a tile has does not count.
    """

    def call(self, x: Any, weights: Any) -> Any:
        """Pool `x`."""
        mean = keras.ops.sum(x * weights, axis=(1, 2))
        # One pass over the map; what it loses in precision is far below the maps' own noise.
        variance = keras.ops.sum(keras.ops.square(x) * weights, axis=(1, 2)) - keras.ops.square(
            mean
        )
        width = keras.ops.sqrt(keras.ops.maximum(variance, 0.0) + 1e-6)
        return keras.ops.concatenate([mean, width], axis=-1)


@dataclass(frozen=True)
class ModelType:
    """A network: what makes its maps of an input in [-1, 1], and which of them are pooled.

    `maps(x, weights)` returns the maps by name; `pooled` are those whose moments are the features,
    from early to late, and what lies after `split`, one of the maps, is what fine-tuning changes.
    `load` fills the finished network where `maps` has not done so.
    """

    maps: Callable[[Any, str], Mapping[str, Any]]
    pooled: tuple[str, ...]
    split: str
    load: Callable[[keras.Model, str], None] = lambda _model, _source: None


@dataclass(frozen=True)
class Body:
    """A network up to its features, [n, d], in two parts that share its layers.

    `frozen` turns tiles into what `tunable` takes: the map at the split, where cells are in it, and
    the features before it. Without pretrained weights everything is to be trained: `frozen` is
    None, and `tunable` takes tiles. `model` is both in one.
    """

    model: keras.Model
    frozen: keras.Model | None
    tunable: keras.Model


def _lite0(x: Any, _source: str) -> dict[str, Any]:
    return {f"group{n}": found for n, found in enumerate(efficientnet.stages(x))}


def _load_lite0(model: keras.Model, source: str) -> None:
    path = weights.default_path() if source == "imagenet" else Path(source)
    try:
        efficientnet.load(model, weights.read(path))
    except (KeyError, ValueError) as error:
        raise StageError(f"{path} does not hold EfficientNet-Lite0: {error}") from None


def _like_caffe(x: Any) -> Any:
    """Return [-1, 1] as 0..255 in the order BGR less ImageNet's mean, which ResNet50 learnt from.

    As keras.applications.resnet50.preprocess_input, which keeps a tensor that no export finds.
    """
    mean = (103.939, 116.779, 123.68)
    return Scale([127.5] * 3, [127.5 - m for m in mean], name="caffe")(x[..., ::-1])


def _application(
    make: str, prepare: Callable[[Any], Any] = lambda x: x
) -> Callable[[Any, str], dict[str, Any]]:
    def maps(x: Any, source: str) -> dict[str, Any]:
        x = prepare(x)
        choice = None if source == "none" else source
        try:
            network = getattr(keras.applications, make)(
                include_top=False, weights=choice, input_tensor=x
            )
        except Exception as error:  # noqa: BLE001 - Keras, urllib and h5py raise theirs
            raise StageError(
                f"the weights {source!r} of {make} cannot be loaded ({error}); "
                "without network give weights=FILE with weights_sha256, or weights=none"
            ) from None
        return {layer.name: layer.output for layer in network.layers}

    return maps


# Mid maps tell where in a cell the signal lies better than the last ones, which tell cats from
# dogs: see docs/train.md for what was tried.
MODEL_TYPES = {
    "EfficientNet_Lite0": ModelType(_lite0, ("group2", "group3", "group4"), "group3", _load_lite0),
    "ResNet50": ModelType(
        _application("ResNet50", _like_caffe),
        ("conv3_block4_out", "conv4_block6_out", "conv5_block3_out"),
        "conv4_block6_out",
    ),
    "Inception_v3": ModelType(
        _application("InceptionV3"), ("mixed2", "mixed7", "mixed10"), "mixed7"
    ),
    "Inception_Resnet_v2": ModelType(
        _application("InceptionResNetV2"),
        ("block35_10_ac", "block17_20_ac", "conv_7b_ac"),
        "block17_20_ac",
    ),
}


def check_weights(source: str, sha256: str) -> str:
    """Return `source` (`imagenet`, `none` or a file's path) when it can be used.

    Raises StageError where the file is not there or is not the one that `sha256` names.
    """
    if source in ("imagenet", "none"):
        return source
    path = Path(source)
    if not path.is_file():
        raise StageError(f"there is no file of weights {source}; give a path, imagenet or none")
    found = digest.file_sha256(path)
    if found != sha256:
        raise StageError(
            f"the weights {source} have sha256 {found}, weights_sha256 is {sha256 or 'empty'}"
        )
    return os.fspath(path)


def build(model_type: str, scaling: Normalisation, source: str = "imagenet") -> Body:
    """Return the network `model_type` up to its features, with the weights `source`.

    The features are mean and deviation of its maps. Raises StageError for a model type there is
    not and for weights that cannot be loaded.
    """
    if model_type not in MODEL_TYPES:
        raise StageError(f"unknown model_type {model_type!r}; there are {', '.join(MODEL_TYPES)}")
    kind = MODEL_TYPES[model_type]
    tiles = keras.Input((TILE, TILE, 3), dtype="uint8", name="tiles")
    x = Normalise(list(scaling.low), list(scaling.high), name="normalise")(tiles)
    maps = kind.maps(x, source)
    dna, split = Cells(name="moments_cells")(x), maps[kind.split]
    at_split = _averages(dna, split, "moments_cells_split")
    before = kind.pooled.index(kind.split) + 1
    pooled, weights = [], {}
    for number, name in enumerate(kind.pooled):
        whole = dna if number < before - 1 else at_split
        cells = _averages(whole, maps[name], f"moments_cells_{name}")
        if id(cells) not in weights:
            weights[id(cells)] = Weights(name=f"moments_weights_{name}")(cells)
        pooled.append(Moments(name=f"moments_{name}")(maps[name], weights[id(cells)]))
    early = keras.layers.Concatenate(name="early")(pooled[:before])
    features = keras.layers.Concatenate(name="features")([early, *pooled[before:]])
    model = keras.Model(tiles, features)
    if source == "none":
        return Body(model, None, model)
    kind.load(model, source)
    given = [split, at_split, early]
    frozen = keras.Model(tiles, given)
    for layer in frozen.layers:
        layer.trainable = False
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False  # and so uses what it learnt from a million images
    return Body(model, frozen, keras.Model(given, features))


def _averages(cells: Any, like: Any, name: str) -> Any:
    """Return `cells` averaged to the size of the map `like`."""
    size = like.shape[1], like.shape[2]
    return cells if cells.shape[1:3] == size else Averages(*size, name=name)(cells)


def with_head(body: keras.Model, kernel: NDArray[np.float32], bias: float) -> keras.Model:
    """Return `body` with the one sigmoid on top: [n, 256, 256, 3] uint8 -> probability [n, 1]."""
    head = keras.layers.Dense(1, activation="sigmoid", name="probability")
    # Its name and its layers' are in the exported file.
    model = keras.Model(body.input, head(body.output), name="network")
    head.set_weights([kernel.reshape(-1, 1), np.array([bias], dtype=np.float32)])
    return model
