"""prepare on a simulated 96-well 1360 x 1024 plate, beside a plain restatement of the original.

    cd stages && PYTHONPATH=.:prepare python ../benchmarks/stages_prepare.py FOLDER [--baseline]

The original cannot be shipped: the baseline restates its steps in numpy (the whole plate as 64-bit
floats, resized to 1024 x 1024, each tile stretched to its own range, saved as PNG); it needs 6 GB.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from common import layout, plate
from PIL import Image
from prepare.stage import prepare_plate
from prepare.synthetic import write_plate


def original(folder: Path, output: Path) -> None:
    """Do what the original did, in its order."""
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


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--baseline", action="store_true")
    given = parser.parse_args()
    if not given.folder.exists():
        write_plate(given.folder)
    known = layout.load("bbbc014")
    for run in range(3):
        with tempfile.TemporaryDirectory() as output:
            start = time.perf_counter()
            prepare_plate(given.folder, known, Path(output) / "t", Path(output) / "s.html")
            print(f"prepare, run {run + 1}: {time.perf_counter() - start:.2f} s")
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"peak: {own:.0f} MiB, and {worker:.0f} MiB in the largest worker")
    if given.baseline:
        with tempfile.TemporaryDirectory() as output:
            start = time.perf_counter()
            original(given.folder, Path(output))
            print(f"restated original: {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()
