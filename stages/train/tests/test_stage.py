"""The train stage, from a tiles folder to a model file that others can run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from common import digest, tiles
from common.errors import StageError
from common.stage_io import StageIO
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


def run(source: Path, out: Path, **parameters: Any) -> Path:
    values = {"fold": "A", "epochs": 15, "learning_rate": 0.05} | parameters
    artifact = {"artifacts": [{"name": "tiles", "uri": str(source)}]}
    outputs = {
        name: {"artifacts": [{"name": name, "uri": str(out / name)}]}
        for name in ("model", "metrics")
    }
    document = {
        "inputs": {"parameterValues": values, "artifacts": {"tiles": artifact}},
        "outputs": {"artifacts": outputs, "outputFile": str(out / "output.json")},
    }
    task = StageIO(document)
    train(task)
    task.finish()
    return out / "model"


def test_the_model_file_takes_raw_tiles_and_judges_the_fold_it_never_saw(tmp_path: Path) -> None:
    source = make_tiles(tmp_path / "tiles")
    model = run(source, tmp_path / "one")
    again = run(source, tmp_path / "two")
    facts = json.loads((model / "model.json").read_text())
    used = facts["train_wells"] + facts["validation_wells"]
    assert len(used) == 8
    assert all(well.startswith("B") for well in used)
    for name, expected in facts["files"].items():
        assert digest.file_sha256(model / name) == expected
    session = onnxruntime.InferenceSession(model / "model.onnx")
    (declared,) = session.get_inputs()
    assert (declared.name, declared.type) == ("tiles", "tensor(uint8)")
    assert [output.name for output in session.get_outputs()] == ["probability"]
    (found,) = session.run(None, {"tiles": np.load(source / "tiles.npy")[:8]})
    assert ((found[:, 0] > 0.5) == [False, True] * 4).all()
    other = onnxruntime.InferenceSession(again / "model.onnx")
    (repeated,) = other.run(None, {"tiles": np.load(source / "tiles.npy")[:8]})
    assert (found == repeated).all(), "the same seed gave other weights"


@pytest.mark.parametrize(
    ("made", "parameters", "says"),
    [
        ({}, {"model_type": "VGG"}, "unknown model_type 'VGG'"),
        ({}, {"optimizer": "adam"}, "unknown optimizer .adam.; there are newton, sgd"),
        ({}, {"fold": "Z"}, "there is no fold 'Z'; the plate has A, B"),
        ({"constant": True}, {}, "signal channel of the training wells is constant"),
        ({"labels": (1,)}, {}, "class 0 has 0 training wells"),
        (
            {},
            {"optimizer": "sgd", "learning_rate": 1e30},
            r"the loss is .*(nan|inf).*lower learning_rate",
        ),
    ],
    ids=["model type", "optimizer", "fold", "constant", "one class", "diverging"],
)
def test_what_cannot_be_trained_says_why(
    tmp_path: Path, made: dict[str, Any], parameters: dict[str, Any], says: str
) -> None:
    source = make_tiles(tmp_path / "tiles", **made)
    with pytest.raises(StageError, match=says):
        run(source, tmp_path / "out", **parameters)
    assert not (tmp_path / "out" / "output.json").exists()
