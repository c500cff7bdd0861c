"""Tiles as pictures inside a page: one, or one a well side by side with labels and a scale bar."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from common.tiles import Tiles
from common.wells import row_name
from numpy.typing import NDArray
from PIL import Image

Place = tuple[int, int]  # row and column of a well, from 0
Range = tuple[NDArray[np.float32], NDArray[np.float32]]

_SAMPLE = 64
_TILE = 256  # pixels of a tile, as `common.tiles` has them
_WIDE, _LARGEST = 1152, 96  # pixels: of all columns together, and of a well, at most


@dataclass(frozen=True)
class Picture:
    """A well of a montage: the id that a link leads to, and what is said of it."""

    anchor: str
    note: str


def display_range(tiles: Tiles) -> Range:
    """Return (low, high) grey levels of signal and DNA: one range for the plate, from 64 tiles."""
    rows = np.unique(np.linspace(0, len(tiles.index) - 1, _SAMPLE).astype(int))
    sample = tiles.array[rows][..., 1:]
    low = np.percentile(sample, 1, axis=(0, 1, 2))
    high = np.percentile(sample, 99.8, axis=(0, 1, 2))
    return low.astype(np.float32), np.maximum(high, low + 1).astype(np.float32)


def picture(tile: NDArray[np.uint8], shown: Range, edge: int) -> Image.Image:
    """Return a tile [256, 256, 3] as `edge` x `edge` pixels: signal green, DNA magenta.

    Green and magenta stay apart without red-green vision.
    """
    low, high = shown
    # Made smaller first, so that a plate of 384 wells takes less time.
    small = np.asarray(Image.fromarray(tile).resize((edge, edge), Image.Resampling.BOX))
    levels = np.clip((small[..., 1:] - low) / (high - low), 0, 1) * 255
    return Image.fromarray(levels[..., [1, 0, 1]].astype(np.uint8))


def jpeg(image: Image.Image) -> bytes:
    """Return a picture as JPEG."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=82)
    return stream.getvalue()


def address(data: bytes) -> str:
    """Return a JPEG as the address of an image inside a page."""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def middle_tiles(tiles: Tiles) -> dict[str, int]:
    """Return, by well, the tile to show: the middle one of its first field without a flag.

    A well whose fields are all flagged shows its first field.
    """
    fields: dict[str, dict[int, list[int]]] = {}
    for row, tile in enumerate(tiles.index):
        fields.setdefault(tile.well, {}).setdefault(tile.field, []).append(row)
    found = {}
    for well, own in fields.items():
        clean = [rows for rows in own.values() if not tiles.index[rows[0]].flags]
        rows = (clean or list(own.values()))[0]
        found[well] = rows[len(rows) // 2]
    return found


def montage(
    tiles: Tiles, wells: Mapping[Place, int], shape: tuple[int, int], shown: Range
) -> bytes:
    """Return a plate of `shape` (rows, columns) as one JPEG: `wells` says which tile is where."""
    edge = _edge(shape[1])
    sheet = Image.new("RGB", (shape[1] * edge, shape[0] * edge), (40, 40, 40))
    for (row, column), number in wells.items():
        sheet.paste(picture(tiles.array[number], shown, edge), (column * edge, row * edge))
    return jpeg(sheet)


def _edge(columns: int) -> int:
    return max(8, min(_LARGEST, _WIDE // columns))


def drawn(
    data: bytes, wells: Mapping[Place, Picture], shape: tuple[int, int], pixel_size: float | None
) -> str:
    """Return a montage as SVG, with the rows' and columns' names and a scale bar.

    `data` is of `montage`, `pixel_size` the micrometres of a tile's pixel; None draws no bar.
    """
    rows, columns = shape
    edge, left, top = _edge(columns), 30, 24
    width, height = columns * edge, rows * edge
    parts = [
        f"<text class='axis' x='{left + (c + 0.5) * edge:g}' y='16'>{c + 1}</text>"
        for c in range(columns)
    ]
    parts += [
        f"<text class='axis' x='13' y='{top + (r + 0.5) * edge + 5:g}'>{row_name(r + 1)}</text>"
        for r in range(rows)
    ]
    parts.append(
        f"<image x='{left}' y='{top}' width='{width}' height='{height}' href='{address(data)}'/>"
    )
    parts += [
        f"<g id='{escape(of.anchor)}'><title>{escape(of.note)}</title><rect class='frame' "
        f"x='{left + c * edge}' y='{top + r * edge}' width='{edge}' height='{edge}'/></g>"
        for (r, c), of in wells.items()
    ]
    under = top + height
    if pixel_size is not None:
        length = bar(0.9 * _TILE * pixel_size)
        right, y = left + length / (_TILE * pixel_size) * edge, under + 14
        parts.append(
            f"<line class='bar' x1='{left}' x2='{right:.1f}' y1='{y}' y2='{y}'/>"
            f"<text x='{right + 8:.1f}' y='{y + 5}'>{length:g} µm</text>"
        )
        under += 26
    return (
        f"<svg class='montage' viewBox='0 0 {left + width + 4} {under + 4}' role='img' "
        f"aria-label='Montage of the wells'>{''.join(parts)}</svg>"
    )


def tile_pixel(plate: Mapping[str, Any]) -> float | None:
    """Return the micrometres of a tile's pixel; None where the plate's files do not say them.

    `plate` is of plate.json: `pixel_size` are those of the images, which may be made smaller.
    """
    given, layout = plate.get("pixel_size"), plate["layout"]
    return None if given is None else float(given) * layout["size"][0] / layout["target"][0]


def bar(most: float) -> float:
    """Return the longest of 1, 2 and 5 times a power of ten that is not above `most`."""
    power = 10.0 ** math.floor(math.log10(most))
    return float(f"{next(n for n in (5, 2, 1) if n * power <= most * (1 + 1e-9)) * power:.6g}")
