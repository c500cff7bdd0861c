"""A plate's wells in colours, as SVG text: readable without colour vision or scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from common.wells import row_name

from .svg import svg

# matplotlib's viridis at nine even places: even in lightness, the same to every kind of eye.
_VIRIDIS = (
    (68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141),
    (39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37),
)  # fmt: skip
_CELL = 44


def colour(share: float) -> tuple[str, str]:
    """Return the ramp's colour of 0..1 and black or white, whichever is read on it."""
    place = min(max(share, 0.0), 1.0) * (len(_VIRIDIS) - 1)
    below = min(int(place), len(_VIRIDIS) - 2)
    rgb = [
        round(a + (b - a) * (place - below))
        for a, b in zip(_VIRIDIS[below], _VIRIDIS[below + 1], strict=True)
    ]
    light = sum(w * (c / 255) ** 2.2 for w, c in zip((0.2126, 0.7152, 0.0722), rgb, strict=True))
    # Black and white stand out alike where (light + .05)^2 = 1.05 * .05 (WCAG 2, contrast ratio).
    return "#" + "".join(f"{c:02x}" for c in rgb), "#000" if light > 0.18 else "#fff"


def ramp(width: int = 240) -> str:
    """Return the ramp from 0 to 1 as a legend."""
    steps = 24
    cells = "".join(
        f"<rect x='{i * width / steps:.1f}' width='{width / steps + 0.5:.1f}' height='14' "
        f"fill='{colour(i / (steps - 1))[0]}'/>"
        for i in range(steps)
    )
    marks = "".join(
        f"<text x='{x}' y='28' text-anchor='{anchor}'>{text}</text>"
        for x, anchor, text in ((0, "start", "0 negative"), (width, "end", "100 positive"))
    )
    return svg(width, 32, cells + marks, "Colours from 0 (dark) to 100 (light)", "ramp")


@dataclass(frozen=True)
class Cell:
    """A well of the plate map: its place from 0, score 0..1, signs under the number, and a note.

    A `framed` cell is drawn with a double frame, one without a score as a dashed one.
    """

    row: int
    column: int
    score: float | None
    signs: str = ""
    note: str = ""
    framed: bool = False


def plate_map(cells: Sequence[Cell], rows: int, columns: int) -> str:
    """Return the plate: each well in the ramp's colour, with its score as a percentage."""
    edge = 26
    parts = [
        f"<text class='axis' x='{edge + (c + 0.5) * _CELL}' y='18'>{c + 1}</text>"
        for c in range(columns)
    ]
    for r in range(rows):
        y = edge + r * _CELL
        parts.append(f"<text class='axis' x='12' y='{y + _CELL / 2 + 5}'>{row_name(r + 1)}</text>")
        parts += [
            f"<rect x='{edge + c * _CELL + 2}' y='{y + 2}' width='{_CELL - 4}' "
            f"height='{_CELL - 4}' rx='6' class='absent'/>"
            for c in range(columns)
        ]
    for cell in cells:
        x, y = edge + cell.column * _CELL, edge + cell.row * _CELL
        if cell.score is None:
            parts.append(
                f"<g><title>{escape(cell.note)}</title><rect class='unknown' x='{x + 2}' "
                f"y='{y + 2}' width='{_CELL - 4}' height='{_CELL - 4}' rx='6'/>"
                f"<text class='signs' x='{x + _CELL / 2}' y='{y + 27}'>{escape(cell.signs)}</text>"
                "</g>"
            )
            continue
        fill, ink = colour(cell.score)
        frame = (
            f"<rect x='{x + 4.5}' y='{y + 4.5}' width='{_CELL - 9}' height='{_CELL - 9}' rx='4' "
            f"fill='none' stroke='{ink}' stroke-width='2.5'/>"
            if cell.framed
            else ""
        )
        parts.append(
            f"<g><title>{escape(cell.note)}</title>"
            f"<rect x='{x + 1.5}' y='{y + 1.5}' width='{_CELL - 3}' height='{_CELL - 3}' rx='6' "
            f"fill='{fill}'/>{frame}"
            f"<text class='value' x='{x + _CELL / 2}' y='{y + 22}' fill='{ink}'>"
            f"{100 * cell.score:.0f}</text>"
            f"<text class='signs' x='{x + _CELL / 2}' y='{y + 37}' fill='{ink}'>"
            f"{escape(cell.signs)}</text></g>"
        )
    size = edge + columns * _CELL + 4, edge + rows * _CELL + 4
    return svg(*size, "".join(parts), "Plate map of the wells' scores", "plate")
