"""report.html: one file for a person who knows the plate. No script, no outside asset."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from common.tiles import Tile, Tiles

from . import dose, measures, pictures, plots
from .bootstrap import DRAWS
from .judge import SCALES, THRESHOLD, Judged
from .markup import amount, facts, number, table
from .verdict import Verdict

_TILES = 12
_LEVELS = ("well", "tile")
_SIGNS = {"positive": "▲", "negative": "▼", "empty": "○"}
_SCALE_NAMES = {"probability": "probability", "log_odds": "mean log odds"}
_HERE = Path(__file__).parent
_STYLE = (_HERE / "report.css").read_text(encoding="utf-8")
# The browser itself refuses whatever would come from outside.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_DEFINITIONS = string.Template((_HERE / "definitions.html").read_text(encoding="utf-8")).substitute(
    threshold=f"{THRESHOLD:g}", draws=DRAWS
)


def render(
    tiles: Tiles,
    verdicts: Mapping[str, Verdict],
    metrics: Mapping[str, Any],
    inputs: Mapping[str, Mapping[str, Any]],
) -> str:
    """Return the page: `metrics` is of metrics.json, `inputs` holds tables of what went in."""
    layout = tiles.plate["layout"]
    title = layout.get("title") or layout["name"]
    source = f"<p class=note>{escape(layout['source'])}</p>" if layout.get("source") else ""
    parts = [
        f"<h1>Validation: {escape(title)}</h1>", source, _verdict(metrics),
        "<h2>The plate</h2>", _plate(tiles, verdicts),
        "<h2>Controls and doses</h2>", _assay(verdicts),
        "<h2>Right and wrong calls</h2>", _calls(tiles, verdicts),
        "<h2>Tiles</h2>", _tiles(tiles, verdicts),
        "<h2>Flagged wells</h2>", _flagged(tiles, verdicts),
        "<h2>Served models</h2>", _served(verdicts),
        "<h2>How the numbers are made</h2>", _DEFINITIONS,
        "<h2>What went in</h2>",
        *(f"<h3>{escape(name)}</h3>{facts(found)}" for name, found in inputs.items()),
    ]  # fmt: skip
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        f'<meta http-equiv=Content-Security-Policy content="{_POLICY}">'
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<link rel=icon href='data:,'><title>Validation: {escape(title)}</title>"
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _verdict(metrics: Mapping[str, Any]) -> str:
    passed, least = metrics["passed"], metrics["f1_threshold"]
    rows = []
    for fold, model in metrics["models"].items():
        well, tile = model["well"], model["tile"]
        right = well["confusion"][0][0] + well["confusion"][1][1]
        enough = well["weighted_f1"] >= least
        rows.append(
            (
                escape(fold),
                f"{'✓' if enough else '✕'} {number(well['weighted_f1'])}",
                f"{right} of {sum(map(sum, well['confusion']))}",
                number(well["accuracy"], well["accuracy_exact"]),
                number(well["auc"], well["interval"]["auc"]),
                number(tile["accuracy"], tile["interval"]["accuracy"]),
                number(tile["weighted_f1"], tile["interval"]["weighted_f1"]),
                number(tile["auc"], tile["interval"]["auc"]),
            )
        )
    head = (
        "Fold", "Wells' F1", "Wells right", "Wells' accuracy, exact", "Wells' AUC",
        "Tiles' accuracy", "Tiles' F1", "Tiles' AUC",
    )  # fmt: skip
    word = "✓ Passed" if passed else "✕ Not passed"
    return (
        f"<p class='verdict {'passed' if passed else 'refused'}'>{word}</p>"
        f"<p>Every model's weighted F1 over its held-out wells must reach {least:g}. "
        f"A fold's model never saw the wells it is judged on.</p>{table(head, rows)}"
    )


def _wells(verdicts: Mapping[str, Verdict]) -> list[tuple[Judged, str, Tile]]:
    return [(v.judged, well, tile) for v in verdicts.values() for well, tile in v.judged.of.items()]


def _is_wrong(of: Judged, well: str) -> bool:
    return well in of.labels and of.labels[well] != int(of.positive(well))


def _described(tile: Tile) -> str:
    given = "" if tile.dose is None else amount(tile.dose, tile.unit)
    return f"{tile.compound} {given}".strip()


def _plate(tiles: Tiles, verdicts: Mapping[str, Verdict]) -> str:
    flags = {well["well"]: well.get("flags", "") for well in tiles.plate["wells"]}
    cells = []
    for of, well, tile in _wells(verdicts):
        wrong, flag = _is_wrong(of, well), flags.get(well, "")
        signs = _SIGNS.get(tile.role, "") + ("✕" if wrong else "") + ("!" if flag else "")
        note = f"{well}: {of.score(well):.3f}, {tile.role}, {_described(tile)}"
        note += f", flagged {flag.replace('_', ' ')}" if flag else ""
        note += ", wrongly called" if wrong else ""
        row = string.ascii_uppercase.index(tile.row)
        cells.append(
            plots.Cell(row, tile.column - 1, of.score(well), signs, note, tile.label is not None)
        )
    rows = tiles.plate["layout"].get("rows") or max(cell.row for cell in cells) + 1
    columns = tiles.plate["layout"].get("columns") or max(cell.column for cell in cells) + 1
    least = f"min-width:{columns * 26}px;max-width:{columns * 62}px"
    return (
        f"<div class=wide><div style='{least}'>{plots.plate_map(cells, rows, columns)}</div></div>"
        f"{plots.ramp()}<p>A well's number is its probability, in percent. "
        "▲ positive control, ▼ negative control, ○ empty or untreated, ✕ wrongly called, "
        "! flagged image; framed: has a label, so it is judged.</p>"
    )


def _assay(verdicts: Mapping[str, Verdict]) -> str:
    controls = [
        (
            escape(fold),
            f"{v.served['controls']['positive']} / {v.served['controls']['negative']}",
            *(number(v.served["z_factor"][scale]) for scale in SCALES),
        )
        for fold, v in verdicts.items()
    ]
    head = ("Fold", "Controls ▲ / ▼", *(f"Z′, {_SCALE_NAMES[scale]}" for scale in SCALES))
    figures, rows = [], []
    for fold, v in verdicts.items():
        for series in v.served["series"]:
            figures.append(_figure(fold, v.judged, series))
            for scale in SCALES:
                found = series["fit"][scale]
                rows.append(
                    (
                        f"{_named(series)} ({escape(fold)})",
                        _SCALE_NAMES[scale],
                        number(series["v_factor"][scale]),
                        _ec50(found, series["unit"]),
                        number(found["hill"]),
                        number(found["r2"]),
                    )
                )
    names = ("Series", "Score", "V-factor", "EC50", "Hill slope", "R²")
    drawn = f"<div class=charts>{''.join(figures)}</div>{table(names, rows)}"
    return table(head, controls) + (drawn if rows else "<p>The layout names no dose series.</p>")


def _named(series: Mapping[str, Any]) -> str:
    return escape(series["compound"] or "unnamed series")


def _ec50(found: Mapping[str, Any], unit: str) -> str:
    if found["ec50"] is None:
        return f"<span class=reason>none: {escape(found['flag'])}</span>"
    value, low, high = (escape(amount(found[name], unit)) for name in ("ec50", "low", "high"))
    return f"{value} <small>[{low}, {high}]</small>"


def _figure(fold: str, of: Judged, series: Mapping[str, Any]) -> str:
    found = series["fit"]["probability"]
    curve = ec50 = None
    if found["ec50"] is not None:
        shape = [found[name] for name in ("bottom", "top", "ec50", "hill")]
        ec50 = (found["ec50"], found["low"], found["high"])

        def curve(x: float) -> float:
            return float(dose.logistic(np.array(x), *shape))

    drawn = plots.dose_response(
        series["doses"], [of.score(well) for well in series["wells"]], series["unit"], curve, ec50
    )
    return (
        f"<figure>{drawn}<figcaption><b>{_named(series)}</b> ({escape(fold)}): EC50 "
        f"{_ec50(found, series['unit'])}, V {number(series['v_factor']['probability'])}. "
        "○ a well, — its dose's mean.</figcaption></figure>"
    )


def _calls(tiles: Tiles, verdicts: Mapping[str, Verdict]) -> str:
    classes = tiles.plate["classes"]
    matrices = "".join(
        "<div class=matrices>"
        + "".join(_matrix(f"{fold}, {level}s", v.served[level], classes) for level in _LEVELS)
        + "</div>"
        for fold, v in verdicts.items()
    )
    roc, reliability, rows = {}, {}, []
    for fold, v in verdicts.items():
        for level in _LEVELS:
            of = v.served[level]
            rows.append(
                (f"{escape(fold)}, {level}s", number(of["brier"]), number(of["calibration_error"]))
            )
        labels, scores = _labelled(v.judged)
        roc[fold] = [(x, y) for _, y, x in measures.roc(labels, scores)]
        reliability[fold] = [
            (b["probability"], b["positive"], b["count"]) for b in v.served["tile"]["reliability"]
        ]
    return (
        f"{matrices}<div class=charts>"
        f"<figure>{plots.roc_curves(roc)}<figcaption>ROC curves of the tiles.</figcaption></figure>"
        f"<figure>{plots.reliability_curves(reliability)}<figcaption>Reliability of the tiles' "
        "probabilities: on the diagonal they are what they say. A larger circle holds more tiles."
        f"</figcaption></figure></div>{table(('Calibration', 'Brier', 'Error'), rows)}"
    )


def _labelled(of: Judged) -> tuple[measures.Array, measures.Array]:
    """Return labels and probabilities of the tiles of labelled wells."""
    places = [of.wells[well] for well in of.labels]
    labels = np.repeat(np.array(list(of.labels.values()), float), [len(at) for at in places])
    return labels, of.probability[np.concatenate(places)]


def _matrix(title: str, level: Mapping[str, Any], classes: Sequence[str]) -> str:
    rows = []
    for i, name in enumerate(classes):
        total = max(sum(level["confusion"][i]), 1)
        cells = ""
        for j, count in enumerate(level["confusion"][i]):
            fill, ink = plots.colour(count / total)
            low, high = level["interval"]["confusion"][i][j]
            cells += (
                f"<td style='background:{fill};color:{ink}'>{'✓' if i == j else '✕'} <b>{count}</b>"
                f"<br><small>{count / total:.0%} [{low:.0f}, {high:.0f}]</small>"
            )
        rows.append(f"<tr><th scope=row>{escape(name)}{cells}")
    return (
        f"<table class=matrix><caption>{escape(title)}</caption><tr><th>is \\ called"
        + "".join(f"<th scope=col>{escape(name)}" for name in classes)
        + "".join(rows)
        + "</table>"
    )


def _tiles(tiles: Tiles, verdicts: Mapping[str, Verdict]) -> str:
    shown = pictures.pick(tiles, [v.judged for v in verdicts.values()], _TILES)
    levels = pictures.display_range(tiles)
    titles = {
        "certain": "Most certain, and right",
        "uncertain": "Least certain",
        "wrong": "Wrongly called",
    }
    parts = ["<p>Signal green, DNA magenta, one grey scale for the whole plate.</p>"]
    for kind, (picked, count) in shown.items():
        figures = []
        for one in picked:
            tile = tiles.index[one.row]
            truth = "no label" if tile.label is None else tiles.plate["classes"][tile.label]
            figures.append(
                f"<figure><img width=176 height=176 alt='Tile of {escape(tile.well)}' "
                f"src='{pictures.picture(tiles.array[one.row], levels)}'><figcaption><b>"
                f"{escape(tile.well)}</b> {100 * one.probability:.1f} %<br>{escape(truth)}"
                f"<br>{escape(_described(tile))}</figcaption></figure>"
            )
        of = f" ({len(picked)} of {count})" if kind == "wrong" and len(picked) < count else ""
        body = f"<div class=tiles>{''.join(figures)}</div>" if figures else "<p>None.</p>"
        parts.append(f"<h3>{titles[kind]}{of}</h3>{body}")
    return "".join(parts)


def _flagged(tiles: Tiles, verdicts: Mapping[str, Verdict]) -> str:
    flags = {w["well"]: w["flags"] for w in tiles.plate["wells"] if w.get("flags")}
    rows = [
        (
            escape(well),
            escape(flags[well].replace("_", " ")),
            number(of.score(well)),
            escape(_described(tile)),
            "wrong" if _is_wrong(of, well) else "right" if tile.label is not None else "no label",
        )
        for of, well, tile in _wells(verdicts)
        if well in flags
    ]
    if not rows:
        return "<p>No well's images were flagged when the plate was prepared.</p>"
    return "<p>They are judged like the others.</p>" + table(
        ("Well", "Flags", "Score", "Treatment", "Call"), rows
    )


def _served(verdicts: Mapping[str, Verdict]) -> str:
    rows = []
    for fold, v in verdicts.items():
        for variant, of in v.measures.items():
            rows.append(
                (
                    escape(fold),
                    f"<b>{variant}, served</b>" if variant == v.variant else variant,
                    number(of["well"]["weighted_f1"]),
                    number(of["well"]["auc"]),
                    number(of["tile"]["auc"]),
                )
            )
        if v.refused:
            rows.append((escape(fold), f"int8 not served: {escape(v.refused)}", "", "", ""))
    head = ("Fold", "Variant", "Wells' F1", "Wells' AUC", "Tiles' AUC")
    return (
        "<p>int8 is served only if no held-out well changes its call and both AUC stay within "
        f"0.005 of fp32.</p>{table(head, rows)}"
    )
