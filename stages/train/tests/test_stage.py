"""The train stage, from a tiles folder to a model file that others can run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from common import digest, tiles
from common.errors import StageError
from common.stage_io import StageIO
from train import stage
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


def answers(file: Path, tiles: np.ndarray) -> np.ndarray:
    (found,) = onnxruntime.InferenceSession(file).run(["probability"], {"tiles": tiles})
    return found[:, 0]


def test_the_model_files_take_raw_tiles_and_judge_the_fold_they_never_saw(
    source: Path, whole: Path
) -> None:
    model = whole / "model"
    facts = json.loads((model / "model.json").read_text())
    used = facts["train_wells"] + facts["validation_wells"]
    assert len(used) == 8
    assert all(well.startswith("B") for well in used)
    for name, expected in facts["files"].items():
        assert digest.file_sha256(model / name) == expected
    held_out = np.load(source / "tiles.npy")[:8]
    for name in ("model.onnx", "model.int8.onnx"):
        (declared,) = onnxruntime.InferenceSession(model / name).get_inputs()
        assert (declared.name, declared.type) == ("tiles", "tensor(uint8)")
        assert ((answers(model / name, held_out) > 0.5) == [False, True] * 4).all(), name
    assert (model / "model.int8.onnx").stat().st_size < (model / "model.onnx").stat().st_size / 2
    nodes = onnx.load(model / "model.int8.onnx").graph.node
    multiplied = [node.name for node in nodes if node.op_type in ("Mul", "BatchNormalization")]
    assert all("normalise" in name or "moments" in name for name in multiplied), multiplied
    again = keras.saving.load_model(model / "model.keras")
    assert np.allclose(
        answers(model / "model.onnx", held_out), np.asarray(again(held_out))[:, 0], atol=1e-4
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiles(tmp_path_factory.mktemp("source") / "tiles")


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that nothing stopped."""
    out = tmp_path_factory.mktemp("whole")
    process = start(source, out, out / "workspace")
    said = until(process, "never")
    assert process.wait() == 0
    assert any("epoch 3 of 3" in line for line in said)
    return out


def start(source: Path, out: Path, workspace: Path) -> subprocess.Popen[str]:
    document = executor_input(source, out, epochs=3, learning_rate=0.1, workspace_name="w")
    workspace.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "train", "--executor-input", json.dumps(document)],
        stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PLATELINE_WORKSPACE": str(workspace)},
    )  # fmt: skip


def until(process: subprocess.Popen[str], text: str) -> list[str]:
    lines = []
    for line in process.stdout or ():
        lines.append(line)
        if text in line:
            break
    return lines


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes_as_one_that_was_not(
    source: Path, whole: Path, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    for end in ("view 2 of 4", "epoch 2 of 3"):
        killed = start(source, tmp_path, workspace)
        until(killed, end)
        killed.kill()
        killed.wait()
    resumed = start(source, tmp_path, workspace)
    said = until(resumed, "never")
    assert resumed.wait() == 0
    assert not any("features of view" in line for line in said), "it computed them once more"
    for name in ("model.onnx", "model.int8.onnx", "curves.csv"):
        one, two = (out / "model" / name for out in (whole, tmp_path))
        assert one.read_bytes() == two.read_bytes(), name
    assert not list(workspace.rglob(".train-*.progress"))


@pytest.mark.slow
def test_without_pretrained_weights_everything_is_trained(source: Path, tmp_path: Path) -> None:
    model = run(source, tmp_path, model_type="ResNet50", weights="none", batch_size=2, most_tiles=5)
    facts = json.loads((model / "model.json").read_text())
    assert facts["tuned"]
    assert facts["options"]["weights"] == "none"
    assert np.isfinite(answers(model / "model.int8.onnx", np.load(source / "tiles.npy")[:2])).all()


@pytest.mark.slow
def test_the_head_can_be_fitted_by_sgd(source: Path, whole: Path, tmp_path: Path) -> None:
    held_out = np.load(source / "tiles.npy")[:8]
    newton = answers(whole / "model/model.onnx", held_out)
    made = run(source, tmp_path, optimizer="sgd", learning_rate=0.05)
    sgd = answers(made / "model.onnx", held_out)
    assert (newton != sgd).all()
    assert sgd[1::2].min() > sgd[::2].max()


@pytest.mark.parametrize("built", [True, False])
def test_without_a_gpu_an_image_for_gpus_says_so_in_a_line(
    built: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stage.tensorflow.test, "is_built_with_cuda", lambda: built)
    monkeypatch.setattr(stage.tensorflow.config, "list_physical_devices", lambda _: [])
    assert stage.prepare_gpus() == []
    line = (
        "train: warning: computing on the processor, in an image for NVIDIA GPUs: TensorFlow finds "
        "no GPU\n"
    )
    assert capfd.readouterr().out == (line if built else "")


@pytest.mark.parametrize(
    ("made", "parameters", "says"),
    [
        ({}, {"model_type": "VGG"}, "unknown model_type 'VGG'"),
        ({}, {"optimizer": "adam"}, "unknown optimizer .adam.; there are newton, sgd"),
        ({}, {"weights": "/there/is/none.pth"}, "no file of weights /there/is/none.pth"),
        ({}, {"model_type": "ResNet50"}, "'imagenet' of ResNet50 cannot be loaded .* weights=FILE"),
        ({}, {"epochs": 0}, "epochs is 0; 1 is the least"),
        ({}, {"fold": "Z"}, "there is no fold 'Z'; the plate has A, B"),
        ({"constant": True}, {}, "signal channel of the training wells is constant"),
        ({"labels": (1,)}, {}, "class 0 has 0 training wells"),
        (
            {},
            {"optimizer": "sgd", "learning_rate": 1e30},
            r"the loss is .*(nan|inf).*lower learning_rate",
        ),
    ],
    ids=[
        "model type",
        "optimizer",
        "weights",
        "no network",
        "epochs",
        "fold",
        "constant",
        "one class",
        "diverging",
    ],
)
def test_what_cannot_be_trained_says_why(
    source: Path, tmp_path: Path, made: dict[str, Any], parameters: dict[str, Any], says: str
) -> None:
    source = make_tiles(tmp_path / "tiles", **made) if made else source
    with pytest.raises(StageError, match=says):
        run(source, tmp_path / "out", **parameters)
    assert not (tmp_path / "out" / "output.json").exists()


def test_tiles_that_are_not_those_that_prepare_handed_on_are_refused(
    source: Path, tmp_path: Path
) -> None:
    with pytest.raises(StageError, match=r"tiles_digest is .*the parameter fresh"):
        run(source, tmp_path / "out", tiles_digest="sha256:" + "0" * 64)
