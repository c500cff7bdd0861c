"""The train stage, from a tiles folder to a model file that others can run."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import runpy
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from common import digest
from small import answers, executor_input, run, trained
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
    out, said = tmp_path_factory.mktemp("whole"), io.StringIO()
    (out / "workspace").mkdir()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setenv("PLATELINE_WORKSPACE", str(out / "workspace"))
        run(source, out, **PARAMETERS)
    assert "epoch 3 of 3" in said.getvalue()
    return out


PARAMETERS = {"epochs": 3, "learning_rate": 0.1, "workspace_name": "w"}


class Step:
    """`python3 -m train` in a process of its own, forked where TensorFlow is loaded already."""

    def __init__(self, source: Path, out: Path, workspace: Path) -> None:
        workspace.mkdir(exist_ok=True)
        document = json.dumps(executor_input(source, out, **PARAMETERS))
        loaded = multiprocessing.get_context("forkserver")
        loaded.set_forkserver_preload(["train.stage"])
        output, theirs = loaded.Pipe(duplex=False)
        self.process = loaded.Process(target=_step, args=(document, str(workspace), theirs))
        self.process.start()
        theirs.close()
        self.output = os.fdopen(os.dup(output.fileno()))

    def until(self, text: str) -> list[str]:
        """Return the lines that it prints up to one with `text`, or all."""
        lines = []
        for line in self.output:
            lines.append(line)
            if text in line:
                break
        return lines

    def end(self) -> int:
        """Wait for its end and return the exit code, negative where a signal ended it."""
        self.process.join()
        self.output.close()
        return self.process.exitcode or 0


def _step(document: str, workspace: str, output: Connection) -> None:
    os.dup2(output.fileno(), 1)
    output.close()
    os.environ["PLATELINE_WORKSPACE"] = workspace
    sys.argv = ["train", "--executor-input", document]
    runpy.run_module("train", run_name="__main__")


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes_as_one_that_was_not(
    source: Path, whole: Path, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    for end in ("view 2 of 4", "epoch 2 of 3"):
        killed = Step(source, tmp_path, workspace)
        killed.until(end)
        killed.process.kill()
        assert killed.end() == -signal.SIGKILL
    resumed = Step(source, tmp_path, workspace)
    said = resumed.until("never")
    assert resumed.end() == 0
    assert not any("features of view" in line for line in said), "it computed them once more"
    for name in ("model.onnx", "model.int8.onnx", "curves.csv"):
        one, two = (out / "model" / name for out in (whole, tmp_path))
        assert one.read_bytes() == two.read_bytes(), name
    assert not list(workspace.rglob(".train-*.progress"))


@pytest.mark.usefixtures("thin_lite0")
def test_the_head_can_be_fitted_by_sgd(source: Path, tmp_path: Path) -> None:
    held_out, found = np.load(source / "tiles.npy")[:8], []
    for optimizer in ("newton", "sgd"):
        made = trained(source, tmp_path / optimizer, optimizer=optimizer, learning_rate=0.05)
        found.append(np.asarray(made(held_out))[:, 0])
    newton, sgd = found
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
