"""The validate stage: judges each fold's ONNX files on its held-out wells, gates, reports."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import digest, many_plates, spreadsheet
from common.errors import StageError
from common.stage_io import StageIO
from common.tiles import Tiles
from common.workspace import with_checkpoint

from . import kubeflow, models, report
from .judge import SCALES, THRESHOLD
from .plates import by_plate
from .verdict import Verdict, judge_fold

METRICS = "metrics.json"


def validate(task: StageIO) -> None:
    """Run the stage, or re-emit its checkpoint.

    What `passed` and `digest` say then follows from the files, not from what was said at the time.
    """
    threshold = task.parameter("f1_threshold", float)
    if not 0 <= threshold <= 1:
        raise StageError(f"f1_threshold = {threshold:g} is not within 0 to 1; an F1 never is")
    restore = task.parameter("checkpoint", bool, default=False)
    with_checkpoint(task, "validate", restore=restore, compute=lambda: _compute(task, threshold))
    if restore:
        task.set_parameter("passed", _reread(task.output("results") / METRICS, threshold))
        task.set_parameter("digest", digest.folder_digest(task.output("servable")))


def gate(metrics: Mapping[str, Any], threshold: float) -> bool:
    """Return whether every model's well-level weighted F1 reaches the threshold.

    `metrics` is of results/metrics.json. Raises KeyError or TypeError where it is not.
    """
    reached = [model["well"]["weighted_f1"] >= threshold for model in metrics["models"].values()]
    return bool(reached) and all(reached)


def _reread(path: Path, threshold: float) -> bool:
    try:
        return gate(json.loads(path.read_text(encoding="utf-8")), threshold)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StageError(
            f"the checkpoint's {METRICS} cannot be judged ({error!r}); run without this checkpoint"
        ) from None


def _compute(task: StageIO, threshold: float) -> None:
    seed = task.parameter("seed", int, 0)
    tiles = many_plates.read(task.input("tiles").path)
    task.check_handed("tiles_digest", tiles.digest)
    found = models.load([artifact.path for artifact in task.inputs("models")], tiles)
    task.check_handed("model_digests", [model.digest for model in found.values()])
    verdicts = {fold: judge_fold(tiles, model, seed) for fold, model in found.items()}
    metrics: dict[str, Any] = {
        "f1_threshold": threshold,
        "models": {
            fold: {"variant": v.variant, "int8_refused": v.refused, **v.served}
            for fold, v in verdicts.items()
        },
    }
    if plates := by_plate(tiles, verdicts):
        metrics |= {"plates": plates, "broken_plates": tiles.plate["broken"]}
    metrics["passed"] = passed = gate(metrics, threshold)
    try:
        _write_servable(task.output("servable"), tiles, verdicts, metrics)
        _write_results(task.output("results"), tiles, verdicts, metrics)
        document = _facts(task, tiles, verdicts)
        page = report.render(tiles, verdicts, metrics, document)
        task.output("report").write_text(page, encoding="utf-8")
        flat = kubeflow.flat(metrics)
        rates = kubeflow.classification(verdicts, tiles.plate["classes"])
        for name, content in (("metrics", flat), ("classification", rates)):
            if name in task.output_names():
                task.set_metadata(name, content)
                task.output(name).write_text(json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise StageError(
            f"cannot write the results: {error.strerror or error}; make room"
        ) from None
    task.set_parameter("passed", passed)
    task.set_parameter("digest", digest.folder_digest(task.output("servable")))
    for name, value in flat.items():
        print(f"{name}: {value:.4g}", flush=True)
    print(f"{'passed' if passed else 'not passed'} (f1_threshold {threshold:g})", flush=True)


def _write_servable(
    folder: Path, tiles: Tiles, verdicts: Mapping[str, Verdict], metrics: Mapping[str, Any]
) -> None:
    """Write the models to be served and manifest.json, which names them and what the gate found.

    So the gate's result goes wherever the models go, and can be signed there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for fold, verdict in verdicts.items():
        path = folder / f"{fold}.onnx"
        shutil.copyfile(verdict.model.variants[verdict.variant], path)
        entries.append(
            {
                "name": fold,
                "file": path.name,
                "fold": fold,
                "variant": verdict.variant,
                "sha256": digest.file_sha256(path),
                "model_type": verdict.model.facts["model_type"],
            }
        )
    manifest = {
        "format": 1,
        "classes": tiles.plate["classes"],
        "threshold": THRESHOLD,
        "tile": tiles.plate["tile"],
        "layout": tiles.plate["layout"],
        # A plate among these is scored by the models that never saw the well.
        "trained_on": [tiles.plate.get("plate_digest", "")],
        "models": entries,
        "gate": {
            "passed": metrics["passed"],
            "f1_threshold": metrics["f1_threshold"],
            "plate_digest": tiles.plate.get("plate_digest", ""),
            "models": {
                fold: {
                    "weighted_f1": model["well"]["weighted_f1"],
                    "accuracy": model["well"]["accuracy"],
                    "auc": model["well"]["auc"],
                    "z_factor": model["z_factor"]["probability"],
                }
                for fold, model in metrics["models"].items()
            },
        },
    }
    _write_json(folder / "manifest.json", manifest)


def _write_results(
    folder: Path, tiles: Tiles, verdicts: Mapping[str, Verdict], metrics: Mapping[str, Any]
) -> None:
    """Write metrics.json, well_scores.csv and tile_scores.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / METRICS, metrics)
    with (folder / "well_scores.csv").open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["fold", "well", *SCALES, "call", "label"])
        for fold, verdict in verdicts.items():
            of = verdict.judged
            for well, tile in of.of.items():
                scores = [of.score(well, scale) for scale in SCALES]
                label = "" if tile.label is None else tile.label
                out.writerow(
                    spreadsheet.cells([fold, well, *scores, int(of.positive(well)), label])
                )
    with (folder / "tile_scores.csv").open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["fold", "well", "field", "y", "x", "probability"])
        for fold, verdict in verdicts.items():
            for row, p in zip(verdict.judged.rows, verdict.judged.probability, strict=True):
                t = tiles.index[row]
                out.writerow(spreadsheet.cells([fold, t.well, t.field, t.y, t.x, p]))


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    text = json.dumps(document, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _facts(
    task: StageIO, tiles: Tiles, verdicts: Mapping[str, Verdict]
) -> dict[str, Mapping[str, Any]]:
    """Return what went in: parameters and digests, by what they belong to."""
    plate = tiles.plate
    inputs = {
        "plate": plate.get("plate_digest", ""),
        "layout": plate["layout"].get("digest", ""),
        "tiles": tiles.sha256,
        "image of validate": os.environ.get("PLATELINE_IMAGE", ""),
    }
    for fold, verdict in verdicts.items():
        for variant, path in verdict.model.variants.items():
            inputs[f"model {fold} {variant}"] = verdict.model.facts["files"][path.name]
    trained = {
        f"Training of {fold}": {
            **verdict.model.facts.get("parameters", {}),
            "image": verdict.model.facts.get("image", ""),
        }
        for fold, verdict in verdicts.items()
    }
    return {"Digests": inputs, "Parameters of validate": task.parameters(), **trained}
