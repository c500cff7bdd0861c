"""One model's judgement: tiles to wells, both levels' measures, controls and dose series.

A well has two scores. `log_odds` is the mean of its tiles' ln(p / (1 - p)); `probability`, the same
as a probability, is what is called (from 0.5 on) and gated on. The log odds have no end, so they
still tell apart what the probability squeezes. Z', V and EC50 are given for both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from common.assay import z_factor
from common.errors import StageError
from common.pooling import log_odds, pooled
from common.tiles import Tile, Tiles
from numpy.typing import NDArray

from . import dose, measures
from .bootstrap import exact_interval, intervals
from .measures import Array

THRESHOLD = 0.5
ROLES = ("positive", "negative")
_AUC_MAY_DIFFER = 0.005
_FACTOR_MAY_FALL = 0.01

SCALES: Mapping[str, Callable[[Array], float]] = {
    "probability": lambda tiles: float(pooled(tiles)),
    "log_odds": lambda tiles: float(log_odds(tiles).mean()),
}


@dataclass(frozen=True)
class Judged:
    """What a model said of its fold: rows of the tiles, their probabilities, each well's place.

    `wells` maps a well's name to positions in `rows`; `of` to the well's first tile.
    """

    fold: str
    rows: tuple[int, ...]
    probability: Array
    wells: Mapping[str, NDArray[np.intp]]
    of: Mapping[str, Tile]

    def score(self, well: str, scale: str = "probability") -> float:
        """Return the well's score on one of SCALES."""
        return SCALES[scale](self.probability[self.wells[well]])

    def scores(self, wells: Sequence[str], scale: str) -> Array:
        """Return the scores of `wells` on one of SCALES."""
        return np.array([self.score(well, scale) for well in wells])

    def controls(self, role: str) -> list[str]:
        """Return the wells of a role."""
        return [well for well, tile in self.of.items() if tile.role == role]

    def positive(self, well: str) -> bool:
        """Return whether the well is called positive."""
        return self.score(well) >= THRESHOLD

    @property
    def labels(self) -> dict[str, int]:
        """The label of each well that has one."""
        return {well: tile.label for well, tile in self.of.items() if tile.label is not None}


def held_out(tiles: Tiles, fold: str) -> dict[str, list[int]]:
    """Return the rows of each well that `fold` judges, in the index' order.

    Raises StageError where there is none, where a well's tiles disagree on its fold or label, or
    where the labelled wells are not of both classes.
    """
    wells = _rows(tiles)
    for well, rows in wells.items():
        if len({(tiles.index[row].fold, tiles.index[row].label) for row in rows}) > 1:
            raise StageError(f"the tiles of {well} disagree on its fold or label; prepare again")
    held = _of_fold(tiles, wells, fold)
    if not held:
        raise StageError(f"the fold {fold} holds no well to judge; correct the layout's folds")
    found = (tiles.index[rows[0]].label for rows in held.values())
    labels = {label for label in found if label is not None}
    if labels != {0, 1}:
        raise StageError(
            f"the held-out wells of {fold} have not both classes, only {sorted(labels) or 'none'}; "
            "nothing can be judged: correct the layout's folds or labels"
        )
    return held


def trained_on(tiles: Tiles, fold: str) -> dict[str, list[int]]:
    """Return the rows of the wells of the next fold, which the model of `fold` may have seen.

    One fold of them, so that the work grows with the number of folds and not with its square.
    """
    folds = tiles.folds
    following = folds[(folds.index(fold) + 1) % len(folds)]
    return _of_fold(tiles, _rows(tiles), following) if following != fold else {}


def _rows(tiles: Tiles) -> dict[str, list[int]]:
    wells: dict[str, list[int]] = {}
    for row, tile in enumerate(tiles.index):
        wells.setdefault(tile.well, []).append(row)
    return wells


def _of_fold(tiles: Tiles, wells: Mapping[str, list[int]], fold: str) -> dict[str, list[int]]:
    return {well: rows for well, rows in wells.items() if tiles.index[rows[0]].fold == fold}


def judged(
    tiles: Tiles, fold: str, wells: Mapping[str, Sequence[int]], probability: Array
) -> Judged:
    """Return the judgement from the probabilities of the rows of `held_out`, in its order."""
    rows = tuple(row for rows in wells.values() for row in rows)
    ends = np.cumsum([len(rows) for rows in wells.values()])
    places = np.split(np.arange(len(rows)), ends[:-1])
    return Judged(
        fold,
        rows,
        probability,
        dict(zip(wells, places, strict=True)),
        {well: tiles.index[rows[0]] for well, rows in wells.items()},
    )


def measure(of: Judged, seed: int) -> dict[str, Any]:
    """Return the judgement's measures as JSON-able data; None is what cannot be told."""
    labels = list(of.labels.values())
    by_tile = [of.probability[of.wells[well]] for well in of.labels]
    by_well = [np.array([of.score(well)]) for well in of.labels]
    controls = {role: of.controls(role) for role in ROLES}
    scored = {scale: [of.scores(controls[role], scale) for role in ROLES] for scale in SCALES}
    return {
        "well": _level(labels, by_well, seed),
        "tile": _level(labels, by_tile, seed),
        "z_factor": {scale: _z_factor(found) for scale, found in scored.items()},
        "z_interval": {
            scale: measures.jackknife(_z_factor, found) for scale, found in scored.items()
        },
        "controls": {role: len(wells) for role, wells in controls.items()},
        "series": _series(of),
    }


def _z_factor(groups: Sequence[Array]) -> float | None:
    positive, negative = groups
    return z_factor(positive, negative)


def _level(labels: Sequence[int], scores: Sequence[Array], seed: int) -> dict[str, Any]:
    values = np.concatenate(scores)
    truth = np.repeat(np.array(labels, float), [len(s) for s in scores])
    counts = measures.confusion(truth, (values >= THRESHOLD).astype(float))
    bins = measures.reliability(truth, values)
    level: dict[str, Any] = {
        "accuracy": float(measures.accuracy(np.array(counts))),
        "weighted_f1": float(measures.weighted_f1(np.array(counts))),
        "auc": measures.auc(truth, values),
        "confusion": counts,
        "interval": intervals(labels, scores, THRESHOLD, seed),
        "brier": measures.brier(truth, values),
        "calibration_error": measures.calibration_error(bins),
        "reliability": bins,
    }
    if len(values) == len(labels):  # the exact interval needs independent items: wells, not tiles
        level["accuracy_exact"] = exact_interval(counts[0][0] + counts[1][1], len(values))
    return level


def _dose_series(of: Judged) -> dict[tuple[str, str], dict[str, float]]:
    """Return the dose of each well of each series, (compound, unit); dose 0 alone is none."""
    series: dict[tuple[str, str], dict[str, float]] = {}
    for well, tile in of.of.items():
        if tile.dose is not None:
            series.setdefault((tile.compound, tile.unit), {})[well] = float(tile.dose)
    return {name: doses for name, doses in series.items() if any(doses.values())}


def _by_dose(of: Judged, doses: Mapping[str, float], scale: str) -> list[Array]:
    """Return the scores of the wells of each dose."""
    return [
        of.scores([well for well, dose in doses.items() if dose == one], scale)
        for one in sorted(set(doses.values()))
    ]


def _series(of: Judged) -> list[dict[str, Any]]:
    found = []
    for (compound, unit), doses in _dose_series(of).items():
        grouped = {scale: _by_dose(of, doses, scale) for scale in SCALES}
        wells = list(doses)
        found.append(
            {
                "compound": compound,
                "unit": unit,
                "wells": wells,
                "doses": list(doses.values()),
                "v_factor": {scale: measures.v_factor(groups) for scale, groups in grouped.items()},
                "v_interval": {
                    scale: measures.jackknife(measures.v_factor, groups)
                    for scale, groups in grouped.items()
                },
                "fit": {
                    scale: asdict(dose.fit(list(doses.values()), list(of.scores(wells, scale))))
                    for scale in SCALES
                },
            }
        )
    return found


def factors(of: Judged) -> dict[str, float | None]:
    """Return Z' and each series' V on either scale, by name, of wells that may have no label."""
    found = {
        f"Z' by {scale.replace('_', ' ')}": _z_factor(
            [of.scores(of.controls(role), scale) for role in ROLES]
        )
        for scale in SCALES
    }
    for (compound, _), doses in _dose_series(of).items():
        for scale in SCALES:
            name = f"V of {compound} by {scale.replace('_', ' ')}"
            found[name] = measures.v_factor(_by_dose(of, doses, scale))
    return found


def worse_factors(one: Judged, other: Judged) -> list[str]:
    """Return which of the factors of `other` are over 0.01 below those of `one`, or not known."""
    mine, theirs = factors(one), factors(other)
    return [
        f"{name} {value:.3f} in place of {before:.3f}" if value is not None else f"no {name}"
        for name, value in theirs.items()
        if (before := mine[name]) is not None
        and (value is None or value < before - _FACTOR_MAY_FALL)
    ]


def changed_calls(one: Judged, other: Judged) -> list[str]:
    """Return the held-out wells, labelled or not, that the two call differently."""
    return [well for well in one.wells if one.positive(well) != other.positive(well)]


def close_enough(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether both levels' AUC differ by at most 0.005; both are of `measure`."""
    return all(abs(one[k]["auc"] - other[k]["auc"]) <= _AUC_MAY_DIFFER for k in ("tile", "well"))
