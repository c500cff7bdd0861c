"""report.html: one file for a person who knows the plate, without outside assets.

The page is the template `report.html.jinja`; this module says what stands in it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from common import spreadsheet
from common.many_plates import plate_of
from common.tiles import Tile, Tiles
from common.wells import row_number
from markupsafe import Markup
from pages import montage, numbers, page, plate_map, plots

from . import dose, measures, pictures
from .bootstrap import DRAWS
from .judge import THRESHOLD, Judged
from .verdict import Verdict

_TILES = 12
_EDGE = 176  # pixels of a tile that is shown
_MAPS = 12  # plates with a map of their own: the page must not grow with their number
_LEVELS = ("well", "tile")
_SIGNS = {"positive": "▲", "negative": "▼", "empty": "○"}
_SCALES = {"probability": "probability", "log_odds": "mean log odds"}
_PICKED = {
    "certain": "Most certain, and right",
    "uncertain": "Least certain",
    "wrong": "Wrongly called",
}
_HERE = Path(__file__).parent


def render(
    tiles: Tiles,
    verdicts: Mapping[str, Verdict],
    metrics: Mapping[str, Any],
    inputs: Mapping[str, Mapping[str, Any]],
) -> str:
    """Return the page: `metrics` is of metrics.json, `inputs` holds tables of what went in.

    Every name is escaped by the template; only the charts are markup already.
    """
    layout = tiles.plate["layout"]
    roc, reliability = _curves(verdicts)
    wells = list(_table(tiles, verdicts))
    shown, pictured = _anchored(list(_tiles(tiles, verdicts)))
    return page.environment(_HERE).get_template("report.html.jinja").render(
        title=layout.get("title") or layout["name"],
        source=layout.get("source"),
        metrics=metrics, verdicts=verdicts, classes=tiles.plate["classes"], inputs=inputs,
        scales=_SCALES, levels=_LEVELS, threshold=THRESHOLD, draws=DRAWS,
        plate=_plate(tiles, verdicts, dict.fromkeys(p["plate"] for p in metrics.get("plates", ()))),
        tiles_of=len(tiles.plate.get("plates", ())),
        series=list(_series(verdicts)), roc=roc,
        reliability=reliability, tiles=shown, pictured=pictured, quoted=_quoted(verdicts),
        wells=wells, wells_csv=_csv(wells), calls={
            "labelled": sum(len(v.judged.labels) for v in verdicts.values()),
            "right": sum(not _is_wrong(v.judged, w) for v in verdicts.values()
                         for w in v.judged.labels),
            "positive": sum(well["call"] == "positive" for well in wells), "all": len(wells),
        },
        flagged=list(_flagged(tiles, verdicts)), curves=list(_learning(verdicts)),
        montage=_montage(tiles), pixel_size=tiles.plate.get("pixel_size"),
    )  # fmt: skip


def _quoted(verdicts: Mapping[str, Verdict]) -> dict[str, Any] | None:
    """Return the Z' to quote: the lowest of all folds by log odds, which do not saturate."""
    found = [
        {
            "fold": fold, "value": v.served["z_factor"]["log_odds"],
            "interval": v.served["z_interval"]["log_odds"],
            "probability": v.served["z_factor"]["probability"],
        }
        for fold, v in verdicts.items()
        if v.served["z_factor"]["log_odds"] is not None
    ]  # fmt: skip
    return min(found, key=lambda one: float(one["value"]), default=None)


def _table(tiles: Tiles, verdicts: Mapping[str, Verdict]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table of all wells, by row and column of the plate."""
    flags = {well["well"]: well.get("flags", "") for well in tiles.plate["wells"]}
    every = sorted(
        _wells(verdicts), key=lambda w: (plate_of(w[1]), row_number(w[2].row) or 0, w[2].column)
    )
    for of, well, tile in every:
        yield {
            "name": well, "fold": of.fold, "role": tile.role, "compound": tile.compound,
            "dose": tile.dose, "unit": tile.unit, "probability": of.score(well),
            "log_odds": of.score(well, "log_odds"),
            "call": "positive" if of.positive(well) else "negative",
            "wrong": _is_wrong(of, well), "flags": flags.get(well, "").replace("_", " "),
        }  # fmt: skip


def _csv(wells: list[dict[str, Any]]) -> str:
    """Return the table as a data URL of a CSV file, its dose and unit in columns of their own."""
    columns = ("name", "fold", "role", "compound", "dose", "unit", "probability", "log_odds",
               "call", "flags")  # fmt: skip
    stream = io.StringIO()
    out = csv.writer(stream, lineterminator="\n")
    out.writerow(columns)
    out.writerows(spreadsheet.cells(well[name] for name in columns) for well in wells)
    return page.download(stream.getvalue().encode(), "text/csv")


def _anchored(groups: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], set[str]]:
    """Give the first picture of each well an anchor; return the groups and the wells that have one.

    An id may stand on a page once.
    """
    wells: set[str] = set()
    for group in groups:
        for tile in group["tiles"]:
            tile["anchor"] = "" if tile["well"] in wells else f"tile-{tile['well']}"
            wells.add(tile["well"])
    return groups, wells


def _svg(chart: str) -> Markup:
    """Let a chart into the page as it is: `plots` escapes the names in it."""
    return Markup(chart)  # noqa: S704


def _wells(verdicts: Mapping[str, Verdict]) -> list[tuple[Judged, str, Tile]]:
    return [(v.judged, well, tile) for v in verdicts.values() for well, tile in v.judged.of.items()]


def _is_wrong(of: Judged, well: str) -> bool:
    return well in of.labels and of.labels[well] != int(of.positive(well))


def _treatment(tile: Tile) -> str:
    given = "" if tile.dose is None else numbers.amount(tile.dose, tile.unit)
    return f"{tile.compound} {given}".strip()


def _plate(
    tiles: Tiles, verdicts: Mapping[str, Verdict], worst: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the maps of the plate, or of the first of those named, their legend and columns."""
    flags = {well["well"]: well.get("flags", "") for well in tiles.plate["wells"]}
    cells: dict[str, list[plate_map.Cell]] = {}
    for of, well, tile in _wells(verdicts):
        wrong, flag = _is_wrong(of, well), flags.get(well, "")
        signs = _SIGNS.get(tile.role, "") + ("✕" if wrong else "") + ("!" if flag else "")
        note = f"{well}: {of.score(well):.3f}, {tile.role}, {_treatment(tile)}"
        note += f", flagged {flag.replace('_', ' ')}" if flag else ""
        note += ", wrongly called" if wrong else ""
        row = (row_number(tile.row) or 1) - 1
        cells.setdefault(plate_of(well), []).append(
            plate_map.Cell(
                row, tile.column - 1, of.score(well), signs, note, tile.label is not None
            )
        )
    every = [cell for own in cells.values() for cell in own]
    rows = tiles.plate["layout"].get("rows") or max(cell.row for cell in every) + 1
    columns = tiles.plate["layout"].get("columns") or max(cell.column for cell in every) + 1
    shown = list(worst) or list(cells)
    maps = [
        {"name": name, "map": _svg(plate_map.plate_map(cells[name], rows, columns))}
        for name in shown[:_MAPS]
    ]
    left = len(shown) - len(maps)
    return {"maps": maps, "left": left, "ramp": _svg(plate_map.ramp()), "columns": columns}


def _montage(tiles: Tiles) -> Markup | None:
    """Return a tile of each well, side by side; None for many plates: they would fill the page."""
    if "plates" in tiles.plate:
        return None
    layout = tiles.plate["layout"]
    found = {
        ((row_number(tile.row) or 1) - 1, tile.column - 1): (number, tile)
        for number in montage.middle_tiles(tiles).values()
        for tile in [tiles.index[number]]
    }
    shape = (
        layout.get("rows") or max(row for row, _ in found) + 1,
        layout.get("columns") or max(column for _, column in found) + 1,
    )
    sheet = montage.montage(
        tiles, {place: number for place, (number, _) in found.items()}, shape,
        montage.display_range(tiles),
    )  # fmt: skip
    wells = {
        place: montage.Picture(
            f"picture-{tile.well}", f"{tile.well}: {tile.role}, {_treatment(tile)}"
        )
        for place, (_, tile) in found.items()
    }
    return _svg(montage.drawn(sheet, wells, shape, montage.tile_pixel(tiles.plate)))


def _series(verdicts: Mapping[str, Verdict]) -> Iterator[dict[str, Any]]:
    """Yield each dose series with its fold, its name and its chart."""
    for fold, v in verdicts.items():
        for series in v.served["series"]:
            name = series["compound"] or "unnamed series"
            yield {**series, "fold": fold, "name": name, "chart": _chart(v.judged, series)}


def _chart(of: Judged, series: Mapping[str, Any]) -> Markup:
    found = series["fit"]["probability"]
    curve = ec50 = None
    if found["ec50"] is not None:
        shape = [found[name] for name in ("bottom", "top", "ec50", "hill")]
        ec50 = (found["ec50"], found["low"], found["high"])

        def curve(x: float) -> float:
            return float(dose.logistic(np.array(x), *shape))

    scores = [of.score(well) for well in series["wells"]]
    name = series["compound"] or "unnamed series"
    return _svg(plots.dose_response(series["doses"], scores, series["unit"], curve, ec50, name))


def _curves(verdicts: Mapping[str, Verdict]) -> tuple[Markup, Markup]:
    """Return the ROC curves and the reliability of the tiles of all folds."""
    roc, reliability = {}, {}
    for fold, v in verdicts.items():
        labels, scores = _labelled(v.judged)
        roc[fold] = [(x, y) for _, y, x in measures.roc(labels, scores)]
        reliability[fold] = [
            (b["probability"], b["positive"], b["count"]) for b in v.served["tile"]["reliability"]
        ]
    return _svg(plots.roc_curves(roc)), _svg(plots.reliability_curves(reliability))


def _learning(verdicts: Mapping[str, Verdict]) -> Iterator[dict[str, Any]]:
    """Yield each fold with its learning curves; a fold that has none is left out."""
    for fold, v in verdicts.items():
        curves = v.model.curves
        if not curves:
            continue
        # With optimizer=sgd the head is fitted after the network, and its epochs begin again.
        ends = [i for i in range(1, len(curves)) if curves[i][0] <= curves[i - 1][0]]
        phases = [curves[i:j] for i, j in zip([0, *ends], [*ends, None], strict=True)]
        lines = {
            f"{part}{', head' if number else ''}": [(epoch[0], epoch[place]) for epoch in phase]
            for number, phase in enumerate(phases)
            for place, part in ((1, "training"), (2, "validation"))
        }
        best = min(phases[0], key=lambda epoch: epoch[2])
        yield {
            "fold": fold, "chart": _svg(plots.learning_curves(lines, "loss")),
            "epoch": best[0], "loss": best[2], "last": phases[0][-1][0],
        }  # fmt: skip


def _labelled(of: Judged) -> tuple[measures.Array, measures.Array]:
    """Return labels and probabilities of the tiles of labelled wells."""
    places = [of.wells[well] for well in of.labels]
    labels = np.repeat(np.array(list(of.labels.values()), float), [len(at) for at in places])
    return labels, of.probability[np.concatenate(places)]


def _tiles(tiles: Tiles, verdicts: Mapping[str, Verdict]) -> Iterator[dict[str, Any]]:
    """Yield the groups of tiles that are shown."""
    shown = pictures.pick(tiles, [v.judged for v in verdicts.values()], _TILES)
    levels = montage.display_range(tiles)
    for kind, (picked, count) in shown.items():
        of = f" ({len(picked)} of {count})" if kind == "wrong" and len(picked) < count else ""
        found = []
        for one in picked:
            tile = tiles.index[one.row]
            truth = "no label" if tile.label is None else tiles.plate["classes"][tile.label]
            found.append(
                {
                    "well": tile.well, "probability": one.probability, "truth": truth,
                    "treatment": _treatment(tile),
                    "picture": montage.address(
                        montage.jpeg(montage.picture(tiles.array[one.row], levels, _EDGE))
                    ),
                }
            )  # fmt: skip
        yield {"title": _PICKED[kind] + of, "tiles": found}


def _flagged(tiles: Tiles, verdicts: Mapping[str, Verdict]) -> Iterator[dict[str, Any]]:
    """Yield the wells whose images were flagged."""
    flags = {w["well"]: w["flags"] for w in tiles.plate["wells"] if w.get("flags")}
    for of, well, tile in _wells(verdicts):
        if well in flags:
            right = "right" if tile.label is not None else "no label"
            yield {
                "name": well, "flags": flags[well].replace("_", " "), "score": of.score(well),
                "treatment": _treatment(tile), "call": "wrong" if _is_wrong(of, well) else right,
            }  # fmt: skip
