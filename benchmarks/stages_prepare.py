"""What `benchmarks/stages.py` measures in the prepare image. Each function is its own process.

The original cannot be shipped: `original` restates its steps in numpy (the whole plate as 64-bit
floats, resized to 1024 x 1024, each tile stretched to its own range, saved as PNG) and needs 6 GB.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def draw(folder: str) -> dict[str, Any]:
    """Write a simulated 96-well plate, 1360 x 1024, in BBBC014's layout."""
    from prepare.synthetic import write_plate

    return {"files": write_plate(Path(folder))}


def tiles(plate: str, layout: str, out: str) -> dict[str, Any]:
    """Write the tiles of `plate` to `out`."""
    from common import layout as layouts
    from prepare.stage import prepare_plate

    prepare_plate(Path(plate), layouts.load(layout), Path(out), Path(out + ".html"))
    return {}


def stage(plate: str, plates: str) -> dict[str, Any]:
    """Prepare the plate so many times in one process; seconds of each, and MiB at the peak."""
    from common import layout as layouts
    from prepare.stage import prepare_plate

    known, seconds, own = layouts.load("bbbc014"), [], []
    for _ in range(int(plates)):
        with tempfile.TemporaryDirectory() as output:
            start = time.perf_counter()
            prepare_plate(Path(plate), known, Path(output) / "t", Path(output) / "s.html")
            seconds.append(time.perf_counter() - start)
        own.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"seconds": seconds, "own": own, "worker": worker}


def original(plate: str) -> dict[str, Any]:
    """Do what the original did, in its order."""
    import numpy as np
    from common import layout as layouts
    from common import plate as plates
    from PIL import Image

    known, start = layouts.load("bbbc014"), time.perf_counter()
    images = plates.match(Path(plate), known).images
    with tempfile.TemporaryDirectory() as output:
        wells = np.zeros((96, 1024, 1024, 3))
        for number, name in enumerate(known.wells):
            for channel, meaning in ((1, "signal"), (2, "dna")):
                (plane,) = images[plates.Place(name, 0, meaning)]
                with Image.open(plane.path) as image:
                    wells[number, ..., channel] = np.asarray(image.resize((1024, 1024)), float)
        wells = 2 * np.sqrt(wells + 3 / 8)
        for number in range(96 * 16):
            well, x, y = number // 16, number % 16 // 4 * 256, number % 4 * 256
            tile = wells[well, y : y + 256, x : x + 256]
            tile = (tile - tile.min()) / (tile.max() - tile.min()) * 255
            Image.fromarray(tile.astype(np.uint8)).save(Path(output, f"{number}.png"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": time.perf_counter() - start, "peak": peak}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
