"""The head, fitted on pooled features of the training tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from common.errors import StageError
from numpy.typing import NDArray

# Weight decay on the standardised features: 108 tiles must not fit 1,280 weights freely.
_L2 = 1e-3


@dataclass(frozen=True)
class Epoch:
    """One line of the learning curves."""

    epoch: int
    loss: float
    validation_loss: float


def fit_head(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    validation: NDArray[np.bool_],
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    report: Callable[[Epoch], None],
) -> tuple[NDArray[np.float32], float]:
    """Fit one sigmoid by SGD with momentum on `features` [n, d]; returns kernel [d] and bias.

    The epoch with the lowest loss on the tiles of `validation` counts. The kernel applies to the
    features as they are. Raises StageError where one class is missing or the loss is not finite.
    """
    for part, name in ((~validation, "training"), (validation, "validation")):
        if set(labels[part].tolist()) != {0, 1}:
            raise StageError(f"the {name} wells of this fold hold one class only; see the layout")
    keras.utils.set_random_seed(seed)
    mean = features[~validation].mean(axis=0)
    width = features[~validation].std(axis=0) + 1e-3
    scaled = (features - mean) / width
    model = keras.Sequential(
        [
            keras.Input((features.shape[1],)),
            keras.layers.Dropout(0.2, seed=seed),
            keras.layers.Dense(
                1, activation="sigmoid", kernel_initializer="zeros",
                kernel_regularizer=keras.regularizers.L2(_L2),
            ),
        ]
    )  # fmt: skip
    model.compile(keras.optimizers.SGD(learning_rate, momentum=0.9), "binary_crossentropy")
    best, kept = np.inf, model.get_weights()
    for number in range(1, epochs + 1):
        history = model.fit(
            scaled[~validation], labels[~validation], batch_size=batch_size, verbose=0
        )
        loss = float(history.history["loss"][0])
        judged = float(model.evaluate(scaled[validation], labels[validation], verbose=0))
        if not np.isfinite(loss + judged):
            raise StageError(
                f"the loss is {loss} (validation: {judged}) in epoch {number}; lower learning_rate"
            )
        report(Epoch(number, loss, judged))
        if judged < best:
            best, kept = judged, model.get_weights()
    kernel = kept[0].ravel() / width
    return kernel.astype(np.float32), float(kept[1][0] - kernel @ mean)


def validation_wells(labels: dict[str, int], seed: int) -> set[str]:
    """Choose a quarter of the wells of each class, at least one, by `seed`.

    Whole wells, so that no tile is judged by its neighbours.
    """
    random = np.random.default_rng(seed)
    chosen: set[str] = set()
    for label in (0, 1):
        wells = sorted(well for well, of in labels.items() if of == label)
        if len(wells) < 2:
            raise StageError(
                f"class {label} has {len(wells)} training wells in this fold; two are the least"
            )
        chosen |= set(random.permutation(wells)[: max(1, len(wells) // 4)].tolist())
    return chosen
