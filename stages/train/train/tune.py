"""Fine-tuning: the last blocks and the head together, by SGD with momentum."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from common.errors import StageError
from numpy.typing import NDArray

from train import batches
from train.fit import L2, Epoch, Head, Standard
from train.network import Body
from train.progress import Progress

# Epochs without a lower validation loss after which it stops.
PATIENCE = 3
_DROPOUT = 0.2


def tune(
    body: Body,
    views: Sequence[batches.Arrays],
    labels: NDArray[np.int64],
    validation: NDArray[np.bool_],
    start: tuple[Standard, Head] | None,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    progress: Progress,
    report: Callable[[Epoch], None],
) -> bool:
    """Fine-tune `body` on the tiles outside of `validation` [n]; epoch e sees the view e mod views.

    `views` hold what `body.tunable` takes, [n, …] each; the first are the tiles as they are, on
    which the validation loss is taken. `start` is the head to go on from. The body keeps the
    epoch with the lowest validation loss, which may be none: returns whether it was changed. Goes
    on from `progress`. Raises StageError where the loss is not finite.
    """
    model = _with_training_head(body, start, seed)
    optimizer = keras.optimizers.SGD(learning_rate, momentum=0.9)
    model.compile(optimizer, "binary_crossentropy", jit_compile=False)
    optimizer.build(model.trainable_variables)
    variables = [*model.variables, *optimizer.variables]
    plain = [array[validation] for array in views[0]]
    train = np.flatnonzero(~validation)

    def judge() -> float:
        (found,) = batches.run(model, plain)
        found = np.clip(found[:, 0].astype(np.float64), 1e-7, 1 - 1e-7)
        return float(-np.log(np.where(labels[validation] == 1, found, 1 - found)).mean())

    curve: list[tuple[float, float]] = []
    best = [variable.numpy() for variable in body.tunable.variables]
    if saved := progress.load("tuning"):
        curve = [(float(loss), float(judged)) for loss, judged in saved[0]]
        best = [np.asarray(array) for array in saved[1 : 1 + len(best)]]
        for variable, value in zip(variables, saved[1 + len(best) :], strict=True):
            variable.assign(value)
    else:
        curve = [(math.nan, judge() if start else math.inf)]
    for number in range(1, len(curve)):
        report(Epoch(number, *curve[number]))
    while len(curve) <= epochs and len(curve) - 1 - _lowest(curve) < PATIENCE:
        number = len(curve)
        order = train[np.random.default_rng([seed, number]).permutation(len(train))]
        view = views[number % len(views)]
        model.reset_metrics()
        for place in batches.places(len(order), batch_size, order):
            given = [np.ascontiguousarray(array[place]) for array in view]
            wanted = labels[place].astype(np.float32)[:, None]
            loss = float(model.train_on_batch(given if len(given) > 1 else given[0], wanted))
        judged = judge()
        if not math.isfinite(loss + judged):
            raise StageError(
                f"the loss is {loss} (validation: {judged}) in epoch {number}; lower learning_rate"
            )
        curve.append((loss, judged))
        if _lowest(curve) == number:
            best = [variable.numpy() for variable in body.tunable.variables]
        report(Epoch(number, loss, judged))
        progress.save("tuning", [np.array(curve), *best, *(v.numpy() for v in variables)])
    for variable, value in zip(body.tunable.variables, best, strict=True):
        variable.assign(value)
    return _lowest(curve) > 0


def _lowest(curve: Sequence[tuple[float, float]]) -> int:
    return min(range(len(curve)), key=lambda number: curve[number][1])


def _with_training_head(body: Body, start: tuple[Standard, Head] | None, seed: int) -> keras.Model:
    """Return `body.tunable` with standardisation, dropout and one sigmoid."""
    keras.utils.set_random_seed(seed)
    x: Any = body.tunable.output
    dense = keras.layers.Dense(
        1, activation="sigmoid", kernel_initializer="zeros",
        kernel_regularizer=keras.regularizers.L2(L2),
    )  # fmt: skip
    if start is not None:
        standard, _ = start
        x = keras.layers.Normalization(mean=standard.mean, variance=standard.width**2)(x)
    x = dense(keras.layers.Dropout(_DROPOUT, seed=seed)(x))
    model = keras.Model(body.tunable.inputs, x)
    if start is not None:
        standard, head = start
        kernel = head.kernel * standard.width
        bias = head.bias + float(head.kernel @ standard.mean)
        dense.set_weights([kernel.astype(np.float32)[:, None], np.array([bias], np.float32)])
    return model
