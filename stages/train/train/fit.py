"""The head: one sigmoid on the pooled features of the training tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from common.errors import StageError
from numpy.typing import NDArray

OPTIMIZERS = ("newton", "sgd")
# Weight decay on the standardised features: 108 tiles must not fit 464 weights freely.
L2 = 1e-4
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Epoch:
    """One line of the learning curves."""

    epoch: int
    loss: float
    validation_loss: float


@dataclass(frozen=True)
class Head:
    """Probability = sigmoid(features @ kernel + bias); `kernel` is float32 [d]."""

    kernel: NDArray[np.float32]
    bias: float

    def loss(self, features: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
        """Return the mean cross-entropy on `features` [n, d]."""
        logits = features.astype(np.float64) @ self.kernel + self.bias
        return float((np.logaddexp(0, logits) - labels * logits).mean())


@dataclass(frozen=True)
class Standard:
    """Mean and width of each feature of the training tiles."""

    mean: NDArray[np.float64]
    width: NDArray[np.float64]

    @staticmethod
    def of(features: NDArray[np.float32]) -> Standard:
        wide = features.astype(np.float64)
        width = wide.std(axis=0)
        # A feature that never changes says nothing; it must not be blown up where it does.
        floor = 1e-3 * float(np.median(width)) + 1e-9
        return Standard(wide.mean(axis=0), width + floor)

    def apply(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        return (features - self.mean) / self.width

    def head(self, kernel: NDArray[np.float64], bias: float) -> Head:
        """Return the head for features as they are, given the one for standardised features."""
        kernel = kernel / self.width
        return Head(kernel.astype(np.float32), float(bias - kernel @ self.mean))


def check_classes(labels: NDArray[np.int64], name: str) -> None:
    """Raise StageError where `labels` lack a class."""
    if set(labels.tolist()) != {0, 1}:
        raise StageError(f"the {name} wells of this fold hold one class only; see the layout")


def fit_newton(features: NDArray[np.float32], labels: NDArray[np.int64]) -> Head:
    """Fit logistic regression with weight decay on `features` [n, d] to its only minimum.

    Newton's method with step halving (iteratively reweighted least squares; Hastie, Tibshirani and
    Friedman, The Elements of Statistical Learning, 2nd ed., 4.4.1) in the span of the n tiles,
    where the solution lies (ibid. 18.3.5). Raises StageError where the features are not finite.
    """
    check_classes(labels, "training")
    if not np.isfinite(features).all():
        raise StageError("the network's features are not finite; lower learning_rate")
    standard = Standard.of(features)
    left, sizes, right = np.linalg.svd(standard.apply(features), full_matrices=False)
    inputs = np.column_stack([left * sizes, np.ones(len(labels))])
    decay = np.full(inputs.shape[1], 2 * L2)
    decay[-1] = 0.0

    def objective(w: NDArray[np.float64]) -> float:
        z = inputs @ w
        return float((np.logaddexp(0, z) - labels * z).mean() + (decay * w * w).sum() / 2)

    w = np.zeros(inputs.shape[1])
    value = objective(w)
    for _ in range(100):
        probability = 1 / (1 + np.exp(-np.clip(inputs @ w, -500, 500)))
        gradient = inputs.T @ (probability - labels) / len(labels) + decay * w
        weighted = inputs * (probability * (1 - probability))[:, None]
        curvature = inputs.T @ weighted / len(labels) + np.diag(decay + 1e-12)
        step, share = np.linalg.solve(curvature, gradient), 1.0
        if gradient @ step < _TOLERANCE:
            break
        while (lower := objective(w - share * step)) > value and share > 1e-6:
            share /= 2
        w, value = w - share * step, lower
    return standard.head(right.T @ w[:-1], float(w[-1]))


def fit_sgd(
    views: Sequence[NDArray[np.float32]],
    labels: NDArray[np.int64],
    validation: NDArray[np.bool_],
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    report: Callable[[Epoch], None],
) -> Head:
    """Fit the head by SGD with momentum and dropout; the epoch with the lowest loss counts.

    Each epoch sees the features of one of `views`, [n, d] each; that loss is the one of the first
    view on the tiles of `validation`, bool [n]. Raises StageError where one class
    is missing or the loss is not finite.
    """
    check_classes(labels[~validation], "training")
    check_classes(labels[validation], "validation")
    keras.utils.set_random_seed(seed)
    standard = Standard.of(np.concatenate([view[~validation] for view in views]))
    scaled = [standard.apply(view).astype(np.float32) for view in views]
    model = keras.Sequential(
        [
            keras.Input((views[0].shape[1],)),
            keras.layers.Dropout(0.2, seed=seed),
            keras.layers.Dense(
                1, activation="sigmoid", kernel_initializer="zeros",
                kernel_regularizer=keras.regularizers.L2(L2),
            ),
        ]
    )  # fmt: skip
    model.compile(keras.optimizers.SGD(learning_rate, momentum=0.9), "binary_crossentropy")
    best, kept = np.inf, model.get_weights()
    for number in range(1, epochs + 1):
        view = scaled[number % len(scaled)]
        history = model.fit(
            view[~validation], labels[~validation], batch_size=batch_size, verbose=0
        )
        loss = float(history.history["loss"][0])
        judged = float(model.evaluate(scaled[0][validation], labels[validation], verbose=0))
        if not np.isfinite(loss + judged):
            raise StageError(
                f"the loss is {loss} (validation: {judged}) in epoch {number}; lower learning_rate"
            )
        report(Epoch(number, loss, judged))
        if judged < best:
            best, kept = judged, model.get_weights()
    return standard.head(kept[0].ravel().astype(np.float64), float(kept[1][0]))


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
