"""What `benchmarks/stages.py` measures in the validate image. Each function is its own process."""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any


def judge(tiles: str, fold: str, model: str) -> dict[str, Any]:
    """Return what validate measures of both ONNX files in `model` on the wells of `fold`."""
    from common.inference import probabilities
    from common.tiles import read_tiles
    from validate.judge import held_out, judged, measure

    read = read_tiles(Path(tiles), check=False)
    if truth := read.plate.get("truth"):  # the labels were shuffled
        index = tuple(replace(tile, label=truth[tile.well]) for tile in read.index)
        read = replace(read, index=index)
    wells = held_out(read, fold)
    rows = [row for each in wells.values() for row in each]
    found = {}
    for variant, file in (("fp32", "model.onnx"), ("int8", "model.int8.onnx")):
        answers = probabilities(Path(model, file), read, rows)
        found[variant] = measure(judged(read, fold, wells, answers), 0)
    return found


def stage(tiles: str, *models: str) -> dict[str, Any]:
    """Run the stage as the pipeline does."""
    from common.stage_io import StageIO
    from validate.stage import validate

    with tempfile.TemporaryDirectory() as out:
        names = ("servable", "results", "metrics", "classification", "report")
        outputs = {n: {"artifacts": [{"uri": f"{out}/{n}"}]} for n in names}
        inputs = {
            "tiles": {"artifacts": [{"uri": tiles}]},
            "models": {"artifacts": [{"uri": model} for model in models]},
        }
        given = {"parameterValues": {"f1_threshold": 0.8}, "artifacts": inputs}
        started = time.perf_counter()
        validate(StageIO({"inputs": given, "outputs": {"artifacts": outputs}}))
        seconds = time.perf_counter() - started
        results = json.loads(Path(out, "results", "metrics.json").read_text())
    return {
        "seconds": seconds,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "served": {fold: found["variant"] for fold, found in results["models"].items()},
    }


def ways(tiles: str, model: str) -> dict[str, Any]:
    """Return ms of processor a tile: one tile a thread, as the stage does, and in batches of 16."""
    import onnxruntime
    from common.inference import probabilities
    from common.tiles import read_tiles

    read, path = read_tiles(Path(tiles), check=False), Path(model, "model.onnx")
    rows = range(96)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def batches() -> None:
        for at in range(0, len(rows), 16):
            session.run(["probability"], {"tiles": read.array[at : at + 16]})

    found = {}
    for name, way in (("tile", lambda: probabilities(path, read, rows)), ("batch", batches)):
        before = time.process_time()
        way()
        found[name] = 1000 * (time.process_time() - before) / len(rows)
    return found


def seeds(tiles: str, fold: str, folder: str) -> dict[str, Any]:
    """Judge the heads of `stages_train.heads`, each seed's in both variants, as validate does.

    Returns a list under `seeds`: of each the variant that is served, and both variants' factors
    with their intervals, {variant: {name: [value, low, high]}}.
    """
    import numpy as np
    from common.tiles import read_tiles
    from validate import judge
    from validate.judge import SCALES, held_out, judged, measure, trained_on

    read = read_tiles(Path(tiles), check=False)
    features = dict(np.load(Path(folder, "features.npz")))
    heads = np.load(Path(folder, "heads.npz"))
    found = []
    for kernel, bias in zip(heads["kernel"], heads["bias"], strict=True):

        def answers(variant: str, wells: Any, kernel: Any = kernel, bias: Any = bias) -> Any:
            rows = [row for each in wells.values() for row in each]
            logits = features[variant][rows] @ kernel + np.float32(bias)
            probability = 1 / (1 + np.exp(-logits.astype(np.float32)))
            return judged(read, fold, wells, probability.astype(np.float64))

        held, seen = held_out(read, fold), trained_on(read, fold)
        of = {variant: answers(variant, held) for variant in features}
        measured = {variant: measure(each, 0) for variant, each in of.items()}
        alike = not judge.changed_calls(of["fp32"], of["int8"]) and judge.close_enough(
            measured["fp32"], measured["int8"]
        )
        worse = judge.worse_factors(*(answers(variant, seen) for variant in ("fp32", "int8")))
        entry: dict[str, Any] = {
            "served": "int8" if alike and not worse else "fp32", "refused": worse,
        }  # fmt: skip
        for variant, each in measured.items():
            (series,) = each["series"]
            named = (
                ("V", series["v_factor"], series["v_interval"]),
                ("Z'", each["z_factor"], each["z_interval"]),
            )
            entry[variant] = {
                f"{name} {scale}": [value[scale], *(interval[scale] or (None, None))]
                for name, value, interval in named
                for scale in SCALES
            }
            entry[variant]["wells right"] = [each["well"]["accuracy"]] * 3
            entry["compound"] = series["compound"]
        found.append(entry)
    return {"seeds": found}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
