"""A simulated plate in BBBC014's file layout: cells whose signal moves into the nucleus with dose.

    python3 -m prepare.synthetic --out DIR --seed 0 [--wells A01,A12,…]

Each well has its own random stream, so a well's pixels depend on the seed and its name alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from common import layout as layouts
from common.errors import StageError
from common.layout import Layout
from common.treatment import Well
from numpy.typing import NDArray
from PIL import Image, ImageFilter

_CELLS = 130
# radius of a nucleus in pixels, cell radius over it, brightness of the signal, half-way dose
_LINES = {"MCF7": (15.0, 1.9, 95.0, 1e-10), "A549": (17.0, 2.2, 80.0, 2e-10)}


def translocation(dose: float, halfway: float) -> float:
    """Return the share 0..1 of the effect at `dose`: a Hill curve of slope 1."""
    return dose / (dose + halfway)


def draw_well(well: Well, size: tuple[int, int], seed: int) -> tuple[Image.Image, Image.Image]:
    """Return a simulated well's signal and DNA images, grey, (width, height) `size`."""
    random = np.random.default_rng([seed, ord(well.row), well.column])
    radius, ratio, bright, halfway = _LINES.get(well.compound, _LINES["MCF7"])
    share = translocation(well.dose or 0.0, halfway)
    width, height = size
    signal = np.full((height, width), 14, np.float32)
    dna = np.full((height, width), 10, np.float32)
    for _ in range(round(_CELLS * width * height / (1360 * 1024) * random.uniform(0.85, 1.15))):
        x, y = random.uniform(0, width), random.uniform(0, height)
        nucleus = radius * random.uniform(0.8, 1.2)
        inside = np.clip(share + random.normal(0, 0.12), 0, 1)
        level = bright * random.uniform(0.75, 1.25)
        long, angle = random.uniform(1.0, 1.35), random.uniform(0, np.pi)
        _stamp(signal, x, y, nucleus * ratio, long, angle, level * (0.85 - 0.45 * inside))
        _stamp(signal, x, y, nucleus, long, angle, level * (1.35 * inside - 0.45 * (1 - inside)))
        _stamp(dna, x, y, nucleus, long, angle, 110 * random.uniform(0.7, 1.3))
    return _expose(signal, random), _expose(dna, random)


def _stamp(
    picture: NDArray[np.float32],
    x: float,
    y: float,
    radius: float,
    long: float,
    angle: float,
    level: float,
) -> None:
    reach = int(radius * long) + 3
    left, top = max(0, int(x) - reach), max(0, int(y) - reach)
    part = picture[top : int(y) + reach, left : int(x) + reach]
    if not part.size:
        return
    rows = np.arange(top, top + part.shape[0], dtype=np.float32)[:, None] - y
    columns = np.arange(left, left + part.shape[1], dtype=np.float32)[None] - x
    along = (columns * np.cos(angle) + rows * np.sin(angle)) / (radius * long)
    across = (rows * np.cos(angle) - columns * np.sin(angle)) / radius
    part += level * np.clip((1.1 - np.hypot(along, across)) * 5, 0, 1).astype(np.float32)


def _expose(picture: NDArray[np.float32], random: np.random.Generator) -> Image.Image:
    """Blur, and add shot noise (normal, variance half the level) and read noise."""
    blurred = Image.fromarray(np.clip(picture, 0, 250).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(1.2)
    )
    values = np.asarray(blurred, dtype=np.float32)
    noise = random.standard_normal(values.shape, dtype=np.float32)
    values = values + noise * np.sqrt(values * 0.5 + 2)
    return Image.fromarray(np.clip(values + 0.5, 0, 255).astype(np.uint8))


def write_plate(
    folder: Path,
    seed: int = 0,
    wells: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write a plate (or some wells of it) as BMP files; return the number of files.

    Raises StageError for an unknown well or a folder that cannot be written.
    """
    layout: Layout = layouts.load("bbbc014")
    unknown = sorted(set(wells or ()) - set(layout.wells))
    if unknown:
        raise StageError(f"the layout bbbc014 has no well {', '.join(unknown)}")
    picked = [well for name, well in layout.wells.items() if wells is None or name in wells]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("fork")
        draw = partial(_write_well, folder, layout, seed)
        with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context) as pool:
            for done, _ in enumerate(pool.map(draw, picked), start=1):
                if progress is not None:
                    progress(done, len(picked))
    except OSError as error:
        raise StageError(f"cannot write {folder}: {error.strerror or error}; make room") from None
    return 2 * len(picked)


def _write_well(folder: Path, layout: Layout, seed: int, well: Well) -> None:
    number = (ord(well.row) - ord("A")) * layout.columns + well.column
    for channel, image in enumerate(draw_well(well, layout.size, seed), start=1):
        name = f"Channel {channel}-{number:02d}-{well.row}-{well.column:02d}-00.Bmp"
        image.save(folder / name, "BMP")


def main() -> None:
    """Write the plate that the arguments ask for."""
    parser = argparse.ArgumentParser(prog="python3 -m prepare.synthetic", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wells", help="for example A01,A12; without it all 96")
    given = parser.parse_args()
    try:
        count = write_plate(given.out, given.seed, given.wells and given.wells.split(","))
    except StageError as error:
        sys.exit(f"synthetic: {error}")
    print(f"synthetic: {count} images in {given.out}")


if __name__ == "__main__":
    main()
