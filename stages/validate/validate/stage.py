"""Judges each fold's ONNX files on its held-out wells and writes the models to be served."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from common import digest
from common.errors import StageError
from common.stage_io import StageIO
from common.tiles import Tiles, read_tiles
from common.workspace import with_checkpoint

from .measures import Array, auc, confusion, weighted_f1, z_factor

BATCH = 16
THRESHOLD = 0.5
_FILES = {"fp32": "model.onnx", "int8": "model.int8.onnx"}


def validate(task: StageIO) -> None:
    """Run the stage, or re-emit its checkpoint."""
    restore = task.parameter("checkpoint", bool, default=False)
    with_checkpoint(task, "validate", restore=restore, compute=lambda: _judge_all(task))


def _load(folder: Path, tiles: Tiles) -> dict[str, Any]:
    try:
        model = dict(json.loads((folder / "model.json").read_text(encoding="utf-8")))
        for name, expected in model["files"].items():
            if digest.file_sha256(folder / name) != expected:
                raise StageError(f"{folder / name} is not what model.json names; train again")
        held = {well["well"] for well in tiles.plate["wells"] if well["fold"] == model["fold"]}
        seen = held & {*model["train_wells"], *model["validation_wells"]}
        if model["fold"] not in tiles.folds or not re.fullmatch(r"[\w.-]+", model["fold"]):
            raise StageError(f"{folder} is of the unknown fold {model['fold']!r}; train again")
    except (OSError, ValueError, KeyError) as error:
        raise StageError(f"cannot read the model in {folder}: {error!r}; train again") from None
    if seen:
        raise StageError(f"the model {model['fold']} was trained on its held-out {sorted(seen)}")
    return model


def _probabilities(path: Path, tiles: Tiles, rows: list[int]) -> Array:
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        parts = [
            session.run(["probability"], {"tiles": tiles.array[rows[at : at + BATCH]]})[0]
            for at in range(0, len(rows), BATCH)
        ]
    except Exception as error:  # noqa: BLE001 - onnxruntime's own exceptions share no public base
        raise StageError(f"onnxruntime cannot run {path}: {error}; train again") from None
    found = np.concatenate(parts).astype(np.float64).reshape(-1)
    if len(found) != len(rows) or not ((found >= 0) & (found <= 1)).all():
        raise StageError(f"{path} answers something else than probabilities (NaN?); train again")
    return found


def _judge(tiles: Tiles, fold: str, path: Path) -> dict[str, Any]:
    rows = [i for i, tile in enumerate(tiles.index) if tile.fold == fold]
    if not rows:
        raise StageError(f"the fold {fold} holds no well to judge; correct the layout's folds")
    probability = _probabilities(path, tiles, rows)
    wells: dict[str, list[int]] = {}
    for at, row in enumerate(rows):
        wells.setdefault(tiles.index[row].well, []).append(at)
    mean = {well: float(probability[at].mean()) for well, at in wells.items()}
    of = {tiles.index[row].well: tiles.index[row] for row in rows}
    known = [well for well in mean if of[well].label is not None]
    labels = np.array([float(of[well].label or 0) for well in known])
    scores = np.array([mean[well] for well in known])
    marked = [at for at, row in enumerate(rows) if tiles.index[row].label is not None]
    tile_labels = np.array([float(tiles.index[rows[at]].label or 0) for at in marked])
    if len(set(labels)) < 2:
        raise StageError(f"the held-out wells of {fold} have not both classes; nothing is judged")

    def level(truth: Array, values: Array) -> dict[str, Any]:
        calls = (values >= THRESHOLD).astype(np.float64)
        return {
            "accuracy": float((truth == calls).mean()),
            "weighted_f1": weighted_f1(truth, calls),
            "auc": auc(truth, values),
            "confusion": confusion(truth, calls),
        }

    role = {
        r: np.array([mean[w] for w in mean if of[w].role == r]) for r in ("positive", "negative")
    }
    return {
        "well": level(labels, scores),
        "tile": level(tile_labels, probability[marked]),
        "z_factor": z_factor(role["positive"], role["negative"]),
        "wells": mean,
        "rows": rows,
        "probability": probability,
    }


def _judge_all(task: StageIO) -> None:
    threshold = task.parameter("f1_threshold", float)
    tiles = read_tiles(task.input("tiles").path)
    folders = {}
    for artifact in task.inputs("models"):
        model = _load(artifact.path, tiles)
        if model["fold"] in folders:
            raise StageError(f"there are two models of the fold {model['fold']}")
        folders[model["fold"]] = (artifact.path, model)
    if missing := [fold for fold in tiles.folds if fold not in folders]:
        raise StageError(f"no model of the folds {missing} was given; train them")
    servable, results = task.output("servable"), task.output("results")
    servable.mkdir(exist_ok=True)
    results.mkdir(exist_ok=True)
    entries, report = [], {}
    for fold in tiles.folds:
        folder, model = folders[fold]
        print(f"judging {fold}", flush=True)
        judged = {"fp32": _judge(tiles, fold, folder / _FILES["fp32"])}
        variant = "fp32"
        if (folder / _FILES["int8"]).is_file():
            try:
                judged["int8"] = _judge(tiles, fold, folder / _FILES["int8"])
                variant = "int8" if _same(judged) else "fp32"
            except StageError as error:
                print(f"int8 of {fold} is not used: {error}", flush=True)
        shutil.copyfile(folder / _FILES[variant], servable / f"{fold}.onnx")
        entries.append(
            {
                "name": fold,
                "file": f"{fold}.onnx",
                "fold": fold,
                "variant": variant,
                "sha256": digest.file_sha256(servable / f"{fold}.onnx"),
                "model_type": model["model_type"],
            }
        )
        report[fold] = {"variant": variant, **judged[variant]}
    passed = all(r["well"]["weighted_f1"] >= threshold for r in report.values())
    manifest = {
        "format": 1,
        "classes": tiles.plate["classes"],
        "threshold": THRESHOLD,
        "tile": tiles.plate["tile"],
        "layout": tiles.plate["layout"],
        "models": entries,
    }
    (servable / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    _write(task, tiles, report, results, passed, threshold)


def _same(judged: dict[str, dict[str, Any]]) -> bool:
    one, other = judged["fp32"], judged["int8"]
    return all(
        (p >= THRESHOLD) == (other["wells"][well] >= THRESHOLD) for well, p in one["wells"].items()
    ) and all(abs(one[k]["auc"] - other[k]["auc"]) <= 0.005 for k in ("tile", "well"))


def _write(
    task: StageIO,
    tiles: Tiles,
    report: dict[str, Any],
    results: Path,
    passed: bool,
    threshold: float,
) -> None:
    with (results / "well_scores.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["fold", "well", "probability"])
        out.writerows((f, w, p) for f, r in report.items() for w, p in r["wells"].items())
    with (results / "tile_scores.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["fold", "well", "field", "y", "x", "probability"])
        for fold, r in report.items():
            for row, p in zip(r["rows"], r["probability"], strict=True):
                t = tiles.index[row]
                out.writerow([fold, t.well, t.field, t.y, t.x, p])
    keep = ("variant", "well", "tile", "z_factor")
    facts = {fold: {k: r[k] for k in keep} for fold, r in report.items()}
    text = json.dumps({"passed": passed, "f1_threshold": threshold, "models": facts}, indent=1)
    (results / "metrics.json").write_text(text + "\n")
    flat = {
        f"{fold} {lv} {k}": r[lv][k]
        for fold, r in report.items()
        for lv in ("well", "tile")
        for k in ("accuracy", "weighted_f1", "auc")
    }
    task.set_metadata("metrics", flat)
    total = np.sum([r["well"]["confusion"] for r in report.values()], axis=0).tolist()
    task.set_metadata(
        "classification",
        {
            "confusionMatrix": {
                "annotationSpecs": [{"displayName": name} for name in tiles.plate["classes"]],
                "rows": [{"row": row} for row in total],
            }
        },
    )
    for name in ("metrics", "classification"):
        if name in task.output_names():
            task.output(name).write_text(text + "\n")
    cells = "".join(f"<tr><th>{html.escape(k)}<td>{v:.4f}" for k, v in flat.items())
    wells = "".join(
        f"<tr><th>{html.escape(w)}<td>{p:.4f}"
        for r in report.values()
        for w, p in r["wells"].items()
    )
    task.output("report").write_text(
        "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        "<title>Validation</title><style>:root{color-scheme:light dark}body{font:1rem sans-serif;"
        "margin:1rem}th{text-align:left}td{padding-left:1rem}</style>"
        f"<h1>{'Passed' if passed else 'Not passed'}</h1><p>Every model's well-level weighted F1 "
        f"must reach {threshold}.<table>{cells}</table><h2>Held-out wells: mean probability</h2>"
        f"<table>{wells}</table>",
        encoding="utf-8",
    )
    task.set_parameter("passed", passed)
    task.set_parameter("digest", digest.folder_digest(task.output("servable")))
    print(text, flush=True)
