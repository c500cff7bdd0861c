"""One fold: a model that never saw the wells it will be judged on."""

from __future__ import annotations

import csv
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import tensorflow
from common import digest
from common.errors import StageError
from common.stage_io import StageIO
from common.tiles import Tiles, read_tiles

from train import fit, network

FORMAT = 1
# How far the exported file may be from the network it was exported from, in probability.
_PARITY = 1e-4


def make_deterministic() -> None:
    """Make TensorFlow give the same weights for the same seed; before it computes anything.

    With more than one thread between operations its sums come in another order each time.
    """
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    tensorflow.config.experimental.enable_op_determinism()


def train(task: StageIO) -> None:
    """Train the fold that the parameter `fold` names and write its `model` folder."""
    started = time.monotonic()
    keras.backend.clear_session()  # layers' numbers are in the exported file
    tiles = read_tiles(task.input("tiles").path)
    fold, seed = task.parameter("fold", str), task.parameter("seed", int, 0)
    if fold not in tiles.folds:
        raise StageError(f"there is no fold {fold!r}; the plate has {', '.join(tiles.folds)}")
    chosen = [
        number
        for number, tile in enumerate(tiles.index)
        if tile.label is not None and tile.fold != fold
    ]
    if not chosen:
        raise StageError(f"no labelled well is outside of the fold {fold}; see the layout")
    wells = {tiles.index[n].well: int(tiles.index[n].label or 0) for n in chosen}
    held_back = fit.validation_wells(wells, seed)
    array = np.ascontiguousarray(tiles.array[chosen])
    labels = np.array([tiles.index[n].label for n in chosen])
    validation = np.array([tiles.index[n].well in held_back for n in chosen])
    scaling = network.fit_normalisation(array)
    body = network.backbone(task.parameter("model_type", str, "EfficientNet_Lite0"), scaling)
    _say(f"{len(chosen)} tiles of {len(wells)} wells, {len(held_back)} for validation")
    batch = task.parameter("batch_size", int, 32)
    features = body.predict(array, batch_size=batch, verbose=0)
    _say(f"features after {time.monotonic() - started:.1f} s")
    curves: list[fit.Epoch] = []

    def report(epoch: fit.Epoch) -> None:
        curves.append(epoch)
        _say(f"epoch {epoch.epoch}: loss {epoch.loss:.4f}, validation {epoch.validation_loss:.4f}")

    optimizer = task.parameter("optimizer", str, "newton")
    if optimizer == "sgd":
        head = fit.fit_sgd(
            features,
            labels,
            validation,
            epochs=task.parameter("epochs", int, 30),
            batch_size=batch,
            learning_rate=task.parameter("learning_rate", float, 0.01),
            seed=seed,
            report=report,
        )
    elif optimizer == "newton":
        head = fit.fit_newton(features[~validation], labels[~validation])
        report(
            fit.Epoch(
                0,
                head.loss(features[~validation], labels[~validation]),
                head.loss(features[validation], labels[validation]),
            )
        )
        # The validation wells chose nothing here, so the model that is kept learns from them too.
        head = fit.fit_newton(features, labels)
    else:
        raise StageError(f"unknown optimizer {optimizer!r}; there are {', '.join(fit.OPTIMIZERS)}")
    model = network.with_head(body, head.kernel, head.bias)
    folder = task.output("model")
    folder.mkdir(parents=True, exist_ok=True)
    _export(model, array[:4], folder)
    with (folder / "curves.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(curves[0])))
        writer.writeheader()
        writer.writerows(asdict(epoch) for epoch in curves)
    facts = _facts(task, tiles, wells, held_back, scaling)
    names = ("model.onnx", "model.keras", "curves.csv")
    files = {name: digest.file_sha256(folder / name) for name in names}
    facts |= {"files": files, "seconds": round(time.monotonic() - started, 1)}
    (folder / "model.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    last = min(curves, key=lambda epoch: epoch.validation_loss)
    task.set_parameter("digest", digest.of_hashes({k: v for k, v in files.items() if "onnx" in k}))
    task.set_metadata("metrics", {"validation_loss": last.validation_loss, "loss": last.loss})


def _say(text: str) -> None:
    print(f"train: {text}", flush=True)


def _export(model: keras.Model, sample: np.ndarray, folder: Path) -> None:
    """Write model.keras and model.onnx, and compare the latter's answers with the network's."""
    model.save(folder / "model.keras")
    signature = [keras.InputSpec(dtype="uint8", shape=(None, 256, 256, 3), name="tiles")]
    path = folder / "model.onnx"
    model.export(path, format="onnx", input_signature=signature, verbose=False)
    _name_output(path, "probability")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    (found,) = session.run(None, {name: sample})
    apart = float(np.abs(found - np.asarray(model(sample))).max())
    if not apart <= _PARITY:
        raise StageError(f"the exported model differs from the trained one by {apart:.2g}")


def _name_output(path: Path, name: str) -> None:
    """Call the only output of an ONNX file `name`: Keras numbers it."""
    model = onnx.load(path)
    (output,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = [name if made == output.name else made for made in node.output]
    output.name = name
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _facts(
    task: StageIO,
    tiles: Tiles,
    wells: dict[str, int],
    held_back: set[str],
    scaling: network.Normalisation,
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "fold": task.parameter("fold", str),
        "model_type": task.parameter("model_type", str, "EfficientNet_Lite0"),
        "parameters": task.parameters(),
        "train_wells": sorted(set(wells) - held_back),
        "validation_wells": sorted(held_back),
        "normalisation": asdict(scaling),
        "tiles_sha256": tiles.plate["files"]["tiles.npy"],
        "versions": {
            "keras": keras.__version__,
            "tensorflow": tensorflow.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        "image": os.environ.get("PLATELINE_IMAGE", ""),
    }
