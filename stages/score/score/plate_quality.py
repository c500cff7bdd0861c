"""Is a plate usable? Its controls' separation and drift, and whether its edge differs."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from common.assay import ssmd, z_factor
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
FEWEST = 5  # wells a side of a test


@dataclass(frozen=True)
class Trial:
    """What a test found: its statistic, its two-sided p-value, and how many wells took part."""

    statistic: float | None
    p: float | None
    wells: int


def separation(
    scores: Mapping[str, Array], roles: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """Return Z' and SSMD of the controls on each scale; `scores` [wells] are NaN for unused."""
    found: dict[str, dict[str, float | None]] = {}
    for scale, values in scores.items():
        sides = [
            np.array([v for v, role in zip(values, roles, strict=True)
                      if role == side and not math.isnan(v)])
            for side in ("positive", "negative")
        ]  # fmt: skip
        found[scale] = {"z_prime": z_factor(*sides), "ssmd": ssmd(*sides)}
    return found


def drift(scores: Array, roles: Sequence[str], places: Sequence[tuple[int, int]]) -> Trial:
    """Return Kendall's tau-b of the negative controls' scores with their order on the plate.

    The order is row by row, as most microscopes go. A trend in the negative controls is one of the
    plate and not of compounds (Kendall 1938, Biometrika 30:81).
    """
    wells = sorted(
        (place, float(score))
        for score, role, place in zip(scores, roles, places, strict=True)
        if role == "negative" and not math.isnan(score)
    )
    values = [score for _, score in wells]
    if len(values) < FEWEST or len(set(values)) < 2:
        return Trial(None, None, len(values))
    found = stats.kendalltau(np.arange(len(values)), values)
    return Trial(float(found.statistic), float(found.pvalue), len(values))


def edge_effect(
    values: Array,
    groups: Sequence[Hashable],
    places: Sequence[tuple[int, int]],
    shape: tuple[int, int],
) -> Trial:
    """Return whether wells at the plate's edge differ from those inside.

    Only groups (wells that were treated alike) with wells on both sides are compared, each well
    with the median of its group, so that what lies at the edge does not count. The statistic is the
    chance that an edge well is above one inside, less the chance of the opposite (-1 to 1; Cliff
    1993, Psychological Bulletin 114:494), p that of Mann & Whitney's U test (1947, Annals of
    Mathematical Statistics 18:50). `shape` is (rows, columns) of the plate.
    """
    edge = [r in (0, shape[0] - 1) or c in (0, shape[1] - 1) for r, c in places]
    by_group: dict[Hashable, list[int]] = {}
    for i, (value, group) in enumerate(zip(values, groups, strict=True)):
        if not math.isnan(value):
            by_group.setdefault(group, []).append(i)
    sides: tuple[list[float], list[float]] = ([], [])
    for wells in by_group.values():
        if {edge[i] for i in wells} == {True, False}:
            middle = float(np.median(values[wells]))
            for i in wells:
                sides[edge[i]].append(float(values[i]) - middle)
    inside, outside = sides
    count = len(inside) + len(outside)
    if min(len(inside), len(outside)) < FEWEST or len({*inside, *outside}) < 2:
        return Trial(None, None, count)
    found = stats.mannwhitneyu(outside, inside, alternative="two-sided")
    share = float(found.statistic) / (len(inside) * len(outside))
    return Trial(2 * share - 1, float(found.pvalue), count)
