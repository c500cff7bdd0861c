"""Measures of a two-class judgement and of an assay. Labels and calls are 0 or 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]


def confusion(labels: Array, calls: Array) -> list[list[int]]:
    """Return [[true negatives, false positives], [false negatives, true positives]]."""
    return [[int(((labels == a) & (calls == b)).sum()) for b in (0, 1)] for a in (0, 1)]


def accuracy(counts: Array) -> Array:
    """Return the share of right calls; `counts` is a confusion matrix [..., 2, 2]."""
    right = counts[..., 0, 0] + counts[..., 1, 1]
    return np.asarray(right / counts.sum((-1, -2)))


def weighted_f1(counts: Array) -> Array:
    """Return the mean of both classes' F1, weighted by how many items each class has.

    `counts` is a confusion matrix [..., 2, 2]. A class that is absent and never called has F1 0.
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    truth, called = counts.sum(-1), counts.sum(-2)
    f1 = 2 * hits / np.maximum(truth + called, 1)
    return np.asarray((f1 * truth).sum(-1) / truth.sum(-1))


def auc(labels: Array, scores: Array) -> float | None:
    """Return the area under the ROC curve (ties count half), None where a class is missing."""
    positive = int((labels == 1).sum())
    negative = len(labels) - positive
    if not positive or not negative:
        return None
    ranks = float(rankdata(scores)[labels == 1].sum())
    return (ranks - positive * (positive + 1) / 2) / (positive * negative)


def roc(labels: Array, scores: Array) -> list[tuple[float, float, float]]:
    """Return the ROC curve's corners as (threshold, true positive rate, false positive rate).

    Thresholds fall; the first lies above every score, so that nothing is called positive.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # of the items with one score
    hits = np.cumsum(labels[order] == 1)[last]
    alarms = np.cumsum(labels[order] == 0)[last]
    points = [(float(np.nextafter(max(1.0, scores.max()), np.inf)), 0.0, 0.0)]
    points += [
        (float(t), float(h / hits[-1]), float(a / alarms[-1]))
        for t, h, a in zip(scores[order][last], hits, alarms, strict=True)
    ]
    bend = [
        0 < i < len(points) - 1
        and (points[i - 1][1] == p[1] == points[i + 1][1]
             or points[i - 1][2] == p[2] == points[i + 1][2])
        for i, p in enumerate(points)
    ]  # fmt: skip
    return [p for p, straight in zip(points, bend, strict=True) if not straight]


def brier(labels: Array, probability: Array) -> float:
    """Return the mean squared difference (Brier 1950, Monthly Weather Review 78:1)."""
    return float(((probability - labels) ** 2).mean())


def reliability(labels: Array, probability: Array, bins: int = 10) -> list[dict[str, float]]:
    """Return, of each equally wide bin with items: count, mean probability, share of positives."""
    place = np.minimum((probability * bins).astype(int), bins - 1)
    return [
        {
            "from": b / bins,
            "to": (b + 1) / bins,
            "count": int((place == b).sum()),
            "probability": float(probability[place == b].mean()),
            "positive": float(labels[place == b].mean()),
        }
        for b in range(bins)
        if (place == b).any()
    ]


def calibration_error(bins: Sequence[dict[str, float]]) -> float:
    """Return the expected calibration error, the bins' |share - probability| weighted by count.

    Naeini, Cooper & Hauskrecht, AAAI 2015.
    """
    total = sum(b["count"] for b in bins)
    return sum(b["count"] * abs(b["positive"] - b["probability"]) for b in bins) / total


def v_factor(groups: Sequence[Array]) -> float | None:
    """Return V = 1 - 6 mean(SD of a dose's wells) / range(means of the doses), SD with n - 1.

    Ravkin 2004, "Quality measures for imaging-based cellular assays", poster P12024, Society for
    Biomolecular Screening. (CellProfiler's CalculateStatistics divides by n instead.) None where
    there are under two doses, a dose has one well, or all means are equal.
    """
    if len(groups) < 2 or min(map(len, groups)) < 2:
        return None
    means = [float(group.mean()) for group in groups]
    reach = max(means) - min(means)
    spread = float(np.mean([group.std(ddof=1) for group in groups]))
    return 1 - 6 * spread / reach if reach > 0 else None


def jackknife(
    statistic: Callable[[Sequence[Array]], float | None], groups: Sequence[Array]
) -> tuple[float, float] | None:
    """Return the 95 % interval of a factor that is 1 at best, by leaving out one item at a time.

    Each of `groups` is a sample of its own, so its variance is added to the others' (Efron &
    Tibshirani 1993, An Introduction to the Bootstrap, ch. 11); a bootstrap would draw the same well
    twice and take the SD of four wells for smaller than it is. None where the statistic is, or is
    without one item.
    """
    whole = statistic(groups)
    variance = 0.0
    for place, group in enumerate(groups):
        without = [
            statistic([*groups[:place], np.delete(group, item), *groups[place + 1 :]])
            for item in range(len(group))
        ]
        known = [value for value in without if value is not None]
        if len(known) < len(without):
            return None
        variance += (len(known) - 1) * float(np.var(known))
    if whole is None:
        return None
    reach = 1.959964 * variance**0.5
    return whole - reach, min(whole + reach, 1.0)
