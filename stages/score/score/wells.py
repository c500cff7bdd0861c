"""A plate's wells: scores of the model, features of their nuclei, and flags."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from common.inference import probabilities
from common.pooling import log_odds, pooled
from common.tiles import Tile, Tiles
from numpy.typing import NDArray

from .model import SEEN, Released
from .nuclei import FEATURES, Nuclei

Array = NDArray[np.float64]
FEW_CELLS, TRAINED_ON = "few_cells", "trained_on"


@dataclass(frozen=True)
class Fields:
    """A well's fields in the tiles: `usable` ones, as rows of the tiles, and what was left out.

    `flags` are the well's own: set where under half of its fields are usable.
    """

    tile: Tile
    usable: tuple[tuple[int, ...], ...]
    total: int
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Score:
    """What the models say of a well; NaN where there is nothing to tell it from.

    probability       mean over the models of the pooled tiles (`common.pooling`), as served
    log_odds          mean over models and tiles of ln(p / (1 - p))
    spread_of_tiles   SD over tiles of the models' mean log odds, n - 1
    spread_of_models  SD over models of their tiles' mean log odds, n - 1
    uncertainty       standard error of log_odds: sqrt(tiles' SD^2 / tiles + models' SD^2 / models),
                      tiles and models taken for two independent samples. It does not hold what
                      differs from well to well: for that compare replicates
    """

    probability: float = math.nan
    log_odds: float = math.nan
    spread_of_tiles: float = math.nan
    spread_of_models: float = math.nan
    uncertainty: float = math.nan
    tiles: int = 0
    models: int = 0
    models_agree: bool = True


@dataclass(frozen=True)
class Measured:
    """What is known of a well's nuclei: count a field, and the median of each feature (NaN)."""

    count: int = 0
    fields: int = 0
    features: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(FEATURES, math.nan))


def fields_of(tiles: Tiles) -> dict[str, Fields]:
    """Return each well's fields, in the order of the tiles.

    A flagged field (blank, saturated, out of focus, missing) is left out. Where under half of a
    well's fields are left, the well has their flags; what it has is used, if anything.
    """
    rows: dict[str, dict[int, list[int]]] = {}
    for row, tile in enumerate(tiles.index):
        rows.setdefault(tile.well, {}).setdefault(tile.field, []).append(row)
    found = {}
    for well, by_field in rows.items():
        marks = {f: {m for r in own for m in tiles.index[r].flags.split()}
                 for f, own in by_field.items()}  # fmt: skip
        usable = tuple(tuple(own) for f, own in by_field.items() if not marks[f])
        flags: tuple[str, ...] = ()
        if 2 * len(usable) < len(by_field):
            flags = tuple(sorted(set().union(*marks.values())))
            seen = [f for f in by_field if not marks[f] & {"missing", "unreadable"}]
            usable = tuple(tuple(by_field[f]) for f in seen)
        first = next(iter(by_field.values()))[0]
        found[well] = Fields(tiles.index[first], usable, len(by_field), flags)
    return found


def score(answers: Array, threshold: float) -> Score:
    """Return a well's score from its tiles' probabilities [models, tiles]."""
    models, tiles = answers.shape
    odds = log_odds(answers)
    by_model, by_tile = odds.mean(axis=1), odds.mean(axis=0)
    of_tiles = float(by_tile.std(ddof=1)) if tiles > 1 else math.nan
    of_models = float(by_model.std(ddof=1)) if models > 1 else math.nan
    parts = [s**2 / n for s, n in ((of_tiles, tiles), (of_models, models)) if not math.isnan(s)]
    calls = pooled(answers) >= threshold
    return Score(
        probability=float(pooled(answers).mean()),
        log_odds=float(odds.mean()),
        spread_of_tiles=of_tiles,
        spread_of_models=of_models,
        uncertainty=math.sqrt(sum(parts)) if parts else math.nan,
        tiles=tiles,
        models=models,
        models_agree=bool(calls.all() or not calls.any()),
    )


def scores(
    tiles: Tiles, wells: Mapping[str, Fields], model: Released
) -> dict[str, tuple[Score, str]]:
    """Return each well's score and what the well was to the models (see `model.Released.judges`).

    Each model is loaded once, and asked for the tiles that it may judge. Raises StageError where
    onnxruntime cannot run it or an answer is no probability.
    """
    judges = {well: model.judges(tiles, of.tile) for well, of in wells.items()}
    answers: dict[str, dict[int, float]] = {}
    for name, path in model.files.items():
        rows = [row for well, of in wells.items() if name in judges[well][0]
                for own in of.usable for row in own]  # fmt: skip
        if rows:

            def progress(done: int, name: str = name, total: int = len(rows)) -> None:
                if done == total or done % 1000 == 0:
                    print(f"model {name}: {done} of {total} tiles", flush=True)

            found = probabilities(path, tiles, rows, progress)
            answers[name] = dict(zip(rows, map(float, found), strict=True))
    result = {}
    for well, of in wells.items():
        names, standing = judges[well]
        rows = [row for own in of.usable for row in own]
        result[well] = (
            score(np.array([[answers[n][row] for row in rows] for n in names]), model.threshold)
            if rows
            else Score(),
            standing,
        )
    return result


def nuclei_of_wells(
    wells: Mapping[str, Fields], nuclei: Iterator[Nuclei]
) -> Iterator[tuple[str, Measured, Mapping[str, NDArray[np.float32]]]]:
    """Yield each well's summary and the features of its nuclei, from the fields' in their order."""
    for well, of in wells.items():
        parts = [next(nuclei) for _ in of.usable]
        cells = {
            name: np.concatenate([p.features[name] for p in parts] or [np.zeros(0, np.float32)])
            for name in FEATURES
        }
        medians = {
            name: float(np.nanmedian(v)) if np.isfinite(v).any() else math.nan
            for name, v in cells.items()
        }
        yield well, Measured(sum(p.count for p in parts), len(parts), medians), cells


def few_cells(
    wells: Mapping[str, Fields], measured: Mapping[str, Measured], fewest: int, share: float
) -> dict[str, bool]:
    """Return which wells have too few nuclei a field: below `fewest`, or below a share of usual.

    Usual is the median of the plate's negative controls, or of all wells where there are none.
    """
    density = {w: m.count / m.fields if m.fields else math.nan for w, m in measured.items()}
    known = {w: d for w, d in density.items() if not math.isnan(d)}
    usual = [d for w, d in known.items() if wells[w].tile.role == "negative" and not wells[w].flags]
    usual = usual or list(known.values())
    limit = max(float(fewest), share * float(np.median(usual)) if usual else 0.0)
    return {well: not d >= limit for well, d in density.items()}


def flags(of: Fields, standing: str, *, few: bool) -> tuple[str, ...]:
    """Return all of a well's flags; a flagged well does not become a hit."""
    own: Sequence[str] = of.flags
    if few and not {"missing", "unreadable"} & set(own):
        own = (*own, FEW_CELLS)
    return tuple(sorted({*own, *([TRAINED_ON] if standing == SEEN else [])}))
