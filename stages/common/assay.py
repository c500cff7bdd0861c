"""Measures of an assay's control wells: the same code for validate and for score."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def z_factor(positive: Array, negative: Array) -> float | None:
    """Return Z' (Zhang, Chung & Oldenburg 1999, J Biomol Screen 4:67), SD with n - 1.

    None with under two wells a control, or where the controls' means are equal.
    """
    if min(len(positive), len(negative)) < 2:
        return None
    distance = abs(float(positive.mean() - negative.mean()))
    spread = 3 * float(positive.std(ddof=1) + negative.std(ddof=1))
    return 1 - spread / distance if distance > 0 else None


def ssmd(positive: Array, negative: Array) -> float | None:
    """Return the strictly standardised mean difference of two groups of wells.

    (mean+ - mean-) / sqrt(SD+^2 + SD-^2), SD with n - 1: the estimate by the method of moments for
    independent groups (Zhang 2007, Genomics 89:552). None with under two wells a group, or where
    neither group has any spread.
    """
    if min(len(positive), len(negative)) < 2:
        return None
    spread = math.sqrt(float(positive.var(ddof=1) + negative.var(ddof=1)))
    return float(positive.mean() - negative.mean()) / spread if spread > 0 else None
