"""The function beside other ways of serving the same ONNX file, in one run.

    .venv/bin/python -m benchmarks.serving [--seconds S] [--rounds N] [--model DIR] [--only a,b]

Measured in turns, `--rounds` times: the bare onnxruntime call in a loop (in the function's image),
the same after decoding the PNG as the function does, the function, MLServer, BentoML, LitServe;
then a process a request that imports Keras and loads the model, in the train image. Prints medians
of the rounds and their ratios; asserts nothing. `--model` is a `model` folder of train (model.onnx,
model.keras) with a tile.png and tile.bmp; without it one is trained for an epoch on drawn tiles,
once a train image. Venvs and models are kept in ~/.cache/plateline/bench. "CPU each" is the
processor time of a request at 8 (of a call for the bare loops): the one column that a busy machine
hardly changes. `--only` takes some of the groups bare, function, peers and keras, or names of
peers: they are measured the same way, and ratios are shown where both sides were measured. What
is being measured is told on the way.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks import figures, serving_peers
from benchmarks.serving_load import Load, load, probe, request
from builder import oci
from builder.build.make import build
from builder.build.workspace import Workspace
from builder.sandbox.engines import choose
from builder.sandbox.process import Mount, Process, Sandbox, run
from builder.store import Store, default_root
from tests.function.running import ROOT, Function, serving

# Threads of one process, as the function has them; a call each in turn is the latency. With a
# picture, what it decodes to is given to the call: the rest of a request is what serving costs.
BARE = """
import json, resource, statistics, sys, threading, time
import numpy as np
import onnxruntime
from function import pictures
seconds, threads, picture = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
data = open(picture, "rb").read() if picture else b""
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession("/models/A.onnx", options,
                                       providers=["CPUExecutionProvider"])
noise = np.random.default_rng(0).integers(0, 256, (1, 256, 256, 3), np.uint8)
session.run(None, {"tiles": noise})
times = []
def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
def loop():
    while time.perf_counter() < end:
        began = time.perf_counter()
        tile = pictures.decode(data, 1 << 24, {}).tiles if data else noise
        session.run(None, {"tiles": tile})
        times.append(time.perf_counter() - began)
before, began = cpu(), time.perf_counter()
end = began + seconds
workers = [threading.Thread(target=loop) for _ in range(threads)]
for worker in workers: worker.start()
for worker in workers: worker.join()
took = time.perf_counter() - began
print(json.dumps({"p50": statistics.median(times), "rate": len(times) / took,
                  "cpu": (cpu() - before) / len(times)}))
"""
# What the original did for each request: a fresh process, Keras, the model, one prediction.
KERAS = """
import numpy as np
import train.network  # the model's own layers
import keras
model = keras.models.load_model("/models/model.keras")
model.predict(np.zeros((1, 256, 256, 3), np.uint8), verbose=0)
"""
TILES = """
import numpy as np
from dataclasses import replace
from pathlib import Path
from PIL import Image
from common import layout
from common.tiles import Tile, write_index, write_plate
from common.tiling import tile_well
from prepare.synthetic import draw_well
folder, wells, index, tiles = Path("/work/tiles"), [], [], []
folder.mkdir()
known = layout.load("bbbc014").wells
for row in "AB":
    for column in range(1, 13):
        kind = int(column > 6)
        role, name = ("positive" if kind else "negative"), f"{row}{column:02d}"
        wells.append({"well": name, "fold": row})
        index.append(Tile(name, row, column, 0, 0, 0, "", None, "", role, row, kind, ""))
        drawn = replace(known[name], dose=1e-6 * kind)
        tiles.append(tile_well(*draw_well(drawn, (256, 256), 0))[0])
for kind in ("png", "bmp"):
    Image.fromarray(tiles[-1]).save(f"/work/tile.{kind}")
np.save(folder / "tiles.npy", np.array(tiles))
write_index(folder / "tiles.csv", index)
write_plate(folder, {"folds": ["A", "B"], "classes": ["negative", "positive"], "tile": 256,
                     "layout": {"name": "random"}, "wells": wells})
"""


TENSOR = "the function, tensor"
CROWD, INFLIGHT, PAUSE = 64, 8, 0.1  # clients, max_inflight, and seconds until one asks again
MANY = 16  # tiles in one request, one request at a time; "1/s at 8" is in tiles then
BATCH = f"the function, {MANY} tiles"
BARE_LOOP, DECODING = "bare onnxruntime loop", "bare loop, PNG decoded"


def tensor(tiles_each: int = 1) -> bytes:
    """Return a request of the Open Inference Protocol: what the bare call gets, as bytes."""
    data = random.Random(0).randbytes(tiles_each * 256 * 256 * 3)
    parameters = {"binary_data_size": len(data)}
    tiles = {"name": "tiles", "datatype": "UINT8", "shape": [tiles_each, 256, 256, 3]}
    head = json.dumps({"inputs": [tiles | {"parameters": parameters}]}).encode()
    length = {"Inference_Header_Content_Length": str(len(head))}
    return request("/v2/models/A/infer", head + data, **length)


def execute(sandbox: Sandbox, image: oci.Image, command: list[str], *mounts: Mount) -> str:
    """Return what a command in an image printed; raises RuntimeError where it fails."""
    with tempfile.TemporaryFile() as output:
        ended = run(sandbox, Process(image=image, command=tuple(command), mounts=mounts), output)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if ended.code:
        raise RuntimeError(f"{command[:3]} ended with {ended}: {text[-1000:]}")
    return text


def trained(sandbox: Sandbox, images: dict[str, oci.Image], folder: Path) -> Path:
    """Return a model of the default kind, trained for an epoch, once a train image."""
    kept = folder / f"model-{images['train'].digest.removeprefix('sha256:')[:16]}"
    if kept.is_dir():
        return kept
    print("training the default model for an epoch", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        work = Path(scratch)
        work.chmod(0o777)
        mount = Mount(work, "/work", writable=True)
        execute(sandbox, images["prepare"], ["python3", "-c", TILES], mount)
        artifact = {"tiles": {"artifacts": [{"uri": "/work/tiles"}]}}
        made = {n: {"artifacts": [{"uri": f"/work/{n}"}]} for n in ("model", "metrics", "curves")}
        given = json.dumps({
            "inputs": {"parameterValues": {"fold": "A", "epochs": 1}, "artifacts": artifact},
            "outputs": {"outputFile": "/work/output.json", "artifacts": made},
        })  # fmt: skip
        command = ["python3", "-m", "train", "--executor-input", given]
        execute(sandbox, images["train"], command, mount)
        for name in ("tile.png", "tile.bmp"):
            (work / name).rename(work / "model" / name)
        (work / "model").rename(kept)
    return kept


def servable(model: Path, folder: Path) -> Path:
    """Lay the one model and its manifest into `folder`."""
    shutil.copy(model / "model.onnx", folder / "A.onnx")
    for name in ("model.keras", "tile.png"):
        shutil.copy(model / name, folder)
    digest = hashlib.sha256((folder / "A.onnx").read_bytes()).hexdigest()
    entry = {"name": "A", "file": "A.onnx", "sha256": digest}
    document = {"format": 1, "classes": ["negative", "positive"], "threshold": 0.5}
    (folder / "manifest.json").write_text(json.dumps(document | {"models": [entry]}))
    folder.chmod(0o755)
    return folder


@contextmanager
def health_watched(function: Function):
    """Ask for health every 20 ms while the block runs; yields a list that then holds a Load."""
    stop, found = threading.Event(), []
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(probe, function.port, request("/_/health"), stop)
        try:
            yield found
        finally:
            stop.set()
            found.append(asking.result())


class Table:
    """Measurements by row and column; prints their medians."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def add(self, row: str, **columns: float) -> None:
        for column, value in columns.items():
            self.values[row][column].append(value)

    def median(self, row: str, column: str) -> float:
        return statistics.median(self.values[row][column])

    def ratio(self, row: str, other: str, column: str) -> float:
        """Return the median of `row` over `other`, round by round: a machine's speed drifts."""
        pairs = zip(self.values[row][column], self.values[other][column], strict=False)
        return statistics.median(one / two for one, two in pairs)

    def print(self) -> None:
        print(f"{'':28}{'p50 at 1':>12}{'p50 at 8':>12}{'1/s at 1':>10}{'1/s at 8':>10}"
              f"{'CPU each':>12}")  # fmt: skip
        for row, columns in self.values.items():
            cells = ""
            for name, width, scale, unit in (
                ("p50_1", 12, 1000, " ms"), ("p50_8", 12, 1000, " ms"),
                ("rate_1", 10, 1, ""), ("rate_8", 10, 1, ""), ("cpu", 12, 1000, " ms"),
            ):  # fmt: skip
                value = f"{self.median(row, name) * scale:.1f}{unit}" if name in columns else ""
                cells += f"{value:>{width}}"
            print(f"{row:28}{cells}")


def measure(
    table: Table, row: str, port: int, message: bytes, seconds: float, cpu: Callable[[], float]
) -> None:
    """Add one connection's and eight's load after some to warm up, and what a request costs."""
    load(port, message, 8, min(1.0, seconds))
    one = load(port, message, 1, seconds)
    before = cpu()
    eight = load(port, message, 8, seconds)
    table.add(
        row, p50_1=one.p50, p50_8=eight.p50, rate_1=one.rate, rate_8=eight.rate,
        cpu=(cpu() - before) / len(eight.times),
    )  # fmt: skip


GROUPS = ("bare", "function", "peers", "keras")
OURS, KERAS_EACH = "the function", "a Keras process a request"


def chosen(text: str) -> set[str]:
    """Return the groups and peers of `--only`; raises SystemExit for a name there is not."""
    names = [peer.name for peer in serving_peers.PEERS]
    asked = {name for name in text.split(",") if name} or set(GROUPS)
    if unknown := asked - {*GROUPS, *names}:
        known = ", ".join((*GROUPS, *names))
        raise SystemExit(f"--only {','.join(sorted(unknown))}: there are {known}")
    return asked | set(names) if "peers" in asked else asked


class Bench:
    """What is measured, in turns, of the model in the folder `models`."""

    def __init__(
        self, sandbox: Sandbox, images: dict[str, oci.Image], models: Path, seconds: float
    ) -> None:
        self.sandbox, self.images, self.models, self.seconds = sandbox, images, models, seconds
        self.mount = Mount(models, "/models")
        self.table = Table()
        self.health: list[float] = []
        self.starts: list[float] = []
        self.crowded: list[tuple[Load, float]] = []

    def bare(self) -> None:
        """Measure the call in a loop, with and without decoding."""
        for row, tile in ((BARE_LOOP, ""), (DECODING, "/models/tile.png")):
            for threads, column in ((1, "1"), (serving_peers.CORES, "8")):
                command = ["python3", "-c", BARE, str(self.seconds), str(threads), tile]
                text = execute(self.sandbox, self.images["function"], command, self.mount)
                found = json.loads(text.splitlines()[-1])
                self.table.add(row, **{f"rate_{column}": found["rate"]})
                if column == "1":
                    self.table.add(row, p50_1=found["p50"], cpu=found["cpu"])

    def function(self, picture: bytes, bitmap: bytes) -> None:
        """Measure the function: its start, every kind of request, and health meanwhile."""
        table, seconds = self.table, self.seconds
        message = request("/", picture, Content_Type="image/png")
        began = time.perf_counter()
        with serving(self.sandbox, self.images["function"], self.models) as function:
            self.starts.append(time.perf_counter() - began)
            used = partial(_cpu_of, function)
            measure(table, OURS, function.port, message, seconds, used)
            plain = request("/", bitmap, Content_Type="image/bmp")
            measure(table, f"{OURS}, BMP", function.port, plain, seconds, used)
            measure(table, TENSOR, function.port, tensor(), seconds, used)
            many = load(function.port, tensor(MANY), 1, seconds)
            table.add(BATCH, rate_1=many.rate, rate_8=many.rate * MANY)
            with health_watched(function) as watched:
                load(function.port, message, 8, seconds)
            self.health.append(watched[0].percentile(0.99))

    def overload(self, picture: bytes) -> None:
        """Measure it with more clients than it may answer at a time, and with just so many."""
        message = request("/", picture, Content_Type="image/png")
        limit = {"max_inflight": str(INFLIGHT)}
        with serving(self.sandbox, self.images["function"], self.models, **limit) as function:
            load(function.port, message, INFLIGHT, min(1.0, self.seconds))
            full = load(function.port, message, INFLIGHT, self.seconds)
            self.crowded.append(
                (load(function.port, message, CROWD, self.seconds, PAUSE), full.p50)
            )

    def peer(self, peer: serving_peers.Peer, programs: Path, work: Path, picture: bytes) -> None:
        """Measure another server; raises RuntimeError or OSError where it does not serve."""
        running = serving_peers.serving(peer, programs, work, self.models / "A.onnx")
        with running as (port, process):
            used = partial(serving_peers.cpu_seconds, process)
            measure(self.table, peer.name, port, peer.message(picture), self.seconds, used)

    def keras(self) -> None:
        """Measure a process a request."""
        began = time.perf_counter()
        command = ["python3", "-c", KERAS]
        execute(self.sandbox, self.images["train"], command, self.mount)
        self.table.add(KERAS_EACH, p50_1=time.perf_counter() - began)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    only = chosen(given.only)
    store = Store.open()
    built = build(Workspace.load(ROOT), store, ["prepare", "train", "function"])
    images = {name: result.image for name, result in built.items()}
    sandbox = choose("bubblewrap", store)
    folder = default_root().parent / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    model = given.model or trained(sandbox, images, folder)
    peers, skipped = {}, {}
    for peer in serving_peers.PEERS:
        if peer.name in only:
            told(f"installing {peer.name}")
            try:
                peers[peer] = serving_peers.install(peer, folder)
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                skipped[peer.name] = str(error)
    picture, bitmap = ((model / f"tile.{kind}").read_bytes() for kind in ("png", "bmp"))
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(sandbox, images, servable(model, Path(scratch)), given.seconds)
        for number in range(given.rounds):
            about = f"round {number + 1} of {given.rounds}:"
            if "bare" in only:
                told(f"{about} the bare call")
                bench.bare()
            if "function" in only:
                told(f"{about} {OURS}")
                bench.function(picture, bitmap)
                bench.overload(picture)
            for peer, programs in list(peers.items()):
                told(f"{about} {peer.name}")
                try:
                    bench.peer(peer, programs, Path(scratch) / peer.name, picture)
                except (RuntimeError, OSError) as error:
                    skipped[peer.name] = str(error)
                    del peers[peer]
        for number in range(3 if "keras" in only else 0):
            told(f"{KERAS_EACH}: {number + 1} of 3")
            bench.keras()
    bench.table.print()
    _print_bars(bench, images["function"])
    for name, reason in skipped.items():
        print(f"skipped: {name}: {reason}")


def told(line: str) -> None:
    """Say what begins now, and when."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _cpu_of(function: Function) -> float:
    return function.metrics()["process_cpu_seconds_total"]


def _print_bars(bench: Bench, image: oci.Image) -> None:
    """Print and record what was measured, and the ratios of which both sides were."""
    table = bench.table
    lines: list[tuple[str, float, str, float]] = []

    def ratio(label: str, row: str, other: str, column: str, sign: str, bar: float) -> None:
        if row in table.values and other in table.values:
            lines.append((label, table.ratio(row, other, column), sign, bar))

    # The same decoding counts on both sides: a tensor has none.
    for row, bare, name in ((OURS, DECODING, "PNG"), (TENSOR, BARE_LOOP, "tensor")):
        ratio(f"{name}: p50 at 1 over the bare call's", row, bare, "p50_1", "<=", 1.15)
        ratio(f"{name}: rate at 8 over bare loops'", row, bare, "rate_8", ">=", 0.9)
    ratio(f"{KERAS_EACH} over p50 at 1", KERAS_EACH, OURS, "p50_1", ">=", 100)
    if bench.starts:
        health = statistics.median(bench.health) * 1000
        lines.append(("health p99 while saturated, ms", health, "<=", 20))
        lines.append(("start to ready, s", statistics.median(bench.starts), "<=", 0.3))
    if bench.crowded:
        crowded = statistics.median(found.percentile(0.99) / p50 for found, p50 in bench.crowded)
        what = f"p99 of what is answered to {CROWD} clients, over the p50 of {INFLIGHT} (its limit)"
        lines.append((what, crowded, "<=", 2))
        early = statistics.median(statistics.median(found.refused) for found, _ in bench.crowded)
        lines.append(("a refusal (429) meanwhile, median, ms", early * 1000, "<=", 20))
    lines.append(("image without models, MB", image.size / 1e6, "<=", 80))
    many = f"{MANY} tiles in one request: tiles a second over bare loops'"
    ratio(many, BATCH, BARE_LOOP, "rate_8", ">=", 0.9)
    for peer in serving_peers.PEERS:
        ratio(f"{peer.name}: our rate at 8 over its", OURS, peer.name, "rate_8", ">=", 1.3)
        ratio(f"{peer.name}: its p50 at 1 over ours", peer.name, OURS, "p50_1", ">=", 1)
    print()
    for row in (OURS, TENSOR, BARE_LOOP, DECODING, *(peer.name for peer in serving_peers.PEERS)):
        if row in table.values:
            shown = (
                f"{table.median(row, 'p50_1') * 1000:.1f} ms, {table.median(row, 'rate_8'):.0f}/s"
            )
            figures.record("serving", f"p50 of one client, answers a second to eight: {row}", shown)
    for label, value, sign, bar in lines:
        missed = value > bar if sign == "<=" else value < bar
        figures.record("serving", label, f"{value:.2f}", target=f"{sign} {bar:g}", missed=missed)


if __name__ == "__main__":
    main()
