"""A small folder of tiles, and the stage run on it in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
import pytest
from common import tiles
from common.stage_io import StageIO
from train import export
from train.stage import train


def make_tiles(folder: Path, *, constant: bool = False, labels: tuple[int, ...] = (0, 1)) -> Path:
    """Write 16 wells of one tile: disks of signal inside (positive) or outside of the nucleus."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:256, :256]
    nucleus = (y % 64 - 32) ** 2 + (x % 64 - 32) ** 2 < 144
    array, index = [], []
    for number in range(16):
        row, label = "AB"[number // 8], labels[number % len(labels)]
        signal = np.where(nucleus == bool(label), 120, 30) + random.poisson(9, nucleus.shape)
        tile = np.stack([np.zeros_like(signal), signal, np.where(nucleus, 150, 10)], axis=-1)
        array.append(np.zeros_like(tile) if constant else tile)
        well = f"{row}{number % 8 + 1:02}"
        role = ("negative", "positive")[label]
        index.append(
            tiles.Tile(well, row, number % 8 + 1, 0, 0, 0, "x", None, "", role, row, label, "")
        )
    folder.mkdir()
    np.save(folder / "tiles.npy", np.stack(array).astype(np.uint8))
    tiles.write_index(folder / "tiles.csv", index)
    tiles.write_plate(folder, {"folds": ["A", "B"], "classes": list(tiles.CLASSES)})
    return folder


def executor_input(source: Path, out: Path, **parameters: Any) -> dict[str, Any]:
    artifact = {"artifacts": [{"name": "tiles", "uri": str(source)}]}
    outputs = {
        name: {"artifacts": [{"name": name, "uri": str(out / name)}]}
        for name in ("model", "metrics")
    }
    values = {"fold": "A", "epochs": 1, "batch_size": 8} | parameters
    return {
        "inputs": {"parameterValues": values, "artifacts": {"tiles": artifact}},
        "outputs": {"artifacts": outputs, "outputFile": str(out / "output.json")},
    }


def run(source: Path, out: Path, **parameters: Any) -> Path:
    task = StageIO(executor_input(source, out, **parameters))
    train(task)
    task.finish()
    return out / "model"


def trained(source: Path, out: Path, **parameters: Any) -> keras.Model:
    """Return the network that a run trains; the export, as long as all the rest, is left out."""
    given: list[keras.Model] = []

    def keep(model: keras.Model, _calibration: np.ndarray, folder: Path) -> None:
        given.append(model)
        for name in export.NAMES:
            (folder / name).touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "export", keep)
        run(source, out, **parameters)
    return given[0]


def answers(file: Path, tiles: np.ndarray) -> np.ndarray:
    (found,) = onnxruntime.InferenceSession(file).run(["probability"], {"tiles": tiles})
    return found[:, 0]
