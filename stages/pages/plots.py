"""Charts as SVG text: pure functions of numbers, readable without colour vision or scripts.

Lines and letters take the page's own colour (`currentColor`), so light and dark pages both work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from . import numbers
from .svg import svg

_DASHES = ("", "7 4", "2 4", "9 3 2 3")


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
        return svg(self.width, self.height, inside, label, "chart")


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


@dataclass(frozen=True)
class Point:
    """A plate in a chart over the plates: None is what cannot be told. `good` is a circle."""

    value: float | None
    note: str
    good: bool = True


def over_plates(points: Sequence[Point], name: str, floor: float = -math.inf) -> str:
    """Return a value a plate, in their order, from 1; what is below `floor` stands on it as ▽."""
    known = [max(p.value, floor) for p in points if p.value is not None]
    low, high = min([0.0, *known]), max([0.0, *known])
    room = 0.06 * (high - low) or 1.0
    frame = _Frame((0.2, len(points) + 0.8), (low - room, high + room), width=640, height=240)
    marks = [(float(x), f"{x:g}") for x in _ticks(1, max(len(points), 2)) if x == int(x)]
    parts = [
        frame.axes(
            [(x, text) for x, text in marks if x <= len(points)],
            [(y, numbers.short(y)) for y in _ticks(low, high)],
            "plate, by its number in the table",
            name,
        )
    ]
    for number, point in enumerate(points, start=1):
        if point.value is None:
            continue
        x, y = frame.at(number, max(point.value, floor))
        if point.value < floor:
            mark = f"<path class='well' d='M{x - 4:.1f} {y - 4:.1f}h8l-4 7z'/>"
        elif point.good:
            mark = f"<circle class='well' cx='{x:.1f}' cy='{y:.1f}' r='4'/>"
        else:
            mark = f"<path class='well' d='M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8'/>"
        parts.append(f"<g><title>{escape(point.note)}</title>{mark}</g>")
    return frame.svg("".join(parts), f"{name} over the plates")


def learning_curves(curves: Mapping[str, Sequence[tuple[float, float]]], name: str) -> str:
    """Return curves of (epoch, loss), the loss on a logarithm; each is dashed its own way."""
    points = [point for curve in curves.values() for point in curve if point[1] > 0]
    last = max([1.0, *(epoch for epoch, _ in points)])
    logs = [math.log10(loss) for _, loss in points] or [0.0]
    low, high = min(logs) - 0.1, max(logs) + 0.1
    frame = _Frame((-0.03 * last, 1.03 * last), (low, high))
    powers = range(math.ceil(low), math.floor(high) + 1)
    decades = [(float(power), numbers.short(10.0**power)) for power in powers]
    if len(decades) < 2:
        decades = [(y, numbers.short(10**y)) for y in (low + 0.1, high - 0.1)]
    parts = [
        frame.axes([(x, f"{x:g}") for x in _ticks(0, last) if x == int(x)], decades, "epoch", name)
    ]
    for curve, dash in zip(curves.values(), _repeat(_DASHES, len(curves)), strict=True):
        shown = [(epoch, math.log10(loss)) for epoch, loss in curve if loss > 0]
        parts.append(frame.line(shown, f"stroke-width='2' stroke-dasharray='{dash}'"))
        if len(shown) == 1:
            x, y = frame.at(*shown[0])
            parts.append(f"<circle class='well' cx='{x:.1f}' cy='{y:.1f}' r='4'/>")
    parts.append(_legend(frame, list(curves), high - 0.08 * (high - low)))
    return frame.svg("".join(parts), name)


def _ticks(low: float, high: float) -> list[float]:
    """Return three to eight round numbers from `low` to `high`."""
    rough = (high - low) / 5 or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(n * power for n in (1, 2, 5, 10) if n * power >= rough)
    return [float(f"{n * step:.6g}") for n in range(math.ceil(low / step), int(high // step) + 1)]


def _legend(frame: _Frame, names: Sequence[str], top: float) -> str:
    parts = []
    (left, right), high = frame.x, frame.y[1] - frame.y[0]
    starts, ends, text = (left + share * (right - left) for share in (0.55, 0.68, 0.71))
    for i, (name, dash) in enumerate(zip(names, _repeat(_DASHES, len(names)), strict=True)):
        y = top - 0.075 * high * i
        x, py = frame.at(text, y)
        parts.append(
            frame.line([(starts, y), (ends, y)], f"stroke-width='2.5' stroke-dasharray='{dash}'")
            + f"<text x='{x:.1f}' y='{py + 4:.1f}'>{escape(name)}</text>"
        )
    return "".join(parts)


def _repeat(values: Sequence[str], count: int) -> list[str]:
    return [values[i % len(values)] for i in range(count)]
