"""prepare on a simulated 96-well 1360 x 1024 plate, beside a plain restatement of the original.

    .venv/bin/python -m benchmarks.stages_prepare [--plates N] [--baseline]

Runs itself inside of the prepare image. The original cannot be shipped: the baseline restates its
steps in numpy (the whole plate as 64-bit floats, resized to 1024 x 1024, each tile stretched to its
own range, saved as PNG); it needs 6 GB. Prints, asserts nothing.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

_SELF = "/benchmark/stages_prepare.py"


def original(folder: Path, output: Path) -> None:
    """Do what the original did, in its order."""
    import numpy as np
    from common import layout, plate
    from PIL import Image

    known = layout.load("bbbc014")
    images = plate.match(folder, known).images
    wells = np.zeros((96, 1024, 1024, 3))
    for number, name in enumerate(known.wells):
        for channel, meaning in ((1, "signal"), (2, "dna")):
            with Image.open(images[plate.Place(name, 0, meaning)]) as image:
                wells[number, ..., channel] = np.asarray(image.resize((1024, 1024)), float)
    wells = 2 * np.sqrt(wells + 3 / 8)
    for number in range(96 * 16):
        well, x, y = number // 16, number % 16 // 4 * 256, number % 4 * 256
        tile = wells[well, y : y + 256, x : x + 256]
        tile = (tile - tile.min()) / (tile.max() - tile.min()) * 255
        Image.fromarray(tile.astype(np.uint8)).save(output / f"{number}.png")


def inside(folder: Path, plates: int, *, baseline: bool) -> None:
    """Measure in the image, where the stage's libraries are."""
    from common import layout
    from prepare.stage import prepare_plate

    known = layout.load("bbbc014")
    for run in range(plates):
        with tempfile.TemporaryDirectory() as output:
            start = time.perf_counter()
            prepare_plate(folder, known, Path(output) / "t", Path(output) / "s.html")
            taken = time.perf_counter() - start
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(
            f"prepare, plate {run + 1}: {taken:.2f} s; peak so far {own:.0f} MiB, and "
            f"{worker:.0f} MiB in the largest worker",
            flush=True,
        )
    if baseline:
        with tempfile.TemporaryDirectory() as output:
            start = time.perf_counter()
            original(folder, Path(output))
            print(f"restated original: {time.perf_counter() - start:.2f} s", flush=True)


def main() -> None:
    """Draw the plate and run this file in the prepare image."""
    from builder.build import build
    from builder.sandbox import choose
    from builder.sandbox.process import Mount, Process, run
    from builder.store import Store, default_root
    from builder.workspace import Workspace
    from pipeline.tools import synthetic_plate

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plates", type=int, default=3)
    parser.add_argument("--baseline", action="store_true")
    given = parser.parse_args()
    store = Store.open()
    image = build(Workspace.load(Path(__file__).resolve().parent.parent), store, ["prepare"])[
        "prepare"
    ].image
    sandbox = choose("bubblewrap", store)
    plate = synthetic_plate(sandbox, image, default_root().parent / "plates")
    process = Process(
        image=image,
        command=("python3", _SELF, "/plate", str(given.plates), str(int(given.baseline))),
        mounts=(Mount(Path(__file__).resolve(), _SELF), Mount(plate, "/plate")),
        user=f"{os.getuid()}:{os.getgid()}",
    )
    raise SystemExit(run(sandbox, process, sys.stdout.fileno()).code)


if __name__ == "__main__":
    if len(sys.argv) == 4 and __file__ == _SELF:
        inside(Path(sys.argv[1]), int(sys.argv[2]), baseline=sys.argv[3] == "1")
    else:
        main()
