"""The report of a screen: one HTML file that begins with the answer, however many plates it has.

The page is the template `report.html.jinja`. What there is of one plate, `plate.html.jinja`, is
packed into the page and drawn when it is opened, so that a hundred plates open as fast as one.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from pages import montage, page, plate_map, plots

from . import tables
from .treatments import treatment

Row = Mapping[str, Any]
_HERE = Path(__file__).parent
_PLATES = 200  # plates with a map and a table of wells: the page must not grow without an end
_PICTURES = 4 << 20  # bytes of montages
_LISTED = 500  # rows of the list of hits
_WELLS = 8  # wells of a hit that are named
_LARGEST = 2 << 20  # bytes of a table that is in the page
_FLOOR = -1.0  # where the axis of Z' ends: a plate that failed may have -50
_SIGNS = {"positive": "▲", "negative": "▼", "empty": "○"}
_KINDS = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet"}


@dataclass(frozen=True)
class Plate:
    """A plate in the report: its row of PLATES, its wells, and its montage where there is one.

    `shape` is (rows, columns), `pixel_size` the micrometres of a tile's pixel, if known.
    """

    row: Row
    wells: Sequence[Row]
    shape: tuple[int, int] = (0, 0)
    picture: bytes = b""
    pixel_size: float | None = None

    @property
    def name(self) -> str:
        """Its name in the list of plates."""
        return str(self.row["Metadata_Plate"])

    @property
    def failed(self) -> bool:
        """Whether its wells are no hits, whatever they score."""
        return bool(self.row["Plate_Status"] != "ok")


def render(
    facts: Mapping[str, Any],
    plates: Sequence[Plate],
    hits: Sequence[Row],
    note: str,
    folder: Path,
) -> str:
    """Return the page; `facts` is of screen.json, `folder` holds the tables that can be taken away.

    `hits` are rows of TREATMENTS, `note` says what to make of no or nothing but hits. Every name is
    escaped by the template; only the charts are markup already.
    """
    templates = page.environment(_HERE)
    templates.filters["known"] = tables.known
    found = {name for hit in hits for name in _names(hit)}
    with_hits = {name.rpartition(":")[0] for name in found}
    chosen = sorted(plates, key=lambda plate: plate.name not in with_hits)[:_PLATES]
    pictured, total = set(), 0
    for plate in chosen:
        total += len(plate.picture)
        if plate.picture and total <= _PICTURES:
            pictured.add(plate.name)
    parts = {
        plate.name: page.packed(
            templates.get_template("plate.html.jinja").render(
                _plate(plate, found, pictured=plate.name in pictured)
            )
        )
        for plate in chosen
        if plate.wells
    }
    return templates.get_template("report.html.jinja").render(
        facts=facts, counts=facts["counts"], asked=facts["parameters"], note=note,
        quoted=_quoted(plates), plates=plates, failed=[p for p in plates if p.failed],
        hits=[_hit(hit) for hit in hits[:_LISTED]], most=_LISTED, parts=parts,
        floor=_FLOOR, charts=list(_charts(plates)), ramp=Markup(plate_map.ramp()),  # noqa: S704
        downloads=list(_downloads(folder)), pictured=len(pictured),
        with_wells=sum(bool(p.wells) for p in plates),
    )  # fmt: skip


def _names(hit: Row) -> list[str]:
    return str(hit["Treatment_WellNames"]).split()


def _hit(row: Row) -> dict[str, Any]:
    """Return a hit with its first wells, each with the id that it has in its plate's table."""
    names = [name.rpartition(":") for name in _names(row)]
    return {
        "compound": row["Metadata_Compound"], "dose": row["Metadata_Dose"],
        "unit": row["Metadata_DoseUnit"], "base": _base(row), "q": row["Treatment_Q"],
        "normalised": row["Treatment_Normalised"], "ssmd": tables.known(row["Treatment_SSMD"]),
        "agreement": row["Treatment_Agreement"], "count": row["Treatment_Wells"],
        "wells": [(f"{plate}/{well}", f"{plate}:{well}") for plate, _, well in names[:_WELLS]],
        "more": max(0, len(names) - _WELLS),
    }  # fmt: skip


def _base(row: Row) -> float | str:
    """Return a dose in one unit for all that measure the same, to sort by; empty without a dose."""
    if row["Metadata_Dose"] is None or not row["Metadata_Compound"]:
        return ""
    found: Any = treatment(row)
    return float(found[1])


def _quoted(plates: Sequence[Plate]) -> dict[str, Any] | None:
    """Return the Z' to quote: by log odds, the median of the plates that did not fail."""
    known = [
        (plate.row["Plate_ZPrime_LogOdds"], plate.row["Plate_ZPrime_Probability"], plate.name)
        for plate in plates
        if not plate.failed and tables.known(plate.row["Plate_ZPrime_LogOdds"]) is not None
    ]
    if not known:
        return None
    return {
        "value": statistics.median(z for z, _, _ in known), "count": len(known),
        "lowest": min(known), "highest": max(known),
        "probability": tables.known(statistics.median(p for _, p, _ in known)),
    }  # fmt: skip


def _charts(plates: Sequence[Plate]) -> Iterator[tuple[Markup, str]]:
    """Yield a chart over the plates with what it shows, for each measure that any plate has."""
    for column, name, floor, said in (
        ("Plate_ZPrime_LogOdds", "Z′, mean log odds", _FLOOR,
         f"▽ is below {_FLOOR:g}".replace("-", "−")),
        ("Plate_SSMD_LogOdds", "SSMD, mean log odds", float("-inf"), "SSMD of the controls"),
        ("Plate_NegativeShift", "shift of the negative controls", float("-inf"),
         "negative controls' median less the screen's, in median MAD: drift from plate to plate"),
    ):  # fmt: skip
        points = [
            plots.Point(value, f"{i}, {plate.name}: " + ("not known" if value is None else
                        f"{value:.3f}") + (", failed" if plate.failed else ""), not plate.failed)
            for i, plate in enumerate(plates, start=1)
            for value in [tables.known(plate.row[column])]
        ]  # fmt: skip
        if any(point.value is not None for point in points):
            yield Markup(plots.over_plates(points, name, floor)), said  # noqa: S704 - escaped there


def _plate(plate: Plate, found: set[str], *, pictured: bool) -> dict[str, Any]:
    """Return what stands in a plate's part of the page."""
    cells, wells, pictures = [], [], {}
    for row in plate.wells:
        well, score = row["Metadata_Well"], row["Score_Probability"]
        hit = f"{plate.name}:{well}" in found
        flags = row["Metadata_Flags"].replace("_", " ")
        place = row["Metadata_Row"] - 1, row["Metadata_Column"] - 1
        given = "" if row["Metadata_Dose"] is None else (
            f" {row['Metadata_Dose']:g} {row['Metadata_DoseUnit']}")  # fmt: skip
        said = [row["Metadata_Role"], f"{row['Metadata_Compound']}{given}".strip(),
                "not scored" if score is None else f"probability {score:.3f}",
                "" if row["Score_Normalised"] is None else
                f"normalised {row['Score_Normalised']:.1f}",
                f"flagged {flags}" if flags else "", "hit" if hit else ""]  # fmt: skip
        text = f"{well}: " + ", ".join(part for part in said if part)
        signs = _SIGNS.get(row["Metadata_Role"], "") + ("!" if flags else "")
        cells.append(plate_map.Cell(*place, score, signs, text, hit))
        anchor = f"picture-{plate.name}/{well}"
        pictures[place] = montage.Picture(anchor, text)
        wells.append({**row, "hit": hit, "flags": flags, "anchor": anchor, "base": _base(row)})
    rows, columns = plate.shape
    drawn = montage.drawn(plate.picture, pictures, plate.shape, plate.pixel_size)
    return {
        "plate": plate, "wells": wells, "columns": columns,
        "map": Markup(plate_map.plate_map(cells, rows, columns)),  # noqa: S704 - escaped there
        "montage": Markup(drawn) if pictured else None,  # noqa: S704 - escaped there
    }  # fmt: skip


def _downloads(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the screen's tables: an address inside the page, unless a table is too large for it."""
    for name in ("hits", "treatments", "plates", "wells"):
        for kind, media in _KINDS.items():
            path = folder / f"{name}.{kind}"
            size = path.stat().st_size
            address = page.download(path.read_bytes(), media) if size <= _LARGEST else ""
            yield {"name": path.name, "size": size, "address": address}
