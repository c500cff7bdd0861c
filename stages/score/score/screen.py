"""A screen's plates together: the hit list, and the tables that people read.

`python3 -m score.screen --executor-input …`
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from common import digest
from common.errors import StageError
from common.stage_io import StageIO, run_stage

from . import report, tables
from .kept import kept
from .stage import FORMAT, MONTAGE, PLATE
from .treatments import judge

_ALIKE = ("model_digest", "parameters")
_MOST_LISTED = 25


@dataclass(frozen=True)
class Plate:
    """A scored plate: what its plate.json holds, its wells, and its montage.jpg, if any."""

    facts: Mapping[str, Any]
    wells: pa.Table
    montage: bytes = b""

    @property
    def name(self) -> str:
        """Its name in the list of plates."""
        return str(self.facts["plate"])

    @property
    def row(self) -> dict[str, Any]:
        """Its row of PLATES, NaN for what is not known."""
        return {c.name: self.facts["row"].get(c.name, math.nan if c.kind == tables.NUMBER else None)
                for c in tables.PLATES}  # fmt: skip

    @property
    def shape(self) -> tuple[int, int]:
        """Its rows and columns; (0, 0) of one that could not be prepared."""
        rows, columns = self.facts["shape"]
        return int(rows), int(columns)


def screen(task: StageIO) -> None:
    """Run the step as Kubeflow Pipelines asks."""
    rate = task.parameter("false_discovery_rate", float, 0.05)
    agreement = task.parameter("min_agreement", float, 0.5)
    for name, value in (("false_discovery_rate", rate), ("min_agreement", agreement)):
        if not 0 <= value <= 1:
            raise StageError(f"{name} = {value:g} is not within 0 to 1")
    digests = task.parameters().get("scores_digests")
    if not isinstance(digests, list) or not digests:
        raise StageError("scores_digests names no plate; the list of plates is empty")
    workspace = task.parameter("workspace_name", str, "")
    plates = [read_plate(kept(workspace, str(one))) for one in digests]
    check_alike(plates)
    folder = task.output("screen")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        facts, text, page = write_screen(folder, plates, rate, agreement)
        for name, content in (("summary", text), ("report", page)):
            if name in task.output_names():
                task.output(name).write_text(content, encoding="utf-8")
        if "metrics" in task.output_names():
            task.set_metadata("metrics", facts["counts"])
            task.output("metrics").write_text(json.dumps(facts["counts"], indent=1) + "\n")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise StageError(f"cannot write {folder}: {error.strerror or error}; make room") from None
    task.set_parameter("hits", facts["counts"]["hits"])
    task.set_parameter("digest", digest.folder_digest(folder))
    print(text, flush=True)


def read_plate(folder: Path) -> Plate:
    """Return a scored plate. Raises StageError where it is damaged."""
    try:
        facts = json.loads((folder / PLATE).read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise ValueError(f"it has the format {facts['format']!r}")
        picture = folder / MONTAGE
        found = Plate(
            facts,
            tables.read(folder / "wells.parquet", tables.WELLS),
            picture.read_bytes() if picture.is_file() else b"",
        )
        str(found.name), found.row, found.shape, [facts[k] for k in (*_ALIKE, "pixel_size")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageError(f"cannot read the scores in {folder} ({error!r}); score again") from None
    return found


def check_alike(plates: Sequence[Plate]) -> None:
    """Raise StageError for plates that cannot be one screen.

    Each must have a name and content of its own, and the same channels, model and parameters.
    """
    read = [plate for plate in plates if plate.facts.get("channels")]
    for plate in read:
        if plate.facts["channels"] != read[0].facts["channels"]:
            raise StageError(
                f"the plates {read[0].name} and {plate.name} have other channels: "
                f"{read[0].facts['channels']} and {plate.facts['channels']}; one hit list takes "
                "plates of one kind: share them out to two lists"
            )
    names: dict[str, Plate] = {}
    contents: dict[str, Plate] = {}
    for plate in plates:
        if plate.name in names:
            raise StageError(f"two plates have the name {plate.name}; give each its own name")
        names[plate.name] = plate
        content = plate.row["Metadata_PlateDigest"]
        if content and content in contents:
            raise StageError(
                f"the plates {contents[content].name} and {plate.name} have the same images "
                f"({content}); they would count as replicates: take one out of the list"
            )
        contents[content] = plate
        for key in _ALIKE:
            if plate.facts[key] != plates[0].facts[key]:
                raise StageError(
                    f"the plates {plates[0].name} and {plate.name} were scored with another {key}: "
                    f"{plates[0].facts[key]} and {plate.facts[key]}; score them in one run"
                )


def write_screen(
    folder: Path, plates: Sequence[Plate], rate: float, agreement: float
) -> tuple[dict[str, Any], str, str]:
    """Write the screen's tables; return facts of it, the summary as Markdown, and the report."""
    wells = pa.concat_tables([plate.wells for plate in plates])
    listed = wells.to_pylist()
    rows = with_shift([plate.row for plate in plates])
    references = {r["Metadata_Plate"]: int(r["Plate_ReferenceWells"] or 0) for r in rows}
    found = judge(listed, references, rate=rate, agreement=agreement)
    hits = [row for row in found if row["Treatment_Hit"]]
    facts = {
        "model": plates[0].facts.get("model", ""),
        "model_digest": plates[0].facts["model_digest"],
        "image": plates[0].facts.get("image", ""),
        "parameters": {**plates[0].facts["parameters"], "false_discovery_rate": rate,
                       "min_agreement": agreement},
        "counts": {
            "plates": len(plates),
            "plates_failed": sum(row["Plate_Status"] != "ok" for row in rows),
            "wells": wells.num_rows,
            "wells_flagged": sum(bool(text) for text in wells["Metadata_Flags"].to_pylist()),
            "treatments": len(found),
            "treatments_tested": sum(not math.isnan(row["Treatment_P"]) for row in found),
            "hits": len(hits),
        },
    }  # fmt: skip
    tables.write(folder, "wells", wells)
    tables.write(folder, "plates", tables.table(tables.PLATES, rows))
    tables.write(folder, "treatments", tables.table(tables.TREATMENTS, found))
    tables.write(folder, "hits", tables.table(tables.TREATMENTS, hits))
    columns = {"wells": tables.WELLS, "plates": tables.PLATES, "treatments": tables.TREATMENTS,
               "hits": tables.TREATMENTS}  # fmt: skip
    tables.write_dictionary(folder / "columns.csv", columns)
    tables.write_anndata(folder / "screen.h5ad", wells, facts)
    text = json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (folder / "screen.json").write_text(text + "\n", encoding="utf-8")
    note = _note(facts["counts"], facts["parameters"])
    own: dict[str, list[dict[str, Any]]] = {}
    for well in listed:
        own.setdefault(well["Metadata_Plate"], []).append(well)
    shown = [
        report.Plate(
            row, own.get(plate.name, []), plate.shape, plate.montage, plate.facts["pixel_size"]
        )
        for plate, row in zip(plates, rows, strict=True)
    ]
    page = report.render(facts, shown, hits, note, folder)
    return facts, summary(facts, rows, hits, note), page


def with_shift(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the plates' rows with Plate_NegativeShift, the drift from plate to plate.

    The plate's median of the negative controls, less the median of these over the plates, in units
    of the median MAD of the negative controls within a plate. NaN on a single plate.
    """
    known = [r["Plate_NegativeMedian"] for r in rows if not math.isnan(r["Plate_NegativeMedian"])]
    spreads = [r["Plate_NegativeMAD"] for r in rows if r["Plate_NegativeMAD"] > 0]
    if len(known) < 2 or not spreads:
        return [{**row, "Plate_NegativeShift": math.nan} for row in rows]
    middle, spread = float(np.median(known)), float(np.median(spreads))
    return [{**row, "Plate_NegativeShift": (row["Plate_NegativeMedian"] - middle) / spread}
            for row in rows]  # fmt: skip


def summary(
    facts: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    hits: Sequence[Mapping[str, Any]],
    note: str,
) -> str:
    """Return the answer as Markdown: hits, failed plates, and what to make of none or all."""
    counts, asked = facts["counts"], facts["parameters"]
    tested = counts["treatments_tested"]
    lines = [f"# {counts['hits']} of {tested} tested treatments are hits", ""]
    if note:
        lines += [note, ""]
    if hits:
        lines += ["| compound | dose | q | normalised | wells positive |", "|---|---|---|---|---|"]
        lines += [
            f"| {_cell(h['Metadata_Compound'])} | {_dose(h)} | {h['Treatment_Q']:.2g} | "
            f"{h['Treatment_Normalised']:.1f} | {h['Treatment_Agreement']:.0%} of "
            f"{h['Treatment_Wells']} |"
            for h in hits[:_MOST_LISTED]
        ]
        if len(hits) > _MOST_LISTED:
            lines.append(f"\n… and {len(hits) - _MOST_LISTED} more, in hits.csv")
        lines.append("")
    failed = [row for row in rows if row["Plate_Status"] != "ok"]
    if failed:
        lines.append(f"{len(failed)} of {counts['plates']} plates failed; none of their wells is "
                     "a hit:\n")  # fmt: skip
        lines += [f"- {_cell(r['Metadata_Plate'])}: {_cell(r['Plate_Problems'])}"
                  for r in failed[:_MOST_LISTED]]  # fmt: skip
        if len(failed) > _MOST_LISTED:
            lines.append(f"- … and {len(failed) - _MOST_LISTED} more, in plates.csv")
        lines.append("")
    lines.append(
        f"{counts['wells_flagged']} of {counts['wells']} wells are flagged or on a failed plate. "
        f"False discovery rate {asked['false_discovery_rate']:g} (Benjamini & Hochberg 1995), "
        f"normalisation {asked['normalisation']}, model {facts['model_digest']}."
    )
    return "\n".join(lines) + "\n"


def _note(counts: Mapping[str, int], asked: Mapping[str, Any]) -> str:
    """Return what no hits, or nothing but hits, may mean; empty where there is nothing to say."""
    tested, hits = counts["treatments_tested"], counts["hits"]
    note = ""
    if counts["plates_failed"] == counts["plates"] and not counts["wells"]:
        note = "No plate could be read: what each one lacks is below."
    elif not counts["treatments"]:
        note = "No well is a sample: give the role `sample` to those that are to be tested."
    elif not tested:
        note = (
            "No treatment could be tested: every sample well is flagged or on a failed plate. "
            "Flags and problems are in wells.csv and plates.csv."
        )
    elif not hits:
        note = (
            "No treatment is a hit. treatments.csv has the p-value of each and why it is none; "
            "plates.csv has Z' of each plate, which says whether a hit would have been seen."
        )
    elif hits == tested and tested > 1:
        note = (
            "Every treatment tested is a hit. Where that is not what the screen was made for, "
            "check the negative controls and their roles in the plate map."
        )
    elif asked["normalisation"] != "controls" and 2 * hits > tested:
        note = (
            f"More than half are hits, and the normalisation {asked['normalisation']} takes most "
            "samples for inactive: use normalisation=controls."
        )
    return note


def _dose(row: Mapping[str, Any]) -> str:
    dose = row["Metadata_Dose"]
    return "" if dose is None else f"{dose:g} {row['Metadata_DoseUnit']}".strip()


def _cell(text: str) -> str:
    """Return text that cannot end a cell of the table or become markup."""
    plain = text.replace("\n", " ").replace("&", "&amp;").replace("<", "&lt;")
    return plain.replace("|", "&#124;").replace("`", "&#96;")


if __name__ == "__main__":
    run_stage("score.screen", screen)
