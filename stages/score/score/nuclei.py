"""Nuclei in a field's DNA picture, and what is measured of each. Lengths are pixels of the image.

Segmentation: Gaussian smoothing, Otsu's threshold (1979, IEEE Trans SMC 9:62), and a watershed of
the distance transform, which parts nuclei that touch (Malpica et al. 1997, Cytometry 28:289).
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial

import numpy as np
from common.errors import StageError
from common.tiles import Tiles
from numpy.typing import NDArray
from scipy import ndimage
from skimage import feature, filters, measure, segmentation

Picture = NDArray[np.uint8]

DIAMETER = 18.0  # pixels of a tile; a nucleus of BBBC013 as the models see it
CONTRAST = 8  # grey levels between nuclei and background, at least; as prepare's flag `blank`
FEATURES: Mapping[str, str] = {  # name, after CellProfiler -> unit
    "Nuclei_AreaShape_Area": "px2",
    "Nuclei_AreaShape_Eccentricity": "",
    "Nuclei_AreaShape_FormFactor": "",
    "Nuclei_Intensity_MeanIntensity_DNA": "grey level (0-255)",
    "Nuclei_Intensity_IntegratedIntensity_DNA": "grey level x px2",
    "Nuclei_Intensity_MeanIntensity_Signal": "grey level (0-255)",
    "Cytoplasm_Intensity_MeanIntensity_Signal": "grey level (0-255)",
    "Cells_Intensity_NucleusToCytoplasm_Signal": "log2 ratio",
}


@dataclass(frozen=True)
class Nuclei:
    """The nuclei of a field: how many, and FEATURES -> [nuclei] of those that are whole.

    One that touches the border is counted, but not measured.
    """

    count: int
    features: Mapping[str, NDArray[np.float32]]


def segment(dna: Picture, diameter: float = DIAMETER) -> NDArray[np.int32]:
    """Return the nuclei's labels [height, width], 0 for the background; `diameter` in pixels.

    A picture whose nuclei would be less than CONTRAST above the background has none: a threshold
    would part its noise.
    """
    smooth = filters.gaussian(dna.astype(np.float32), diameter / 9, preserve_range=True)
    none = np.zeros(dna.shape, np.int32)
    if smooth.max() - smooth.min() < CONTRAST:
        return none
    mask = smooth > filters.threshold_otsu(smooth)
    if np.median(smooth[mask]) - np.median(smooth[~mask]) < CONTRAST:
        return none
    mask = ndimage.binary_fill_holes(mask)
    whole = measure.label(mask)
    least = 0.15 * np.pi / 4 * diameter**2
    mask &= (np.bincount(whole.ravel()) >= least)[whole]
    depth = filters.gaussian(
        ndimage.distance_transform_edt(mask), diameter / 9, preserve_range=True
    )
    peaks = feature.peak_local_max(
        depth, min_distance=max(1, round(diameter / 3)), labels=measure.label(mask),
        exclude_border=False,
    )  # fmt: skip
    markers = np.zeros(dna.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return np.asarray(segmentation.watershed(-depth, markers, mask=mask), np.int32)


def measured(
    signal: Picture, dna: Picture, *, scale: float = 1.0, diameter: float = DIAMETER
) -> Nuclei:
    """Return the nuclei of a field's two pictures, which are the images enlarged by `scale`.

    The cytoplasm is a ring around the nucleus, a third of its diameter wide, that ends where
    another begins. FormFactor is 4 pi area / perimeter^2. The ratio is log2((n + 1) / (c + 1)) of
    the two mean levels.
    """
    labels = segment(dna, diameter)
    count = int(labels.max())
    inner = segmentation.clear_border(labels)
    rings = segmentation.expand_labels(labels, distance=diameter / 3)
    rings[labels > 0] = 0
    table = measure.regionprops_table(
        inner, properties=("label", "area", "eccentricity", "perimeter")
    )
    at = np.asarray(table["label"], int)
    means = {
        "dna": ndimage.mean(dna, labels, at) if len(at) else np.zeros(0),
        "nucleus": ndimage.mean(signal, labels, at) if len(at) else np.zeros(0),
    }
    ring_sizes = np.bincount(rings.ravel(), minlength=count + 1)[at]
    ring_sums = np.bincount(rings.ravel(), signal.ravel(), minlength=count + 1)[at]
    cytoplasm = np.where(ring_sizes > 0, ring_sums / np.maximum(ring_sizes, 1), np.nan)
    area = np.asarray(table["area"], float)
    perimeter = np.maximum(np.asarray(table["perimeter"], float), 1.0)
    values = (
        area / scale**2,
        table["eccentricity"],
        4 * np.pi * area / perimeter**2,
        means["dna"],
        means["dna"] * area / scale**2,
        means["nucleus"],
        cytoplasm,
        np.log2((np.asarray(means["nucleus"]) + 1) / (cytoplasm + 1)),
    )
    return Nuclei(
        count,
        {name: np.asarray(v, np.float32) for name, v in zip(FEATURES, values, strict=True)},
    )


def picture(tiles: Tiles, rows: Sequence[int]) -> Picture:
    """Return the picture [height, width, 3] that the tiles of one field were cut from."""
    places = [(tiles.index[row].y, tiles.index[row].x) for row in rows]
    down, across = (max(axis) + 1 for axis in zip(*places, strict=True))
    size = len(tiles.array[rows[0]])
    whole = np.zeros((down * size, across * size, 3), np.uint8)
    for (y, x), row in zip(places, rows, strict=True):
        whole[y * size : (y + 1) * size, x * size : (x + 1) * size] = tiles.array[row]
    return whole


def of_fields(
    tiles: Tiles, fields: Sequence[Sequence[int]], *, scale: float, diameter: float
) -> Iterator[Nuclei]:
    """Return the nuclei of each field, given as rows of the tiles; in worker processes.

    These are forked now, so call it before anything starts threads. Memory: one field a worker, and
    the nuclei that nobody has taken yet.
    """
    work = partial(_field, tiles, scale=scale, diameter=diameter)
    pool = ProcessPoolExecutor(
        len(os.sched_getaffinity(0)), mp_context=multiprocessing.get_context("fork"),
        initializer=_begin, initargs=(work,),
    )  # fmt: skip
    return _taken(pool, pool.map(_run, fields))


def _taken(pool: ProcessPoolExecutor, found: Iterator[Nuclei]) -> Iterator[Nuclei]:
    try:
        yield from found
    except BrokenProcessPool:
        raise StageError(
            "a worker was killed while it measured nuclei, most likely for want of memory; give "
            "the task more memory"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _field(tiles: Tiles, rows: Sequence[int], *, scale: float, diameter: float) -> Nuclei:
    whole = picture(tiles, rows)
    return measured(whole[..., 1], whole[..., 2], scale=scale, diameter=diameter)


_WORK: dict[str, partial[Nuclei]] = {}  # a worker's: the tiles come by fork, not with each field


def _begin(work: partial[Nuclei]) -> None:
    _WORK["field"] = work


def _run(rows: Sequence[int]) -> Nuclei:
    return _WORK["field"](rows)
