"""95 % intervals by bootstrap over wells: a well's tiles are one draw, not many."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest

from .measures import Array, accuracy, confusion, weighted_f1

DRAWS = 2000
_ENDS = (2.5, 97.5)

Interval = tuple[float, float]


def intervals(
    labels: Sequence[int], scores: Sequence[Array], threshold: float, seed: int
) -> dict[str, object]:
    """Return the 95 % percentile intervals of accuracy, weighted_f1, auc and each confusion cell.

    `labels` holds each well's label, `scores` each well's scores (one a tile, or a single one).
    Wells are drawn with replacement within their class, so both classes are in every draw
    (Efron & Tibshirani 1993, ch. 13 for the percentile interval). The confusion matrix' intervals
    are [[low, high], …] in its own shape.
    """
    truth = np.asarray(labels)
    counts = np.array(
        [
            confusion(np.full(len(s), label, float), (s >= threshold).astype(float))
            for label, s in zip(labels, scores, strict=True)
        ],
        float,
    )
    random = np.random.default_rng(seed)
    sizes = [(truth == kind).sum() for kind in (0, 1)]
    weights = np.zeros((DRAWS, len(truth)))
    for kind, size in enumerate(sizes):
        drawn = random.multinomial(size, np.full(size, 1 / size), DRAWS)
        weights[:, truth == kind] = drawn
    drawn_counts = np.einsum("bw,wij->bij", weights, counts)
    low, high = np.percentile(drawn_counts, _ENDS, axis=0)
    return {
        "accuracy": _interval(accuracy(drawn_counts)),
        "weighted_f1": _interval(weighted_f1(drawn_counts)),
        "auc": _interval(_auc(truth, scores, weights)),
        "confusion": np.stack([low, high], -1).tolist(),
    }


def _auc(truth: Array, scores: Sequence[Array], weights: Array) -> Array:
    """Return each draw's AUC: the share of (positive, negative) pairs in order, ties half."""
    negatives = [np.sort(s) for label, s in zip(truth, scores, strict=True) if label == 0]
    positives = [s for label, s in zip(truth, scores, strict=True) if label == 1]
    pairs = np.array(
        [
            [
                (np.searchsorted(n, p, "left") + np.searchsorted(n, p, "right")).sum() / 2
                for n in negatives
            ]
            for p in positives
        ]
    )
    ups, downs = weights[:, truth == 1], weights[:, truth == 0]
    total = (ups @ [len(p) for p in positives]) * (downs @ [len(n) for n in negatives])
    return np.asarray(np.einsum("bp,pn,bn->b", ups, pairs, downs) / total)


def _interval(values: Array) -> Interval:
    low, high = np.percentile(values, _ENDS)
    return float(low), float(high)


def exact_interval(right: int, total: int) -> Interval:
    """Return the exact 95 % interval of a share (Clopper & Pearson 1934, Biometrika 26:404).

    Where every well is right no draw of a bootstrap is wrong; this one still says how few they are.
    """
    found = binomtest(right, total).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)
