"""The train stage, from a tiles folder to a model file that others can run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from common import digest
from small import answers, executor_input, trained
from train import stage


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
def test_the_head_can_be_fitted_by_sgd(source: Path, whole: Path, tmp_path: Path) -> None:
    held_out = np.load(source / "tiles.npy")[:8]
    newton = answers(whole / "model/model.onnx", held_out)
    made = trained(source, tmp_path, optimizer="sgd", learning_rate=0.05)
    sgd = np.asarray(made(held_out))[:, 0]
    assert (np.abs(newton - sgd) > 1e-4).all()
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
