"""Small plates with models that judge them, and the stage run on both.

`python3 example.py FOLDER` leaves the report of one that shows everything a report can show.
"""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from common import digest
from common.stage_io import StageIO
from common.tiles import Tile, write_index, write_plate
from onnx_file import onnx_model
from validate.stage import validate

PLATE = "sha256:" + "5" * 64
OUTPUTS = ("servable", "results", "metrics", "classification", "report")
CURVES = b"epoch,loss,validation_loss\n0,0.3,0.4\n1,0.1,0.25\n2,0.05,0.3\n"
GOOD = onnx_model(0.1, -10)  # calls a tile positive from a mean green level of 100 on


@dataclass(frozen=True)
class Well:
    """A well to draw: `levels` are its tiles' mean green levels."""

    name: str
    fold: str
    levels: tuple[float, ...]
    role: str = "sample"
    label: int | None = None
    compound: str = ""
    dose: float | None = None
    unit: str = ""
    flags: str = ""


def plain():
    """Return two folds of three negative and three positive controls, far apart."""
    wells = []
    for row in "AB":
        for column in range(1, 7):
            label = int(column > 3)
            level = 150 + column if label else 50 + column
            role = "positive" if label else "negative"
            wells.append(Well(f"{row}{column:02d}", row, (level, level), role, label))
    return wells


def full(seed=0):
    """Return a plate with dose series, one that no logistic fits, wrong calls and flags."""
    random = np.random.default_rng(seed)
    wells = []
    for row in "ABCD":
        fold, compound = ("A-B", "Wortmannin") if row in "AB" else ("C-D", "<Nothing> & Söhne")
        for column in range(1, 13):
            name = f"{row}{column:02d}"
            dose = None if column == 12 else 0.0 if column < 3 else 2.0 ** (column - 3)
            role = {1: "negative", 2: "empty", 12: "positive"}.get(column, "sample")
            effect = 1.0 if column == 12 else dose**2 / (256 + dose**2) if fold == "A-B" else 0.3
            levels = tuple(60 + 80 * effect + random.normal(0, 6, 4))
            label = {1: 0, 2: 0, 12: 1}.get(column)
            wells.append(Well(name, fold, levels, role, label, compound, dose, "nM"))
    wells[1] = replace(wells[1], levels=(120, 108, 90, 99), flags="out_of_focus")
    return wells


def write(folder, wells, models=None):
    """Write the tiles and a model a fold; return the stage's task (not run)."""
    tiles = folder / "tiles"
    tiles.mkdir(parents=True)
    random = np.random.default_rng(0)
    index, pictures = [], []
    for well in wells:
        for x, level in enumerate(well.levels):
            row, column = well.name[0], int(well.name[1:])
            facts = (well.compound, well.dose, well.unit, well.role, well.fold, well.label)
            index.append(Tile(well.name, row, column, 0, 0, x, *facts, well.flags))
            picture = np.zeros((256, 256, 3), np.uint8)
            picture[..., 1] = np.clip(level + random.normal(0, 9, (256, 256)), 0, 255)
            picture[64:192, 64:192, 2] = 90
            pictures.append(picture)
    folds = list(dict.fromkeys(well.fold for well in wells))
    np.save(tiles / "tiles.npy", np.array(pictures))
    write_index(tiles / "tiles.csv", index)
    document = {
        "plate_digest": PLATE,
        "folds": folds,
        "classes": ["negative", "positive"],
        "tile": 256,
        "layout": {
            "name": "test",
            "title": "A plate made for tests <not a real one>",
            "rows": max(ord(well.name[0]) - 64 for well in wells),
            "columns": max(int(well.name[1:]) for well in wells),
        },
        "wells": [{"well": w.name, "fold": w.fold, "flags": w.flags} for w in wells],
    }
    write_plate(tiles, document)
    for fold in folds:
        write_model(folder, fold, {"model.onnx": GOOD, "curves.csv": CURVES, **(models or {})})
    return task(folder, folds)


def write_model(folder, fold, files, **facts):
    """Write the model of a fold; `facts` replace what its model.json says."""
    model = folder / f"model-{fold}"
    model.mkdir(exist_ok=True)
    for name, data in files.items():
        (model / name).write_bytes(data)
    document = {
        "fold": fold,
        "model_type": "test",
        "train_wells": [],
        "validation_wells": [],
        "tiles_sha256": digest.file_sha256(folder / "tiles/tiles.npy"),
        "files": {name: digest.file_sha256(model / name) for name in files},
        "parameters": {"epochs": 3},
    }
    (model / "model.json").write_text(json.dumps({**document, **facts}))


def task(folder, folds, **parameters):
    """Return a task of the stage on what lies in `folder`."""
    models = [{"uri": str(folder / f"model-{fold}")} for fold in folds]
    outputs = {n: {"artifacts": [{"uri": str(folder / "out" / n)}]} for n in OUTPUTS}
    return StageIO(
        {
            "inputs": {
                "parameterValues": {"f1_threshold": 0.9, **parameters},
                "artifacts": {
                    "tiles": {"artifacts": [{"uri": str(folder / "tiles")}]},
                    "models": {"artifacts": models},
                },
            },
            "outputs": {"artifacts": outputs},
        }
    )


if __name__ == "__main__":
    validate(write(Path(sys.argv[1]), full(), {"model.int8.onnx": onnx_model(0.1, -8.0)}))
