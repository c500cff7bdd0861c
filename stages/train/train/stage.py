"""One fold: a model that never saw the wells it will be judged on."""

from __future__ import annotations

import csv
import functools
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import keras
import numpy as np
import onnxruntime
import tensorflow
from common import digest, many_plates
from common.errors import StageError
from common.stage_io import StageIO
from common.tiles import Tiles
from common.workspace import with_checkpoint
from numpy.typing import NDArray

from train import augment, batches, export, fit, maps, network
from train.progress import Progress, progress
from train.tune import tune

FORMAT = 1


def make_deterministic() -> None:
    """Make TensorFlow give the same weights for the same seed; before it computes anything.

    With more than one thread between operations its sums come in another order each time.
    """
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    tensorflow.config.experimental.enable_op_determinism()


def prepare_gpus() -> list[str]:
    """Return the names of the GPUs that TensorFlow computes on; before it computes anything.

    It takes memory of one as it needs it, since another fold may be trained on the same, and
    computes in full float32, in which the model is served. Where TensorFlow was built for CUDA and
    finds no GPU, a line says so, and the processor computes.
    """
    found = tensorflow.config.list_physical_devices("GPU")
    if tensorflow.test.is_built_with_cuda() and not found:
        print(
            "train: warning: computing on the processor, in an image for NVIDIA GPUs: TensorFlow "
            "finds no GPU",
            flush=True,
        )
    for gpu in found:
        tensorflow.config.experimental.set_memory_growth(gpu, enable=True)
    if found:
        tensorflow.config.experimental.enable_tensor_float_32_execution(False)
    return [gpu.name for gpu in found]


@dataclass(frozen=True)
class Options:
    """The parameters of the stage; see docs/train.md."""

    fold: str
    model_type: str
    weights: str
    weights_sha256: str
    optimizer: str
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    most_tiles: int

    @staticmethod
    def of(task: StageIO) -> Options:
        """Return the parameters of `task`; raises StageError where one cannot be used."""
        options = Options(
            fold=task.parameter("fold", str),
            model_type=task.parameter("model_type", str, "EfficientNet_Lite0"),
            weights=task.parameter("weights", str, "imagenet"),
            weights_sha256=task.parameter("weights_sha256", str, ""),
            optimizer=task.parameter("optimizer", str, "newton"),
            epochs=task.parameter("epochs", int, 30),
            batch_size=task.parameter("batch_size", int, 32),
            learning_rate=task.parameter("learning_rate", float, 0.01),
            seed=task.parameter("seed", int, 0),
            most_tiles=task.parameter("most_tiles", int, 0),
        )
        if options.optimizer not in fit.OPTIMIZERS:
            raise StageError(
                f"unknown optimizer {options.optimizer!r}; there are {', '.join(fit.OPTIMIZERS)}"
            )
        for name, least in (
            ("epochs", 1),
            ("batch_size", 1),
            ("learning_rate", 0),
            ("seed", 0),
            ("most_tiles", 0),
        ):
            if not getattr(options, name) >= least:
                raise StageError(f"{name} is {getattr(options, name)}; {least} is the least")
        return options


@dataclass(frozen=True)
class Wells:
    """The labelled wells outside of the fold: their tiles [n, 256, 256, 3], labels [n], parts."""

    tiles: NDArray[np.uint8]
    labels: NDArray[np.int64]
    validation: NDArray[np.bool_]
    train_wells: tuple[str, ...]
    validation_wells: tuple[str, ...]

    @staticmethod
    def of(tiles: Tiles, fold: str, seed: int, most: int = 0) -> Wells:
        """Choose them, `most` tiles evenly spread over all unless it is 0.

        Raises StageError where there is no such fold, or a class is missing.
        """
        if fold not in tiles.folds:
            raise StageError(f"there is no fold {fold!r}; the plate has {', '.join(tiles.folds)}")
        chosen = [
            number
            for number, tile in enumerate(tiles.index)
            if tile.label is not None and tile.fold != fold
        ]
        if not chosen:
            raise StageError(f"no labelled well is outside of the fold {fold}; see the layout")
        if 0 < most < len(chosen):
            chosen = [chosen[(2 * n + 1) * len(chosen) // (2 * most)] for n in range(most)]
        wells = {tiles.index[n].well: int(tiles.index[n].label or 0) for n in chosen}
        held_back = fit.validation_wells(wells, seed)
        return Wells(
            tiles=np.ascontiguousarray(tiles.array[chosen]),
            labels=np.array([tiles.index[n].label for n in chosen]),
            validation=np.array([tiles.index[n].well in held_back for n in chosen]),
            train_wells=tuple(sorted(set(wells) - held_back)),
            validation_wells=tuple(sorted(held_back)),
        )


def train(task: StageIO) -> None:
    """Train the fold that the parameter `fold` names and write its `model` folder."""
    with_checkpoint(
        task,
        "train",
        variant=task.parameter("fold", str),
        restore=task.parameter("checkpoint", bool, default=False),
        compute=lambda: _train(task),
    )


def _train(task: StageIO) -> None:
    started = time.monotonic()
    keras.backend.clear_session()  # layers' numbers are in the exported file
    options = Options.of(task)
    keras.utils.set_random_seed(options.seed)
    tiles = many_plates.read(task.input("tiles").path)
    task.check_handed("tiles_digest", tiles.digest)
    wells = Wells.of(tiles, options.fold, options.seed, options.most_tiles)
    scaling = network.fit_normalisation(wells.tiles)
    source = network.check_weights(options.weights, options.weights_sha256)
    body = network.build(options.model_type, scaling, source)
    _say(
        started,
        f"fold {options.fold}: {len(wells.tiles)} tiles of {len(wells.train_wells)} wells, and of "
        f"{len(wells.validation_wells)} for validation; {options.model_type}",
    )
    curves: list[fit.Epoch] = []

    def report(epoch: fit.Epoch) -> None:
        curves.append(epoch)
        _say(
            started,
            f"epoch {epoch.epoch} of {options.epochs}: loss {epoch.loss:.4f}, "
            f"validation {epoch.validation_loss:.4f}",
        )

    facts = {
        "format": FORMAT,
        "fold": options.fold,
        "model_type": options.model_type,
        "parameters": task.parameters(),
        "options": asdict(options),
        "train_wells": wells.train_wells,
        "validation_wells": wells.validation_wells,
        "normalisation": asdict(scaling),
        "tiles_sha256": tiles.sha256,
        "versions": {
            "keras": keras.__version__,
            "tensorflow": tensorflow.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        "image": os.environ.get("PLATELINE_IMAGE", ""),
    }
    with progress(task, options.fold, facts) as done:
        head, tuned = _fit(options, wells, body, done, report, lambda text: _say(started, text))
    model = network.with_head(body.model, head.kernel, head.bias)
    folder = task.output("model")
    folder.mkdir(parents=True, exist_ok=True)
    export.export(model, _calibration(wells.tiles), folder)
    _say(started, f"wrote {', '.join(export.NAMES)}")
    with (folder / "curves.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(curves[0])))
        writer.writeheader()
        writer.writerows(asdict(epoch) for epoch in curves)
    files = {name: digest.file_sha256(folder / name) for name in (*export.NAMES, "curves.csv")}
    facts |= {"tuned": tuned, "files": files, "seconds": round(time.monotonic() - started, 1)}
    (folder / "model.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    best = min(curves, key=lambda epoch: epoch.validation_loss)
    task.set_parameter("digest", digest.of_hashes({k: v for k, v in files.items() if "onnx" in k}))
    task.set_metadata("metrics", {"validation_loss": best.validation_loss, "loss": best.loss})


def _fit(
    options: Options,
    wells: Wells,
    body: network.Body,
    done: Progress,
    report: Callable[[fit.Epoch], None],
    say: Callable[[str], None],
) -> tuple[fit.Head, bool]:
    """Fit the head, then fine-tune; return the head for the body as it is then, and whether it is
    another one.
    """
    labels, validation = wells.labels, wells.validation
    for part, name in ((~validation, "training"), (validation, "validation")):
        fit.check_classes(labels[part], name)
    views: list[batches.Arrays] = []
    count = 1 + min(options.epochs, augment.VIEWS)
    computing = functools.cache(maps.computing)  # a run that goes on may have all of them
    for number in range(count):
        if (made := done.load(f"view-{number}")) is None:
            made = [augment.view(wells.tiles, number, options.seed)]
            if body.frozen is not None:
                done.save(f"view-{number}", computing(body.frozen)(made[0]))
                made = done.load(f"view-{number}") or made
                say(f"features of view {number + 1} of {count}")
        views.append(made)

    def features() -> list[NDArray[np.float32]]:
        return [batches.run(body.tunable, view)[0] for view in views]

    def newton(found: list[NDArray[np.float32]], part: NDArray[np.bool_]) -> fit.Head:
        stacked = np.concatenate([view[part] for view in found])
        return fit.fit_newton(stacked, np.tile(labels[part], len(found)))

    start = None
    if body.frozen is not None:
        found = features()
        head = newton(found, ~validation)
        stacked = np.concatenate([view[~validation] for view in found])
        start = (fit.Standard.of(stacked), head)
        report(
            fit.Epoch(
                0,
                head.loss(stacked, np.tile(labels[~validation], len(found))),
                head.loss(found[0][validation], labels[validation]),
            )
        )
    tuned = tune(
        body,
        views,
        labels,
        validation,
        start,
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
        progress=done,
        report=report,
    )
    say("fine-tuning lowered the validation loss" if tuned else "fine-tuning changed nothing")
    if tuned or body.frozen is None:
        found = features()
    if options.optimizer == "newton":
        # The validation wells have said when to stop; what is served learns from them too.
        return newton(found, np.ones(len(labels), dtype=bool)), tuned
    head = fit.fit_sgd(
        found,
        labels,
        validation,
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
        report=report,
    )
    return head, tuned


def _calibration(tiles: NDArray[np.uint8], most: int = 64) -> NDArray[np.uint8]:
    return tiles[:: -(-len(tiles) // most)]


def _say(started: float, text: str) -> None:
    print(f"train: {time.monotonic() - started:6.1f} s  {text}", flush=True)
