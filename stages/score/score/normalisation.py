"""Robust normalisation of a plate's wells. Wells without a value are NaN and stay NaN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

METHODS = ("controls", "mad", "b-score")
FEWEST_CONTROLS = 4  # negative control wells
FEWEST_SAMPLES = 16  # sample wells, for the methods that take most of them for inactive
_NORMAL = 1.4826  # 1 / the upper quartile of the standard normal distribution
_SMALL = {2: 1.196, 3: 1.495, 4: 1.363, 5: 1.206, 6: 1.200, 7: 1.140, 8: 1.129, 9: 1.107}
_TOLERANCE = 1e-9
_MOST_SWEEPS = 200


@dataclass(frozen=True)
class Normalised:
    """The wells' normalised scores, in units of the reference wells' spread.

    `reference` is how many wells the centre and the spread come from. Where these cannot be told,
    all values are NaN and `problem` says why; else it is empty.
    """

    values: Array
    reference: int
    problem: str = ""


def mad(values: Array) -> float:
    """Return the median absolute deviation from the median, as an estimate of a normal SD.

    1.4826 median |x - median x|, with the factor of Croux & Rousseeuw (1992, Computational
    Statistics 1:411) for small samples, without which it is too small: n / (n - 0.8) above nine.
    """
    count = len(values)
    factor = _SMALL.get(count, count / (count - 0.8) if count > 1 else math.nan)
    return _NORMAL * factor * float(np.median(np.abs(values - np.median(values))))


def median_polish(table: Array) -> tuple[float, Array, Array]:
    """Return the overall value, the rows' and the columns' effects of a table with gaps (NaN).

    Tukey 1977, Exploratory Data Analysis, chapter 11: the medians of rows and columns are taken out
    in turn until nothing moves. A row or column without values has the effect 0.
    """
    rest = table.astype(np.float64).copy()
    whole, rows, columns = 0.0, np.zeros(rest.shape[0]), np.zeros(rest.shape[1])
    total = math.inf
    for _ in range(_MOST_SWEEPS):
        step = _medians(rest, axis=1)
        rest, rows = rest - step[:, None], rows + step
        middle = _middle(columns, rest, axis=0)
        whole, columns = whole + middle, columns - middle
        step = _medians(rest, axis=0)
        rest, columns = rest - step[None, :], columns + step
        middle = _middle(rows, rest, axis=1)
        whole, rows = whole + middle, rows - middle
        before, total = total, float(np.nansum(np.abs(rest)))
        if before - total <= _TOLERANCE * total:
            break
    rows[np.isnan(table).all(axis=1)] = 0.0
    columns[np.isnan(table).all(axis=0)] = 0.0
    return whole, rows, columns


def _medians(table: Array, axis: int) -> Array:
    """Return the medians along `axis`, 0 where there is no value.

    As numpy's nanmedian, which takes a hundred times as long for tables of the size of a plate.
    """
    lines = np.sort(table if axis == 1 else table.T, axis=1)  # NaN goes last
    counts = np.maximum((~np.isnan(lines)).sum(axis=1), 1)
    every = np.arange(len(lines))
    middles = (lines[every, (counts - 1) // 2] + lines[every, counts // 2]) / 2
    return np.asarray(np.nan_to_num(middles))


def _middle(effects: Array, table: Array, axis: int) -> float:
    """Return the median of the effects of those rows or columns that have values."""
    return float(np.median(effects[~np.isnan(table).all(axis=axis)]))


def normalise(
    method: str,
    scores: Array,
    roles: Sequence[str],
    places: Sequence[tuple[int, int]],
) -> Normalised:
    """Return the normalised scores of a plate's wells, which have these roles and places.

    `scores` [wells] is NaN where a well does not count; `places` are (row, column) from 0.

    controls  (x - median) / MAD of the negative controls
    mad       (x - median) / MAD of the sample wells: the robust z score (Malo et al. 2006, Nature
              Biotechnology 24:167)
    b-score   (x - plate - row - column effect) / MAD of the samples' residuals, the effects by
              median polish of the sample wells (Brideau et al. 2003, J Biomol Screen 8:634; Malo
              et al. 2006)

    The latter two hold only where most samples do nothing and lie at random.
    """
    kind = "negative" if method == "controls" else "sample"
    known = ~np.isnan(scores)
    reference = known & np.array([role == kind for role in roles], bool)
    count = int(reference.sum())
    fewest = FEWEST_CONTROLS if method == "controls" else FEWEST_SAMPLES
    if count < fewest:
        what = "negative control" if method == "controls" else "sample"
        return _unknown(
            scores, count, f"{count} usable {what} wells, the method {method} needs {fewest}"
        )
    if method == "b-score":
        fitted = _fitted(scores, reference, places)
    else:
        fitted = np.full(len(scores), float(np.median(scores[reference])))
    rest = scores - fitted
    spread = mad(rest[reference])
    if not spread > 1e-9 * max(1.0, float(np.abs(scores[reference]).max())):
        return _unknown(scores, count, f"the {count} {kind} wells do not differ: no spread")
    centre = 0.0 if method == "b-score" else float(np.median(rest[reference]))
    return Normalised((rest - centre) / spread, count)


def _fitted(
    scores: Array, reference: NDArray[np.bool_], places: Sequence[tuple[int, int]]
) -> Array:
    shape = (max(row for row, _ in places) + 1, max(column for _, column in places) + 1)
    table = np.full(shape, np.nan)
    for score, (row, column), counts in zip(scores, places, reference, strict=True):
        if counts:
            table[row, column] = score
    whole, rows, columns = median_polish(table)
    return np.array([whole + rows[row] + columns[column] for row, column in places])


def _unknown(scores: Array, count: int, problem: str) -> Normalised:
    return Normalised(np.full(len(scores), np.nan), count, problem)
