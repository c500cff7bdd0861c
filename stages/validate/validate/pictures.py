"""Which tiles are worth showing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.tiles import Tiles

from .judge import THRESHOLD, Judged


@dataclass(frozen=True)
class Shown:
    """A judged tile: its fold, row of the tiles, and probability."""

    fold: str
    row: int
    probability: float


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
