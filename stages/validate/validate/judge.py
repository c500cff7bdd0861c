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
_AUC_MAY_DIFFER = 0.005

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
    wells: dict[str, list[int]] = {}
    for row, tile in enumerate(tiles.index):
        wells.setdefault(tile.well, []).append(row)
    for well, rows in wells.items():
        if len({(tiles.index[row].fold, tiles.index[row].label) for row in rows}) > 1:
            raise StageError(f"the tiles of {well} disagree on its fold or label; prepare again")
    held = {well: rows for well, rows in wells.items() if tiles.index[rows[0]].fold == fold}
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
    roles = {
        role: [well for well, tile in of.of.items() if tile.role == role]
        for role in ("positive", "negative")
    }
    return {
        "well": _level(labels, by_well, seed),
        "tile": _level(labels, by_tile, seed),
        "z_factor": {
            scale: z_factor(
                *(
                    np.array([of.score(w, scale) for w in roles[r]])
                    for r in ("positive", "negative")
                )
            )
            for scale in SCALES
        },
        "controls": {role: len(wells) for role, wells in roles.items()},
        "series": _series(of),
    }


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


def _series(of: Judged) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[str]] = {}
    for well, tile in of.of.items():
        if tile.dose is not None:
            groups.setdefault((tile.compound, tile.unit), []).append(well)
    found = []
    for (compound, unit), wells in groups.items():
        doses = [float(of.of[well].dose or 0) for well in wells]
        if not any(doses):
            continue
        by_dose = [[w for w, d in zip(wells, doses, strict=True) if d == one] for one in set(doses)]
        found.append(
            {
                "compound": compound,
                "unit": unit,
                "wells": wells,
                "doses": doses,
                "v_factor": {
                    scale: measures.v_factor(
                        [np.array([of.score(w, scale) for w in ws]) for ws in by_dose]
                    )
                    for scale in SCALES
                },
                "fit": {
                    scale: asdict(dose.fit(doses, [of.score(w, scale) for w in wells]))
                    for scale in SCALES
                },
            }
        )
    return found


def changed_calls(one: Judged, other: Judged) -> list[str]:
    """Return the held-out wells, labelled or not, that the two call differently."""
    return [well for well in one.wells if one.positive(well) != other.positive(well)]


def close_enough(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether both levels' AUC differ by at most 0.005; both are of `measure`."""
    return all(abs(one[k]["auc"] - other[k]["auc"]) <= _AUC_MAY_DIFFER for k in ("tile", "well"))
