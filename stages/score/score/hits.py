"""Which treatments of a screen are hits: a p-value a treatment, then control of false discoveries.

A treatment is a compound at a dose. The question is one-sided: are its wells more like the positive
controls than the plate's reference wells are?
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

# How much of a normal sample's information its median and its MAD use, in the limit.
_MEDIAN, _MAD = 2 / math.pi, 0.3675
_SMALLEST = 1e-300  # p-values end here: their z must be finite to be added up


@dataclass(frozen=True)
class Replicates:
    """A treatment's usable wells on one plate: normalised scores, and the plate's references."""

    scores: tuple[float, ...]
    reference: int


def p_value(wells: Replicates) -> float:
    """Return the chance that so many reference wells have a mean so high. One plate, one-sided.

    t = mean / sqrt(1 / k + pi / (2 n)) for k wells and n reference wells: the mean of k wells has
    the variance 1 / k in units of the spread, the median of n references pi / (2 n). The spread is
    a MAD, which knows as much as an SD of 0.3675 n wells (Rousseeuw & Croux 1993, JASA 88:1273), so
    t is compared with Student's t of that many degrees of freedom, at least 1.
    """
    k, n = len(wells.scores), wells.reference
    t = float(np.mean(wells.scores)) / math.sqrt(1 / k + 1 / (_MEDIAN * n))
    return float(stats.t.sf(t, max(1.0, _MAD * (n - 1))))


def combined(p_values: Sequence[float], wells: Sequence[int]) -> float:
    """Return one p-value of those of several plates, whose references are independent.

    Stouffer's weighted z (Stouffer et al. 1949; Liptak 1958; Whitlock 2005, J Evol Biol 18:1368):
    sum(w z) / sqrt(sum(w^2)), with w the square root of a plate's wells.
    """
    if len(p_values) == 1:
        return p_values[0]
    z = stats.norm.isf(np.clip(p_values, _SMALLEST, 1 - 1e-16))
    weights = np.sqrt(np.asarray(wells, float))
    return float(stats.norm.sf((weights * z).sum() / math.sqrt(float((weights**2).sum()))))


def false_discovery_rates(p_values: Array) -> Array:
    """Return the q-values: p-values adjusted after Benjamini & Hochberg (1995, JRSS B 57:289).

    The treatments with a q-value up to x hold, on average, a share of at most x that does nothing.
    """
    if not len(p_values):
        return np.zeros(0)
    return np.asarray(stats.false_discovery_control(p_values, method="bh"))
