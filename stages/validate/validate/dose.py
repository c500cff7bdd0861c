"""Dose series: their V-factor and their EC50 by a four-parameter logistic.

    y = bottom + (top - bottom) / (1 + (EC50 / dose)^hill), hill > 0; bottom at dose 0

DeLean, Munson & Rodbard 1978, Am J Physiol 235:E97; the limits on what is reported follow
Sebaugh 2011, Pharm Stat 10:128. What a logistic cannot say is flagged and has no EC50.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from scipy.stats import f as f_distribution
from scipy.stats import t as t_distribution

from .measures import Array

HILL_LIMITS = (0.2, 12.0)
_LEAST_R2 = 0.7
_LEVEL = 0.05
_STEEP = 0.999


@dataclass(frozen=True)
class Fit:
    """A fitted logistic; `flag` says why there is none (then only `r2` may be known), or is empty.

    `low` and `high` are the EC50's 95 % interval, all three in the series' unit.
    """

    flag: str
    bottom: float | None = None
    top: float | None = None
    hill: float | None = None
    r2: float | None = None
    ec50: float | None = None
    low: float | None = None
    high: float | None = None


def logistic(doses: Array, bottom: float, top: float, ec50: float, hill: float) -> Array:
    """Return the response at each dose; at dose 0 it is `bottom`."""
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(bottom + (top - bottom) / (1 + (ec50 / doses) ** hill))


def fit(doses: Sequence[float], responses: Sequence[float]) -> Fit:
    """Return the least-squares logistic through one response a well.

    Flagged are: fewer than four doses above 0 or five wells; a response that does not change with
    the dose (F test against a constant, p > 0.05); a logistic that explains under 70 % of the
    variance; an EC50, or an end of its interval, outside of the doses above 0. Where the slope is
    at its limit the response steps between two doses, which then are the interval.
    """
    x, y = np.asarray(doses, float), np.asarray(responses, float)
    if not (np.isfinite(x).all() and np.isfinite(y).all() and (x >= 0).all()):
        return Fit("a dose or a response is not a finite number")
    tested = np.unique(x[x > 0])
    if len(tested) < 4 or len(x) < 5:
        return Fit(f"{len(tested)} doses in {len(x)} wells are too few for a logistic")
    variance = float(((y - y.mean()) ** 2).sum())
    if variance <= 1e-12 * max(1.0, float(np.abs(y).max()) ** 2):
        return Fit("the response is the same at every dose")
    parameters, jacobian, rest = _least_squares(x, y, tested)
    bottom, top, log_ec50, log_hill = (float(p) for p in parameters)
    ec50, hill = float(np.exp(log_ec50)), float(np.exp(log_hill))
    free = len(x) - 4
    r2 = 1 - rest / variance
    ratio = (variance - rest) / 3 / max(rest / free, 1e-300)
    if float(f_distribution.sf(ratio, 3, free)) > _LEVEL:
        return Fit("the response does not change with the dose (F test, p > 0.05)", r2=r2)
    if r2 < _LEAST_R2:
        return Fit(f"a logistic explains {r2:.0%} of the variance, under {_LEAST_R2:.0%}", r2=r2)
    if not tested[0] < ec50 < tested[-1]:
        side = "below" if ec50 <= tested[0] else "above"
        return Fit(f"the EC50 would lie {side} the doses tested", r2=r2)
    reach = _reach(jacobian, rest / free, free)
    below, above = tested[tested < ec50][-1], tested[tested > ec50][0]
    # From 10 % to 90 % of the effect the dose grows by the factor 81^(1 / hill).
    step = 81 ** (1 / hill) < above / below
    if hill >= _STEEP * HILL_LIMITS[1] or (step and not np.isfinite(reach)):
        low, high = float(below), float(above)
    else:
        low, high = float(np.exp(log_ec50 - reach)), float(np.exp(min(log_ec50 + reach, 700)))
    if low < tested[0] or high > tested[-1]:
        return Fit("the EC50's 95 % interval reaches outside of the doses tested", r2=r2)
    return Fit("", bottom, top, hill, r2, ec50, low, high)


def _reach(jacobian: Array, variance: float, free: int) -> float:
    """Return half the 95 % interval of ln EC50; infinite where the wells do not determine it."""
    lengths = np.maximum(np.linalg.norm(jacobian, axis=0), 1e-300)
    _, sizes, turned = np.linalg.svd(jacobian / lengths, full_matrices=False)
    if sizes[-1] < 1e-6 * sizes[0]:
        return float("inf")
    spread = float(((turned[:, 2] / sizes) ** 2).sum()) * variance / lengths[2] ** 2
    return float(t_distribution.ppf(1 - _LEVEL / 2, free) * np.sqrt(spread))


def _least_squares(x: Array, y: Array, tested: Array) -> tuple[Array, Array, float]:
    """Return parameters (bottom, top, ln EC50, ln hill), Jacobian and squares of the best start."""
    reach = float(np.ptp(y))
    width = np.log(tested[-1] / tested[0])
    limits = (
        [y.min() - reach, y.min() - reach, np.log(tested[0]) - width, np.log(HILL_LIMITS[0])],
        [y.max() + reach, y.max() + reach, np.log(tested[-1]) + width, np.log(HILL_LIMITS[1])],
    )
    rising = np.corrcoef(np.log(np.maximum(x, tested[0] / 10)), y)[0, 1] >= 0
    ends = (y.min(), y.max()) if rising else (y.max(), y.min())

    def residuals(p: Array) -> Array:
        return logistic(x, p[0], p[1], np.exp(p[2]), np.exp(p[3])) - y

    found = [
        least_squares(
            residuals, [*ends, start, np.log(hill)], bounds=limits, x_scale="jac", max_nfev=200
        )
        for start in np.log(tested[0]) + width * np.array([0.1, 0.3, 0.5, 0.7, 0.9])
        for hill in (1.0, 4.0)
    ]
    best = min(found, key=lambda f: f.cost)
    return best.x, best.jac, float(2 * best.cost)
