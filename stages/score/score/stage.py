"""Scores one plate: its wells by a released model, its nuclei, and whether the plate is usable."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import digest
from common.errors import StageError
from common.stage_io import StageIO
from common.tiles import Tiles, read_problem, read_tiles
from common.wells import row_number
from pages import montage

from . import kept, nuclei, plate_quality, tables, wells
from . import model as models
from .model import Released
from .normalisation import METHODS, Normalised, mad, normalise
from .wells import Fields, Measured, Score

FORMAT = 2
PLATE, MONTAGE = "plate.json", "montage.jpg"
PLATE_FAILED = "plate_failed"
_SCALES = {"Probability": "probability", "LogOdds": "log_odds"}


@dataclass(frozen=True)
class Rules:
    """What makes a plate and a well usable, and how scores are normalised.

    Raises StageError for what cannot be.
    """

    normalisation: str
    min_z_prime: float
    min_cells: int
    min_cell_share: float
    nucleus_diameter: float

    def __post_init__(self) -> None:
        if self.normalisation not in METHODS:
            raise StageError(
                f"normalisation = {self.normalisation} is none of {', '.join(METHODS)}"
            )
        if self.min_cells < 0:
            raise StageError(f"min_cells = {self.min_cells} must be 0 or more")
        if not 0 <= self.min_cell_share <= 1:
            raise StageError(f"min_cell_share = {self.min_cell_share:g} is not within 0 to 1")
        if not 4 <= self.nucleus_diameter <= 256:
            raise StageError(
                f"nucleus_diameter = {self.nucleus_diameter:g} must be 4 to 256 pixels of a tile"
            )


def score(task: StageIO) -> None:
    """Run the stage as Kubeflow Pipelines asks."""
    rules = Rules(
        task.parameter("normalisation", str, "controls"),
        task.parameter("min_z_prime", float, 0.0),
        task.parameter("min_cells", int, 10),
        task.parameter("min_cell_share", float, 0.5),
        task.parameter("nucleus_diameter", float, nuclei.DIAMETER),
    )
    given = task.input("tiles").path
    problem = read_problem(given)
    servable = task.input("servable").path
    task.check_handed("servable_digest", digest.folder_digest(servable))
    released = models.load(servable)
    name = str(json.loads(task.parameter("listed", str))["plate"])
    asked: dict[str, Any] = {
        "model": task.parameter("model", str, ""),
        "image": os.environ.get("PLATELINE_IMAGE", ""),
    }
    folder = task.output("scores")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if problem:
            task.check_handed("tiles_digest", digest.folder_digest(given))
            document = broken_plate(folder, name, released, rules, asked, problem)
        else:
            tiles = read_tiles(given)
            task.check_handed("tiles_digest", tiles.digest)
            if problem := models.misfit(released, tiles):
                document = broken_plate(folder, name, released, rules, asked, problem)
            else:
                channels = {"channels": dict(tiles.plate["layout"].get("channels", {}))}
                document = score_plate(folder, name, tiles, released, rules, asked | channels)
        kept_as = kept.keep(folder, task.parameter("workspace_name", str, ""))
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise StageError(f"cannot write {folder}: {error.strerror or error}; make room") from None
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    flat = {k: v for k, v in document["row"].items() if isinstance(v, int | float)}
    if "metrics" in task.output_names():
        task.set_metadata("metrics", flat)
        task.output("metrics").write_text(json.dumps(flat, indent=1) + "\n")
    task.set_parameter("digest", kept_as)
    print(f"plate {name}: {document['row']['Plate_Status']}", flush=True)
    for problem in document["problems"]:
        print(f"plate {name}: {problem}", flush=True)


def score_plate(
    folder: Path,
    name: str,
    tiles: Tiles,
    released: Released,
    rules: Rules,
    asked: Mapping[str, Any],
) -> dict[str, Any]:
    """Write wells, cells, columns.csv, montage and plate.json of a plate; return the last.

    Raises StageError for a model that cannot be run.
    """
    of = wells.fields_of(tiles)
    measured = _measure_nuclei(folder / "cells.parquet", name, tiles, of, rules.nucleus_diameter)
    scores = wells.scores(tiles, of, released)
    few = wells.few_cells(of, measured, rules.min_cells, rules.min_cell_share)
    flags = {w: wells.flags(of[w], scores[w][1], few=few[w]) for w in of}
    facts = _facts(name, tiles, of, scores, measured, flags, rules.normalisation)
    row, normalised = _judge(facts)
    problems = _problems(row, normalised, rules)
    if problems:
        row |= {"Plate_Status": "failed", "Plate_Problems": "; ".join(problems)}
        flags = {w: (*own, PLATE_FAILED) for w, own in flags.items()}
    known = {
        "Metadata_PlateDigest": tiles.plate.get("plate_digest", ""),
        "Metadata_ModelDigest": released.digest,
    }
    row |= known | {"Metadata_LayoutDigest": tiles.plate["layout"].get("digest", "")}
    quality = {entry["well"]: entry.get("fields", []) for entry in tiles.plate["wells"]}
    rows = [
        _well(name, of[w], *scores[w], measured[w], released.threshold)
        | known
        | _image(quality.get(w, []))
        | {"Metadata_Flags": " ".join(flags[w]), "Score_Normalised": float(value)}
        for w, value in zip(of, normalised.values, strict=True)
    ]
    picture = _montage(folder / MONTAGE, tiles)
    return _write(folder, name, rows, row, problems, released, rules, {**asked, **picture})


def broken_plate(
    folder: Path,
    name: str,
    released: Released,
    rules: Rules,
    asked: Mapping[str, Any],
    problem: str,
) -> dict[str, Any]:
    """Write the tables of a plate that could not be prepared: no wells, and why."""
    row = {
        "Metadata_Plate": name,
        "Metadata_ModelDigest": released.digest,
        "Plate_Status": "failed",
        "Plate_Problems": problem,
        "Plate_Wells": 0,
        "Plate_WellsFlagged": 0,
        "Plate_Normalisation": rules.normalisation,
        "Plate_ReferenceWells": 0,
    }
    unknown = {"shape": [0, 0], "pixel_size": None}
    return _write(folder, name, [], row, [problem], released, rules, {**asked, **unknown})


def _montage(path: Path, tiles: Tiles) -> dict[str, Any]:
    """Write a tile of each well side by side; return shape and pixel size of the plate."""
    layout = tiles.plate["layout"]
    shape = layout["rows"], layout["columns"]
    wells = {
        ((row_number(tile.row) or 1) - 1, tile.column - 1): number
        for number in montage.middle_tiles(tiles).values()
        for tile in [tiles.index[number]]
    }
    path.write_bytes(montage.montage(tiles, wells, shape, montage.display_range(tiles)))
    return {"shape": list(shape), "pixel_size": montage.tile_pixel(tiles.plate)}


def _write(
    folder: Path,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    row: Mapping[str, Any],
    problems: Sequence[str],
    released: Released,
    rules: Rules,
    asked: Mapping[str, Any],
) -> dict[str, Any]:
    tables.write(folder, "wells", tables.table(tables.WELLS, rows))
    tables.write_dictionary(folder / "columns.csv", {"wells": tables.WELLS, "cells": tables.CELLS})
    document = {
        "format": FORMAT,
        "plate": name,
        "problems": list(problems),
        "row": {k: v for k, v in row.items() if not (isinstance(v, float) and math.isnan(v))},
        "parameters": asdict(rules),
        "model_digest": released.digest,
        **asked,
    }
    text = json.dumps(document, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    (folder / PLATE).write_text(text + "\n", encoding="utf-8")
    return document


def _measure_nuclei(
    path: Path, name: str, tiles: Tiles, of: Mapping[str, Fields], diameter: float
) -> dict[str, Measured]:
    """Write each nucleus' features to `path`, a well at a time; return the wells' summaries."""
    layout = tiles.plate["layout"]
    scale = max(t / s for t, s in zip(layout["target"], layout["size"], strict=True))
    fields = [field for well in of.values() for field in well.usable]
    found = nuclei.of_fields(tiles, fields, scale=scale, diameter=diameter)
    schema = tables.schema(tables.CELLS)
    measured = {}
    with pq.ParquetWriter(path, schema, compression="zstd") as file:
        for done, (well, summary, cells) in enumerate(wells.nuclei_of_wells(of, found), 1):
            measured[well] = summary
            count = len(next(iter(cells.values())))
            columns = [pa.array([name] * count), pa.array([well] * count)]
            columns += [pa.array(values, from_pandas=True) for values in cells.values()]
            if count:
                file.write_table(pa.Table.from_arrays(columns, schema=schema))
            if done == len(of) or done % 96 == 0:
                print(f"nuclei: {done} of {len(of)} wells", flush=True)
    return measured


@np.errstate(invalid="ignore")
def _facts(
    name: str,
    tiles: Tiles,
    of: Mapping[str, Fields],
    scores: Mapping[str, tuple[Score, str]],
    measured: Mapping[str, Measured],
    flags: Mapping[str, tuple[str, ...]],
    method: str,
) -> dict[str, Any]:
    """Return the plate's wells as columns, NaN for what a flagged well would have said."""
    first = [of[w].tile for w in of]
    usable = np.array([not flags[w] for w in of])
    columns = {scale: np.where(usable, [getattr(scores[w][0], scale) for w in of], math.nan)
               for scale in _SCALES.values()}  # fmt: skip
    count = np.array([m.count / m.fields if m.fields else math.nan for m in measured.values()])
    return {
        "name": name,
        "method": method,
        "roles": [t.role for t in first],
        "places": [((row_number(t.row) or 1) - 1, t.column - 1) for t in first],
        "groups": [(t.role, t.compound, t.dose, t.unit) for t in first],
        "shape": (tiles.plate["layout"]["rows"], tiles.plate["layout"]["columns"]),
        "flagged": int((~usable).sum()),
        "scores": columns,
        "count": count,
    }


def _judge(facts: Mapping[str, Any]) -> tuple[dict[str, Any], Normalised]:
    """Return the plate's row of PLATES, as far as it follows from its wells, and the scores."""
    roles, places, odds = facts["roles"], facts["places"], facts["scores"]["log_odds"]
    apart = plate_quality.separation(facts["scores"], roles)
    drift = plate_quality.drift(odds, roles, places)
    edge = plate_quality.edge_effect(odds, facts["groups"], places, facts["shape"])
    cells = plate_quality.edge_effect(facts["count"], facts["groups"], places, facts["shape"])
    negative = np.array([v for v, role in zip(odds, roles, strict=True)
                         if role == "negative" and not math.isnan(v)])  # fmt: skip
    normalised = normalise(facts["method"], odds, roles, places)
    row: dict[str, Any] = {
        "Metadata_Plate": facts["name"],
        "Plate_Status": "ok",
        "Plate_Problems": "",
        "Plate_Wells": len(roles),
        "Plate_WellsFlagged": facts["flagged"],
        "Plate_NegativeMedian": float(np.median(negative)) if len(negative) else math.nan,
        "Plate_NegativeMAD": mad(negative) if len(negative) > 1 else math.nan,
        "Plate_Normalisation": facts["method"],
        "Plate_ReferenceWells": normalised.reference,
    }
    for title, scale in _SCALES.items():
        row[f"Plate_ZPrime_{title}"] = _number(apart[scale]["z_prime"])
        row[f"Plate_SSMD_{title}"] = _number(apart[scale]["ssmd"])
    for title, trial, statistic in (
        ("Drift", drift, "Tau"), ("Edge", edge, "Delta"), ("EdgeCells", cells, "Delta"),
    ):  # fmt: skip
        row[f"Plate_{title}_{statistic}"] = _number(trial.statistic)
        row[f"Plate_{title}_P"] = _number(trial.p)
    return row, normalised


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _problems(row: Mapping[str, Any], normalised: Normalised, rules: Rules) -> list[str]:
    """Return why the plate's wells cannot become hits; none where they can."""
    problems = []
    z_prime = row["Plate_ZPrime_LogOdds"]
    if math.isnan(z_prime):
        problems.append(
            "Z' cannot be told: there are under two usable control wells of a kind, or their "
            "means are equal"
        )
    elif z_prime < rules.min_z_prime:
        problems.append(
            f"Z' on log odds is {z_prime:.3f}, below min_z_prime = {rules.min_z_prime:g}"
        )
    if normalised.problem:
        problems.append(f"no normalised score ({rules.normalisation}): {normalised.problem}")
    return problems


def _well(
    name: str, of: Fields, found: Score, standing: str, measured: Measured, threshold: float
) -> dict[str, Any]:
    """Return a well's row of WELLS, but for flags, digests and normalised score."""
    tile, seen = of.tile, found.tiles > 0
    return {
        "Metadata_Plate": name,
        "Metadata_Well": tile.well,
        "Metadata_Row": row_number(tile.row),
        "Metadata_Column": tile.column,
        "Metadata_Role": tile.role,
        "Metadata_Compound": tile.compound,
        "Metadata_Dose": tile.dose,
        "Metadata_DoseUnit": tile.unit,
        "Metadata_Standing": standing,
        "Metadata_Fields": of.total,
        "Metadata_FieldsUsed": len(of.usable),
        "Score_Probability": found.probability,
        "Score_LogOdds": found.log_odds,
        "Score_Call": ("positive" if found.probability >= threshold else "negative")
        if seen else None,
        "Score_Uncertainty": found.uncertainty,
        "Score_SpreadOfTiles": found.spread_of_tiles,
        "Score_SpreadOfModels": found.spread_of_models,
        "Score_Tiles": found.tiles,
        "Score_Models": found.models,
        "Score_ModelsAgree": found.models_agree if seen else None,
        "Nuclei_Count": measured.count if measured.fields else None,
        "Nuclei_CountPerField": measured.count / measured.fields if measured.fields else None,
        **measured.features,
    }  # fmt: skip


def _image(fields: list[Mapping[str, Any]]) -> dict[str, Any]:
    focus = [float(f["focus"]) for f in fields if "focus" in f]
    saturated = [float(f["saturated"]) for f in fields if "saturated" in f]
    return {
        "Image_Focus": float(np.median(focus)) if focus else None,
        "Image_Saturated": max(saturated) if saturated else None,
    }
