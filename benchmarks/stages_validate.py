"""validate on a prepared plate and its trained models: time and peak memory, in a process each.

    cd stages && PYTHONPATH=.:validate python ../benchmarks/stages_validate.py TILES MODEL MODEL

TILES is the folder that prepare wrote, MODEL those of train. The bars, on BBBC013 with the default
network on two cores: at most 30 s and 1 GB. Then judging alone is timed beside the usual way, in
batches of 16 on all threads. Processor time can be compared on a machine with other work, too.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnxruntime
from common.stage_io import StageIO
from common.tiles import read_tiles
from validate.models import probabilities
from validate.stage import validate

_TILES = 96


def stage(tiles: Path, models: list[Path]) -> tuple[float, float, float]:
    """Run the stage; return seconds, seconds of processor, and the process's peak in MB."""
    with tempfile.TemporaryDirectory() as out:
        names = ("servable", "results", "metrics", "classification", "report")
        outputs = {n: {"artifacts": [{"uri": f"{out}/{n}"}]} for n in names}
        inputs = {
            "tiles": {"artifacts": [{"uri": str(tiles)}]},
            "models": {"artifacts": [{"uri": str(model)} for model in models]},
        }
        given = {"parameterValues": {"f1_threshold": 0.8}, "artifacts": inputs}
        started = time.perf_counter()
        validate(StageIO({"inputs": given, "outputs": {"artifacts": outputs}}))
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return seconds, time.process_time(), peak


def judging(tiles: Path, model: Path) -> None:
    """Print milliseconds a tile, of the stage's own way and of batches of 16 on all threads."""
    read, path = read_tiles(tiles, check=False), model / "model.onnx"
    rows = range(min(_TILES, len(read.index)))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def batches() -> np.ndarray:
        parts = [read.array[at : at + 16] for at in range(0, len(rows), 16)]
        answers = [session.run(["probability"], {"tiles": part})[0] for part in parts]
        return np.concatenate(answers).reshape(-1)[: len(rows)]

    answers = []
    for name, way in (
        ("one tile a thread (the stage)", lambda: probabilities(path, read, rows)),
        ("batches of 16 on all threads", batches),
    ):
        wall, busy = time.perf_counter(), time.process_time()
        answers.append(way())
        wall, busy = time.perf_counter() - wall, time.process_time() - busy
        print(
            f"judging, {name}: {1e3 * wall / len(rows):.1f} ms a tile, "
            f"{1e3 * busy / len(rows):.1f} ms of processor"
        )
    print(f"largest difference of their answers: {np.abs(answers[0] - answers[1]).max():.1e}")


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tiles", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    given = parser.parse_args()
    for number in range(3):
        with get_context("spawn").Pool(1) as fresh:
            seconds, busy, peak = fresh.apply(stage, (given.tiles, given.models))
        print(
            f"validate, run {number + 1}: {seconds:.1f} s ({busy:.1f} s of processor), "
            f"peak {peak:.0f} MB"
        )
    with get_context("spawn").Pool(1) as fresh:
        fresh.apply(judging, (given.tiles, given.models[0]))


if __name__ == "__main__":
    main()
