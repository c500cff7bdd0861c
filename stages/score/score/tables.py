"""The tables that are written: columns with units and meanings, as Parquet, CSV and AnnData.

Names are those that pycytominer looks for: Metadata_… says what a row is; Nuclei_…, Cytoplasm_… and
Cells_… are features (Serrano et al. 2025, Nature Methods 22:677). What is not known is null in
Parquet and empty in CSV.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from common import spreadsheet
from common.errors import StageError

from .nuclei import FEATURES

Row = Mapping[str, Any]
TEXT, WHOLE, NUMBER, SMALL, FLAG = "text", "integer", "number", "number (32 bits)", "true or false"
_TYPES = {
    TEXT: pa.string(), WHOLE: pa.int64(), NUMBER: pa.float64(), SMALL: pa.float32(),
    FLAG: pa.bool_(),
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column of a table: its unit is empty where it has none."""

    name: str
    kind: str
    unit: str
    meaning: str


_PLATE = Column("Metadata_Plate", TEXT, "", "the plate's name in the list of plates")
_WELL = Column("Metadata_Well", TEXT, "", "row and column, as A01")
_TREATED = (
    Column("Metadata_Compound", TEXT, "", "compound, as in the layout or the plate map"),
    Column("Metadata_Dose", NUMBER, "Metadata_DoseUnit", "dose of the compound"),
    Column("Metadata_DoseUnit", TEXT, "", "unit of the dose"),
)

WELLS = (
    _PLATE,
    _WELL,
    Column("Metadata_Row", WHOLE, "", "row, from 1"),
    Column("Metadata_Column", WHOLE, "", "column, from 1"),
    Column("Metadata_Role", TEXT, "", "negative, positive, sample or empty"),
    *_TREATED,
    Column("Metadata_Flags", TEXT, "", "flags, separated by blanks; a flagged well is no hit"),
    Column("Metadata_Standing", TEXT, "", "what the well was to the models: new plate, held out, "
           "trained on, not known"),
    Column("Metadata_Fields", WHOLE, "", "fields imaged"),
    Column("Metadata_FieldsUsed", WHOLE, "", "fields that were used"),
    Column("Metadata_PlateDigest", TEXT, "", "digest of the plate's files"),
    Column("Metadata_ModelDigest", TEXT, "", "digest of the model, as the function answers"),
    Column("Score_Probability", NUMBER, "probability", "mean over models of the pooled tiles"),
    Column("Score_LogOdds", NUMBER, "ln odds", "mean over models and tiles of ln(p / (1 - p))"),
    Column("Score_Call", TEXT, "", "positive from the model's threshold on, else negative"),
    Column("Score_Uncertainty", NUMBER, "ln odds", "standard error of Score_LogOdds over tiles and "
           "models"),
    Column("Score_SpreadOfTiles", NUMBER, "ln odds", "SD over tiles"),
    Column("Score_SpreadOfModels", NUMBER, "ln odds", "SD over models"),
    Column("Score_Tiles", WHOLE, "", "tiles scored"),
    Column("Score_Models", WHOLE, "", "models that scored"),
    Column("Score_ModelsAgree", FLAG, "", "whether all models make the same call"),
    Column("Score_Normalised", NUMBER, "SD of the reference wells", "Score_LogOdds, normalised"),
    Column("Nuclei_Count", WHOLE, "", "nuclei in the fields used, those at the border too"),
    Column("Nuclei_CountPerField", NUMBER, "", "nuclei a field"),
    *(Column(name, NUMBER, unit, "median over the nuclei") for name, unit in FEATURES.items()),
    Column("Image_Focus", NUMBER, "", "variance of the Laplacian over that of the DNA image, "
           "median over fields"),
    Column("Image_Saturated", NUMBER, "share of pixels", "pixels at 255, the worst field"),
)  # fmt: skip

CELLS = (
    _PLATE,
    _WELL,
    *(Column(name, SMALL, unit, "of one nucleus") for name, unit in FEATURES.items()),
)

_SCALES = {"Probability": "on probabilities", "LogOdds": "on log odds"}
PLATES = (
    _PLATE,
    Column("Metadata_PlateDigest", TEXT, "", "digest of the plate's files"),
    Column("Metadata_LayoutDigest", TEXT, "", "digest of the layout"),
    Column("Metadata_ModelDigest", TEXT, "", "digest of the model"),
    Column("Plate_Status", TEXT, "", "ok, or failed: its wells are no hits"),
    Column("Plate_Problems", TEXT, "", "why it failed"),
    Column("Plate_Wells", WHOLE, "", "wells of the layout"),
    Column("Plate_WellsFlagged", WHOLE, "", "wells with a flag of their own"),
    *(Column(f"Plate_ZPrime_{s}", NUMBER, "", f"Z' {text}") for s, text in _SCALES.items()),
    *(Column(f"Plate_SSMD_{s}", NUMBER, "", f"strictly standardised mean difference of the "
             f"controls {text}") for s, text in _SCALES.items()),
    Column("Plate_NegativeMedian", NUMBER, "ln odds", "median of the negative controls"),
    Column("Plate_NegativeMAD", NUMBER, "ln odds", "MAD of the negative controls, as SD"),
    Column("Plate_NegativeShift", NUMBER, "median MAD of the screen", "NegativeMedian less the "
           "screen's median of it: drift from plate to plate"),
    Column("Plate_Drift_Tau", NUMBER, "", "Kendall's tau of negative controls and their order"),
    Column("Plate_Drift_P", NUMBER, "p-value", "of Plate_Drift_Tau, two-sided"),
    Column("Plate_Edge_Delta", NUMBER, "", "Cliff's delta of edge and inner wells, log odds"),
    Column("Plate_Edge_P", NUMBER, "p-value", "of Plate_Edge_Delta, two-sided"),
    Column("Plate_EdgeCells_Delta", NUMBER, "", "Cliff's delta of edge and inner wells, nuclei"),
    Column("Plate_EdgeCells_P", NUMBER, "p-value", "of Plate_EdgeCells_Delta, two-sided"),
    Column("Plate_Normalisation", TEXT, "", "controls, mad or b-score"),
    Column("Plate_ReferenceWells", WHOLE, "", "wells that the normalisation rests on"),
)  # fmt: skip

TREATMENTS = (
    *_TREATED,
    Column("Treatment_Hit", FLAG, "", "whether it is on the hit list"),
    Column("Treatment_Reason", TEXT, "", "why it is not on it"),
    Column("Treatment_Q", NUMBER, "q-value", "p adjusted after Benjamini & Hochberg"),
    Column("Treatment_P", NUMBER, "p-value", "one-sided, towards the positive controls"),
    Column("Treatment_Agreement", NUMBER, "share of wells", "usable wells called positive"),
    Column("Treatment_Wells", WHOLE, "", "usable wells"),
    Column("Treatment_WellsLeftOut", WHOLE, "", "wells left out: flagged, or on failed plates"),
    Column("Treatment_Plates", WHOLE, "", "plates with usable wells"),
    Column("Treatment_Normalised", NUMBER, "SD of the reference wells", "mean of the wells"),
    Column("Treatment_SSMD", NUMBER, "", "against the negative controls of its plates, on "
           "normalised scores"),
    Column("Treatment_Probability", NUMBER, "probability", "median of the wells"),
    Column("Treatment_LogOdds", NUMBER, "ln odds", "median of the wells"),
    Column("Treatment_CountPerField", NUMBER, "", "nuclei a field, median of the wells"),
    Column("Treatment_WellNames", TEXT, "", "usable wells, as plate:well"),
)  # fmt: skip


def schema(columns: Sequence[Column]) -> pa.Schema:
    """Return the Arrow schema; unit and meaning are metadata of each field."""
    return pa.schema(
        [
            pa.field(c.name, _TYPES[c.kind], metadata={"unit": c.unit, "meaning": c.meaning})
            for c in columns
        ]
    )


def table(columns: Sequence[Column], rows: Iterable[Row]) -> pa.Table:
    """Return rows as a table: NaN becomes null. Raises KeyError for a column that a row lacks."""
    given = list(rows)
    return pa.Table.from_arrays(
        [
            pa.array([known(row[c.name]) for row in given], _TYPES[c.kind]) for c in columns
        ],
        schema=schema(columns),
    )  # fmt: skip


def known(value: Any) -> Any:
    """Return a value, or None for NaN: what is not known."""
    return None if isinstance(value, float) and math.isnan(value) else value


def write(folder: Path, name: str, found: pa.Table) -> None:
    """Write NAME.parquet and NAME.csv, whose texts no spreadsheet takes for a formula.

    Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(found, folder / f"{name}.parquet", compression="zstd")
    pyarrow.csv.write_csv(_for_csv(found), folder / f"{name}.csv")


def _for_csv(found: pa.Table) -> pa.Table:
    """Return the table as others read it: no text is a formula, and R's read.csv knows TRUE."""
    for place, field in enumerate(found.schema):
        if pa.types.is_boolean(field.type):
            words = pc.if_else(found[place], "TRUE", "FALSE")
            found = found.set_column(place, field.name, words)
        elif pa.types.is_string(field.type):
            words = pc.replace_substring_regex(found[place], spreadsheet.FORMULA, r"'\1")
            found = found.set_column(place, field.name, words)
    return found


def read(path: Path, columns: Sequence[Column]) -> pa.Table:
    """Return a table that `write` made. Raises StageError where it is damaged or another one."""
    try:
        found = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise StageError(f"cannot read {path} ({error}); score the plate again") from None
    if not found.schema.equals(schema(columns)):
        raise StageError(f"{path} has other columns than this stage writes; score the plate again")
    return found


def write_dictionary(path: Path, written: Mapping[str, Sequence[Column]]) -> None:
    """Write columns.csv, a line a column of each table: type, unit, meaning."""
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["table", "column", "type", "unit", "meaning"])
        for name, columns in written.items():
            out.writerows([name, c.name, c.kind, c.unit, c.meaning] for c in columns)


def write_anndata(path: Path, wells: pa.Table, facts: Mapping[str, Any]) -> None:
    """Write the wells as AnnData: X has scores and features, obs what a well is, var the units.

    Rows are named plate:well. Raises OSError.
    """
    import anndata  # takes a second, which one plate does not need

    numbers = [c for c in WELLS if c.kind in (NUMBER, WHOLE) and not c.name.startswith("Metadata_")]
    frame = wells.to_pandas()
    frame.index = frame["Metadata_Plate"] + ":" + frame["Metadata_Well"]
    values = frame[[c.name for c in numbers]].astype("float64")
    made = anndata.AnnData(X=values.to_numpy())
    made.obs = frame.drop(columns=list(values.columns))
    made.obs["Score_ModelsAgree"] = made.obs["Score_ModelsAgree"].astype("boolean")
    for name in made.obs.columns:
        if made.obs[name].dtype == object or str(made.obs[name].dtype).startswith("str"):
            made.obs[name] = made.obs[name].fillna("").astype(str).astype("category")
    made.var_names = list(values.columns)
    made.var["unit"] = [c.unit for c in numbers]
    made.var["meaning"] = [c.meaning for c in numbers]
    made.uns["plateline"] = json.dumps(facts, sort_keys=True)
    made.write_h5ad(path, compression="gzip")
