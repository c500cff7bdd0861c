"""Charts as SVG text: pure functions of numbers, readable without colour vision or scripts.

Lines and letters take the page's own colour (`currentColor`), so light and dark pages both work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from common.wells import row_name

from . import numbers

# matplotlib's viridis at nine even places: even in lightness, the same to every kind of eye.
_VIRIDIS = (
    (68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141),
    (39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37),
)  # fmt: skip
_DASHES = ("", "7 4", "2 4", "9 3 2 3")
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
    return _svg(width, 32, cells + marks, "Colours from 0 (dark) to 100 (light)", "ramp")


@dataclass(frozen=True)
class Cell:
    """A well of the plate map: its place from 0, score 0..1, signs under the number, and a note.

    A `framed` cell is drawn with a double frame.
    """

    row: int
    column: int
    score: float
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
        fill, ink = colour(cell.score)
        x, y = edge + cell.column * _CELL, edge + cell.row * _CELL
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
    return _svg(*size, "".join(parts), "Plate map of the wells' scores", "plate")


@dataclass(frozen=True)
class _Frame:
    """A chart's inside: maps data to the page; `x` and `y` are (low, high)."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: float = 420
    height: float = 300
    left: float = 62
    right: float = 14
    top: float = 14
    bottom: float = 48

    def at(self, x: float, y: float) -> tuple[float, float]:
        wide, high = self.width - self.left - self.right, self.height - self.top - self.bottom
        return (
            self.left + wide * (x - self.x[0]) / (self.x[1] - self.x[0]),
            self.top + high * (1 - (y - self.y[0]) / (self.y[1] - self.y[0])),
        )

    def line(self, points: Sequence[tuple[float, float]], extra: str = "") -> str:
        places = " ".join(f"{px:.1f},{py:.1f}" for px, py in (self.at(x, y) for x, y in points))
        return f"<polyline fill='none' stroke='currentColor' points='{places}' {extra}/>"

    def axes(
        self,
        x_ticks: Sequence[tuple[float, str]],
        y_ticks: Sequence[tuple[float, str]],
        x_name: str,
        y_name: str,
    ) -> str:
        """Return frame, grid, ticks and names."""
        floor, middle = self.at(0, self.y[0])[1], (self.top + self.height - self.bottom) / 2
        parts = []
        for x, name in x_ticks:
            px = self.at(x, 0)[0]
            parts.append(
                f"<line class='grid' x1='{px:.1f}' x2='{px:.1f}' y1='{self.top}' y2='{floor}'/>"
                f"<text class='axis' x='{px:.1f}' y='{floor + 17}'>{escape(name)}</text>"
            )
        for y, name in y_ticks:
            py = self.at(0, y)[1]
            parts.append(
                f"<line class='grid' x1='{self.left}' x2='{self.width - self.right}' "
                f"y1='{py:.1f}' y2='{py:.1f}'/>"
                f"<text class='tick' x='{self.left - 6}' y='{py + 4:.1f}'>{escape(name)}</text>"
            )
        parts.append(
            f"<text class='axis' x='{(self.left + self.width - self.right) / 2}' "
            f"y='{self.height - 10}'>{escape(x_name)}</text>"
            f"<text class='axis' transform='rotate(-90)' x='{-middle}' y='16'>"
            f"{escape(y_name)}</text>"
        )
        return "".join(parts)

    def svg(self, inside: str, label: str) -> str:
        return _svg(self.width, self.height, inside, label, "chart")


_SHARES = [(i / 4, f"{i / 4:g}") for i in range(5)]


def dose_response(
    doses: Sequence[float],
    scores: Sequence[float],
    unit: str,
    curve: Callable[[float], float] | None,
    ec50: tuple[float, float, float] | None,
    name: str = "",
) -> str:
    """Return one well a circle, the doses' means as bars, and the fitted curve with its EC50.

    Doses are on a logarithm, dose 0 stands apart at the left. `ec50` is (EC50, low, high); the
    shade is its interval. A dose above 0 must be among `doses`.
    """
    above = sorted({dose for dose in doses if dose > 0})
    low, high = math.log10(above[0]), math.log10(above[-1])
    step = max((high - low) / max(len(above) - 1, 1), 0.05)
    zero = low - 1.5 * step
    has_zero = any(dose == 0 for dose in doses)
    place = {dose: math.log10(dose) if dose > 0 else zero for dose in doses}
    start = (zero if has_zero else low) - 0.6 * step
    frame = _Frame((start, high + 0.6 * step), (-0.04, 1.04))
    decades = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
    ticks = [(float(d), numbers.short(10.0**d)) for d in decades][:: max(1, len(decades) // 6)]
    if len(ticks) < 2:
        ticks = [(low, numbers.short(above[0])), (high, numbers.short(above[-1]))]
    ticks += [(zero, "0")] if has_zero else []
    parts = [frame.axes(ticks, _SHARES, f"dose / {unit}" if unit else "dose", "well's score")]
    if ec50 is not None:
        (left, top), (right, floor) = (
            frame.at(math.log10(ec50[1]), 1.04),
            frame.at(math.log10(ec50[2]), -0.04),
        )
        middle = math.log10(ec50[0])
        parts.append(
            f"<rect class='shade' x='{left:.1f}' y='{top:.1f}' width='{max(right - left, 1):.1f}' "
            f"height='{floor - top:.1f}'/>"
            + frame.line([(middle, -0.04), (middle, 1.04)], "stroke-dasharray='5 4'")
        )
    if curve is not None:
        steps = [low - 0.4 * step + (high - low + 0.8 * step) * i / 100 for i in range(101)]
        parts.append(frame.line([(x, curve(10**x)) for x in steps], "stroke-width='2.5'"))
    for dose in sorted(place):
        here = [s for d, s in zip(doses, scores, strict=True) if d == dose]
        mean = sum(here) / len(here)
        x, y = frame.at(place[dose], mean)
        parts.append(
            f"<line class='mean' x1='{x - 8:.1f}' x2='{x + 8:.1f}' y1='{y:.1f}' y2='{y:.1f}'/>"
        )
        for score in here:
            x, y = frame.at(place[dose], score)
            parts.append(f"<circle class='well' cx='{x:.1f}' cy='{y:.1f}' r='4'/>")
    x, y = frame.left + 8, frame.top + 18
    parts.append(f"<text class='name' x='{x}' y='{y}'>{escape(name)}</text>" if name else "")
    label = "Dose response of the wells' scores"
    return frame.svg("".join(parts), f"{label}: {name}" if name else label)


def roc_curves(curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Return ROC curves of (false positive rate, true positive rate), each dashed its own way."""
    frame = _Frame((-0.03, 1.03), (-0.03, 1.03))
    parts = [
        frame.axes(_SHARES, _SHARES, "false positive rate", "true positive rate"),
        frame.line([(0, 0), (1, 1)], "opacity='.4'"),
    ]
    parts += [
        frame.line(points, f"stroke-width='2.5' stroke-dasharray='{dash}'")
        for points, dash in zip(curves.values(), _repeat(_DASHES, len(curves)), strict=True)
    ]
    parts.append(_legend(frame, list(curves), 0.36))
    return frame.svg("".join(parts), "ROC curves")


def reliability_curves(curves: Mapping[str, Sequence[tuple[float, float, float]]]) -> str:
    """Return share of positives against mean probability: (probability, share, count) a bin.

    A circle's area grows with its bin's count.
    """
    frame = _Frame((-0.03, 1.03), (-0.03, 1.03))
    parts = [
        frame.axes(_SHARES, _SHARES, "mean probability of the bin", "share that is positive"),
        frame.line([(0, 0), (1, 1)], "opacity='.4'"),
    ]
    for bins, dash in zip(curves.values(), _repeat(_DASHES, len(curves)), strict=True):
        most = max(count for _, _, count in bins)
        parts.append(frame.line([(p, share) for p, share, _ in bins], f"stroke-dasharray='{dash}'"))
        for p, share, count in bins:
            x, y = frame.at(p, share)
            radius = 2.5 + 6 * math.sqrt(count / most)
            parts.append(f"<circle class='well' cx='{x:.1f}' cy='{y:.1f}' r='{radius:.1f}'/>")
    parts.append(_legend(frame, list(curves), 0.36))
    return frame.svg("".join(parts), "Reliability of the probabilities")


def _legend(frame: _Frame, names: Sequence[str], top: float) -> str:
    parts = []
    for i, (name, dash) in enumerate(zip(names, _repeat(_DASHES, len(names)), strict=True)):
        y = top - 0.08 * i
        x, py = frame.at(0.72, y)
        parts.append(
            frame.line([(0.55, y), (0.69, y)], f"stroke-width='2.5' stroke-dasharray='{dash}'")
            + f"<text x='{x:.1f}' y='{py + 4:.1f}'>{escape(name)}</text>"
        )
    return "".join(parts)


def _repeat(values: Sequence[str], count: int) -> list[str]:
    return [values[i % len(values)] for i in range(count)]


def _svg(width: float, height: float, inside: str, label: str, kind: str) -> str:
    return (
        f"<svg class='{kind}' viewBox='0 0 {width:g} {height:g}' role='img' "
        f"aria-label='{escape(label)}'>{inside}</svg>"
    )
