"""Tiles as small pictures inside a page, and which of them are worth showing."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from common.tiles import Tiles
from numpy.typing import NDArray
from PIL import Image

from .judge import THRESHOLD, Judged

_SIZE = 176
_SAMPLE = 64


@dataclass(frozen=True)
class Shown:
    """A judged tile: its fold, row of the tiles, and probability."""

    fold: str
    row: int
    probability: float


def display_range(tiles: Tiles) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (low, high) grey levels of signal and DNA: one range for the plate, from 64 tiles."""
    rows = np.unique(np.linspace(0, len(tiles.index) - 1, _SAMPLE).astype(int))
    sample = tiles.array[rows][..., 1:]
    low = np.percentile(sample, 1, axis=(0, 1, 2))
    high = np.percentile(sample, 99.8, axis=(0, 1, 2))
    return low.astype(np.float32), np.maximum(high, low + 1).astype(np.float32)


def picture(tile: NDArray[np.uint8], shown: tuple[NDArray[np.float32], NDArray[np.float32]]) -> str:
    """Return a tile [256, 256, 3] as a data URI: signal green, DNA magenta (JPEG, 176 pixels).

    Green and magenta stay apart without red-green vision.
    """
    low, high = shown
    levels = np.clip((tile[..., 1:] - low) / (high - low), 0, 1) * 255
    image = Image.fromarray(levels[..., [1, 0, 1]].astype(np.uint8))
    stream = io.BytesIO()
    image.resize((_SIZE, _SIZE), Image.Resampling.BOX).save(stream, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def pick(tiles: Tiles, judged: Sequence[Judged], count: int) -> dict[str, tuple[list[Shown], int]]:
    """Return, by kind, up to `count` tiles and how many there are.

    `certain` are the rightly called tiles farthest from the threshold, half of them of each class;
    `uncertain` those of all tiles nearest to it; `wrong` the wrongly called ones, worst first.
    """
    every = [
        Shown(of.fold, row, float(p))
        for of in judged
        for row, p in zip(of.rows, of.probability, strict=True)
    ]
    every.sort(key=lambda t: -abs(t.probability - THRESHOLD))
    label = {t: tiles.index[t.row].label for t in every}
    called = {t: int(t.probability >= THRESHOLD) for t in every}
    right = [[t for t in every if label[t] == kind == called[t]] for kind in (0, 1)]
    wrong = [t for t in every if label[t] not in {None, called[t]}]
    return {
        "certain": (right[0][: count // 2] + right[1][: count // 2], len(right[0]) + len(right[1])),
        "uncertain": (every[::-1][:count], len(every)),
        "wrong": (wrong[:count], len(wrong)),
    }
