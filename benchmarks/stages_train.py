"""The train stage beside its bars, each in the train image, in a process of its own.

    .venv/bin/python benchmarks/stages_train.py [BAR ...] [--plate DIR] [--seeds N]

Bars: bbbc013, seeds, synthetic, shuffled, resnet50, int8. Prints tables, asserts nothing. The plate
is BBBC013v1 (default ../shared/data/bbbc013v1 beside the checkout, or PLATELINE_BBBC013). The file
runs itself inside of the images: the functions `inside_…` need their libraries.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BARS = ("bbbc013", "seeds", "synthetic", "shuffled", "resnet50", "int8")
_SELF = "/benchmark/stages_train.py"


# --- inside of the images -----------------------------------------------------------------------


def inside_prepare(plate: str, layout: str, out: str) -> dict[str, Any]:
    """Write the tiles of `plate` (or of the simulated one) to `out`."""
    from common import layout as layouts
    from prepare.stage import prepare_plate
    from prepare.synthetic import write_plate

    folder = Path(plate)
    if plate == "synthetic":
        folder = Path(tempfile.mkdtemp())
        write_plate(folder)
    prepare_plate(folder, layouts.load(layout), Path(out), Path(out + ".html"))
    return {}


def inside_train(tiles: str, fold: str, out: str, options: str) -> dict[str, Any]:
    """Train one fold as the pipeline does and judge its held-out wells."""
    from common.stage_io import StageIO
    from common.tiles import read_tiles
    from train.stage import make_deterministic, train

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
    train(task)
    task.finish()
    found = {
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time(),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    read = read_tiles(Path(tiles), check=False)
    for name in ("model.onnx", "model.int8.onnx"):
        found[name] = _judge(read, fold, Path(out) / "model" / name)
    return found


def _judge(tiles: Any, fold: str, path: Path) -> dict[str, Any]:
    import numpy as np
    import onnxruntime
    from common.pooling import pooled

    places = [n for n, t in enumerate(tiles.index) if t.fold == fold and t.label is not None]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    score = np.concatenate(
        [session.run(None, {"tiles": tiles.array[places[at : at + 16]]})[0][:, 0]
         for at in range(0, len(places), 16)]
    )  # fmt: skip
    truth = np.array([_truth(tiles, tiles.index[n]) for n in places])
    wells = np.array([tiles.index[n].well for n in places])
    names = sorted(set(wells))
    found = np.array([float(pooled(score[wells == name])) for name in names])
    labels = np.array([truth[wells == name][0] for name in names])
    up, down = found[labels == 1], found[labels == 0]
    return {
        "tiles": float(((score > 0.5) == truth).mean()),
        "right": int(((found > 0.5) == labels).sum()),
        "wells": len(names),
        "z": float(1 - 3 * (up.std(ddof=1) + down.std(ddof=1)) / abs(up.mean() - down.mean())),
    }


def _truth(tiles: Any, tile: Any) -> int:
    return int(tiles.plate.get("truth", {}).get(tile.well, tile.label))


def inside_shuffle(source: str, out: str, seed: str) -> dict[str, Any]:
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


def inside_resnet50(kind: str) -> dict[str, Any]:
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
        model.compile(
            keras.optimizers.SGD(0.001, momentum=0.9), "binary_crossentropy", jit_compile=False
        )
        note = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda _epoch, _logs: times.append(time.perf_counter())
        )
        model.fit(
            tiles[~validation], labels[~validation], batch_size=8, epochs=2, verbose=0,
            validation_data=(tiles[validation], labels[validation]), callbacks=[note],
            validation_batch_size=8,
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


def inside_int8(folder: str) -> dict[str, Any]:
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


# --- on the host --------------------------------------------------------------------------------


def _runner(scratch: Path, plate: Path) -> Callable[..., dict[str, Any]]:
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from builder import sandbox
    from builder.build import build
    from builder.sandbox.process import Mount, Process, run
    from builder.store import Store
    from builder.workspace import Workspace

    store = Store.open()
    built = build(Workspace.load(Path(__file__).resolve().parents[1]), store, ["prepare", "train"])
    mounts = [Mount(Path(__file__).resolve(), _SELF), Mount(scratch, "/out", True)]
    if plate.is_dir():
        mounts.append(Mount(plate, "/plate"))

    def inside(image: str, what: str, *arguments: str) -> dict[str, Any]:
        with (scratch / "log").open("wb") as log:
            ended = run(
                sandbox.choose("bubblewrap", store),
                Process(
                    image=built[image].image,
                    command=("python3", _SELF, "inside", what, *arguments),
                    env={"PYTHONPATH": "/app", "TF_CPP_MIN_LOG_LEVEL": "3"},
                    mounts=tuple(mounts),
                ),
                log,
            )
        text = (scratch / "log").read_text(errors="replace")
        if ended.code:
            sys.exit(f"{text}\n{what}: {ended}")
        return dict(json.loads(text.splitlines()[-1]))

    return inside


def main() -> None:
    """Measure the bars that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bars", nargs="*", choices=[*BARS, []], default=list(BARS))
    root = Path(__file__).resolve().parents[2] / "shared/data/bbbc013v1"
    parser.add_argument(
        "--plate", type=Path, default=Path(os.environ.get("PLATELINE_BBBC013", root))
    )
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        _measure(given, Path(folder))


def _measure(given: argparse.Namespace, scratch: Path) -> None:
    inside = _runner(scratch, given.plate)
    bars = set(given.bars)

    def fold(tiles: str, name: str, **options: Any) -> dict[str, Any]:
        out = f"/out/{tiles}-{name}-{len(list(scratch.iterdir()))}"
        return inside("train", "train", f"/out/{tiles}", name, out, json.dumps(options))

    def row(name: str, found: dict[str, Any]) -> None:
        one, two = found["model.onnx"], found["model.int8.onnx"]
        print(
            f"{name:28} {found['seconds']:6.1f} s  CPU {found['cpu']:.0f} s  "
            f"peak {found['peak']:.2f} GB  wells {one['right']} of {one['wells']}  "
            f"tiles {one['tiles']:.3f}  Z' {one['z']:.2f}   "
            f"int8: {two['right']}  {two['tiles']:.3f}  {two['z']:.2f}",
            flush=True,
        )

    if bars & {"bbbc013", "seeds"}:
        if not given.plate.is_dir():
            sys.exit(f"no BBBC013 plate at {given.plate}; set PLATELINE_BBBC013 or --plate")
        inside("prepare", "prepare", "/plate", "bbbc013", "/out/bbbc013")
        for seed in range(given.seeds if "seeds" in bars else 1):
            both = {name: fold("bbbc013", name, seed=seed) for name in ("A-D", "E-H")}
            for name, found in both.items():
                row(f"BBBC013 {name}, seed {seed}", found)
            print(f"{'':28} {sum(found['seconds'] for found in both.values()):6.1f} s both folds")
    if bars & {"synthetic", "shuffled"}:
        inside("prepare", "prepare", "synthetic", "bbbc014", "/out/synthetic")
    if "synthetic" in bars:
        for name in ("A-D", "E-H"):
            row(f"synthetic {name}", fold("synthetic", name))
    if "shuffled" in bars:
        inside("train", "shuffle", "/out/synthetic", "/out/shuffled", "0")
        for name in ("A-D", "E-H"):
            row(f"shuffled labels {name}", fold("shuffled", name, epochs=2))
    if "resnet50" in bars:
        rates: dict[str, list[float]] = {"stage": [], "bare": []}
        for _ in range(2):
            for kind, found in rates.items():
                found.append(inside("train", "resnet50", kind)["images"])
        one, two = (max(found) for found in rates.values())
        print(f"ResNet50, batch 8: stage {one:.2f}, bare fit {two:.2f} images/s; {one / two:.2f}x")
    if "int8" in bars:
        found = inside("train", "int8", "/out")
        one, two = found["model.onnx"], found["model.int8.onnx"]
        print(
            f"ResNet50, one thread, a tile: fp32 {one * 1e3:.0f} ms, int8 {two * 1e3:.0f} ms; "
            f"{one / two:.2f}x"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["inside"]:
        print(json.dumps(globals()[f"inside_{sys.argv[2]}"](*sys.argv[3:])))
    else:
        main()
