"""prepare, train and validate beside their bars, each in its image, each run a process of its own.

    .venv/bin/python -m benchmarks.stages [BAR ...] [--plate DIR] [--seeds N]

Bars: prepare, bbbc013, seeds, synthetic, shuffled, resnet50, tuning, int8, validate. Prints
tables, asserts nothing. The plate is BBBC013v1 (default ../shared/data/bbbc013v1 beside the
checkout, or PLATELINE_BBBC013). All of them take half an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import bbbc013, figures
from builder.build.make import Built, build
from builder.build.workspace import Workspace
from builder.sandbox.engines import choose
from builder.sandbox.process import Mount, Process, run
from builder.store import Store

ROOT = Path(__file__).resolve().parents[1]
BARS = (
    "prepare", "bbbc013", "seeds", "synthetic", "shuffled", "resnet50", "tuning", "int8",
    "validate",
)  # fmt: skip
NETWORKS = ("EfficientNet_Lite0", "ResNet50", "Inception_v3", "Inception_Resnet_v2")


class Images:
    """Runs a function of benchmarks/stages_STAGE.py in the image of that stage."""

    def __init__(self, scratch: Path, plate: Path) -> None:
        self._store = Store.open()
        self._built: dict[str, Built] = build(
            Workspace.load(ROOT), self._store, ["prepare", "train", "validate"]
        )
        self._scratch = scratch
        self._mounts = [Mount(scratch, "/out", True)]
        if plate.is_dir():
            self._mounts.append(Mount(plate, "/plate"))

    def __call__(self, stage: str, function: str, *arguments: str) -> dict[str, Any]:
        """Return what it returned; exits where it fails."""
        script = f"/benchmark/stages_{stage}.py"
        with (self._scratch / "log").open("wb") as log:
            ended = run(
                choose("bubblewrap", self._store),
                Process(
                    image=self._built[stage].image,
                    command=("python3", script, function, *arguments),
                    env={"PYTHONPATH": "/app", "TF_CPP_MIN_LOG_LEVEL": "3"},
                    mounts=(Mount(ROOT / "benchmarks", "/benchmark"), *self._mounts),
                ),
                log,
            )
        text = (self._scratch / "log").read_text(errors="replace")
        if ended.code:
            sys.exit(f"{text}\n{stage}, {function}: {ended}")
        return dict(json.loads(text.splitlines()[-1]))


class Trained:
    """Trains folds of prepared tiles, and prints what validate makes of them."""

    def __init__(self, images: Images) -> None:
        self._images = images
        self._number = 0

    def __call__(self, tiles: str, fold: str, title: str, **options: Any) -> tuple[str, float]:
        """Return the folder of the model and the seconds it took."""
        self._number += 1
        out = f"/out/trained-{self._number}"
        found = self._images("train", "train", f"/out/{tiles}", fold, out, json.dumps(options))
        seen = self._images("validate", "judge", f"/out/{tiles}", fold, f"{out}/model")
        shown = f"{found['seconds']:.1f} s, {found['peak']:.2f} GB"
        figures.record("train", f"{title}, {fold}", shown)
        for variant, measured in seen.items():
            (no, false), (missed, yes) = measured["well"]["confusion"]
            z = measured["z_factor"]["probability"]
            v = "  ".join(
                f"V of {series['compound']} {series['v_factor']['probability']:.3f}"
                for series in measured["series"]
            )
            print(
                f"    {variant}: {no + yes} of {no + yes + false + missed} wells, "
                f"tiles {measured['tile']['accuracy']:.3f}  "
                + (f"Z' {z:.3f}  " if z is not None else "") + v,
                flush=True,
            )  # fmt: skip
        return f"{out}/model", found["seconds"]


def _prepare(images: Images, plates: int) -> None:
    once, many = (images("prepare", "stage", "/out/drawn", str(n)) for n in (1, plates))
    original = images("prepare", "original", "/out/drawn")
    seconds = statistics.median(many["seconds"])
    times = original["seconds"] / seconds
    figures.record(
        "prepare", "96 wells of 1360 x 1024", f"{seconds:.2f} s",
        beside=f"the original restated in numpy: {original['seconds']:.1f} s, {times:.0f} times",
        target=">= 30 times as fast", missed=times < 30,
    )  # fmt: skip
    for count, found in ((1, once), (plates, many)):
        figures.record(
            "prepare", f"peak memory, {count} plate{'s' * (count > 1)}",
            f"{found['own'][-1]:.0f} MiB + {found['worker']:.0f} MiB in the largest worker",
            target="<= 250 MB", missed=found["own"][-1] > 250,
        )  # fmt: skip
    figures.record("prepare", f"{plates} plates", f"{sum(many['seconds']):.1f} s")


def _resnet50(images: Images, rounds: int) -> None:
    rates: dict[str, list[float]] = {"stage": [], "bare": []}
    for _ in range(rounds):
        for kind, found in rates.items():
            found.append(images("train", "resnet50", kind)["images"])
    ratios = [one / two for one, two in zip(*rates.values(), strict=True)]
    one, two = (statistics.median(found) for found in rates.values())
    ratio = statistics.median(ratios)
    figures.record(
        "train", "ResNet50 from nothing, batch 8", f"{one:.2f} images/s",
        beside=f"a bare fit: {two:.2f} images/s, ratio {ratio:.2f}", target=">= a bare fit",
        missed=ratio < 1,
    )  # fmt: skip


def _tuning(images: Images, rounds: int) -> None:
    for name in NETWORKS:
        pairs = [
            [images("train", "fine_tuning", kind, name) for kind in ("stage", "bare")]
            for _ in range(rounds)
        ]
        one, two = (
            statistics.median(1 / found["image"][0] for found in kind)
            for kind in zip(*pairs, strict=True)
        )
        ratio, processor = (
            statistics.median(bare["image"][n] / ours["image"][n] for ours, bare in pairs)
            for n in (0, 1)
        )
        figures.record(
            "train", f"{name}, fine-tuning, batch 8", f"{one:.2f} images/s",
            beside=f"a bare fit, the same layers frozen: {two:.2f} images/s, ratio {ratio:.2f}, by "
            f"processor time {processor:.2f}",
            target=">= 1.2 times a bare fit", missed=ratio < 1.2,
        )  # fmt: skip


def main() -> None:
    """Measure the bars that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bars", nargs="*", choices=[*BARS, []], default=list(BARS))
    bbbc013.option(parser)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--plates", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        _measure(given, Path(folder))


def _measure(given: argparse.Namespace, scratch: Path) -> None:
    images = Images(scratch, given.plate)
    trained = Trained(images)
    bars = set(given.bars)
    if bars & {"prepare", "synthetic", "shuffled"}:
        images("prepare", "draw", "/out/drawn")
    if "prepare" in bars:
        _prepare(images, given.plates)
    if bars & {"bbbc013", "seeds", "validate"}:
        bbbc013.require(given.plate)
        images("prepare", "tiles", "/plate", "bbbc013", "/out/bbbc013")
        for seed in range(given.seeds if "seeds" in bars else 1):
            both = [
                trained("bbbc013", fold, f"BBBC013, seed {seed}", seed=seed)
                for fold in ("A-D", "E-H")
            ]
            total = sum(seconds for _, seconds in both)
            figures.record("train", f"BBBC013, both folds, seed {seed}", f"{total:.1f} s",
                           target="<= 90 s", missed=total > 90)  # fmt: skip
            if seed == 0 and "validate" in bars:
                found = images("validate", "stage", "/out/bbbc013", *(model for model, _ in both))
                served = ", ".join(f"{fold} {kind}" for fold, kind in found["served"].items())
                figures.record(
                    "validate", "BBBC013, both models in both variants",
                    f"{found['seconds']:.1f} s, {found['peak']:.2f} GB", beside=f"served: {served}",
                    target="<= 30 s, 1 GB", missed=found["seconds"] > 30 or found["peak"] > 1,
                )  # fmt: skip
                cost = images("validate", "ways", "/out/bbbc013", both[0][0])
                figures.record(
                    "validate", "judging, CPU time a tile, one tile a thread",
                    f"{cost['tile']:.1f} ms", beside=f"in batches of 16: {cost['batch']:.1f} ms",
                )  # fmt: skip
    if bars & {"synthetic", "shuffled"}:
        images("prepare", "tiles", "/out/drawn", "bbbc014", "/out/synthetic")
    if "synthetic" in bars:
        for fold in ("A-D", "E-H"):
            trained("synthetic", fold, "simulated plate")
    if "shuffled" in bars:
        images("train", "shuffle", "/out/synthetic", "/out/shuffled", "0")
        for fold in ("A-D", "E-H"):
            trained("shuffled", fold, "simulated plate, labels shuffled", epochs=2)
    if "resnet50" in bars:
        _resnet50(images, given.rounds)
    if "tuning" in bars:
        _tuning(images, given.rounds)
    if "int8" in bars:
        found = images("train", "int8", "/out")
        one, two = found["model.onnx"], found["model.int8.onnx"]
        figures.record(
            "train", "ResNet50 in 8 bits, one thread, a tile", f"{two * 1e3:.0f} ms",
            beside=f"fp32 {one * 1e3:.0f} ms, {one / two:.2f} times as long", target=">= 2.5 times",
            missed=one / two < 2.5,
        )  # fmt: skip


if __name__ == "__main__":
    main()
