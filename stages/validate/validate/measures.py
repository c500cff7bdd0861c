"""Measures of a two-class judgement. Labels and calls are 0 or 1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]


def confusion(labels: Array, calls: Array) -> list[list[int]]:
    """Return [[true negatives, false positives], [false negatives, true positives]]."""
    return [[int(((labels == a) & (calls == b)).sum()) for b in (0, 1)] for a in (0, 1)]


def weighted_f1(labels: Array, calls: Array) -> float:
    """Return the mean of both classes' F1, weighted by how many items each class has."""
    total = 0.0
    for kind in (0, 1):
        hit = float(((labels == kind) & (calls == kind)).sum())
        sizes = float((labels == kind).sum() + (calls == kind).sum())
        total += (2 * hit / sizes if sizes else 0.0) * float((labels == kind).mean())
    return total


def auc(labels: Array, scores: Array) -> float | None:
    """Return the area under the ROC curve (ties count half), None where a class is missing."""
    positive = int((labels == 1).sum())
    negative = len(labels) - positive
    if not positive or not negative:
        return None
    ranks = float(rankdata(scores)[labels == 1].sum())
    return (ranks - positive * (positive + 1) / 2) / (positive * negative)


def z_factor(positive: Array, negative: Array) -> float | None:
    """Return Z' (Zhang 1999, J Biomol Screen 4:67), None with under two wells a control."""
    if min(len(positive), len(negative)) < 2:
        return None
    distance = abs(float(positive.mean() - negative.mean()))
    spread = 3 * float(positive.std(ddof=1) + negative.std(ddof=1))
    return 1 - spread / distance if distance > 0 else None
