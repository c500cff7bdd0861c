"""Small pieces of HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from .plots import short

_MOLAR = (("m", 1e-3), ("µ", 1e-6), ("n", 1e-9), ("p", 1e-12), ("f", 1e-15))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of HTML cells; the first of a row is its head. It scrolls by itself."""
    top = "".join(f"<th scope=col>{cell}" for cell in head)
    body = "".join(
        f"<tr><th scope=row>{row[0]}" + "".join(f"<td>{cell}" for cell in row[1:]) for row in rows
    )
    return f"<div class=wide><table><tr>{top}{body}</table></div>"


def number(value: float | None, interval: Sequence[float] | None = None) -> str:
    """Return a number to three decimals, with its interval; a dash for None."""
    if value is None:
        return "–"
    ends = f"<br><small>[{interval[0]:.3f}, {interval[1]:.3f}]</small>" if interval else ""
    return f"{value:.3f}".replace("-", "−") + ends


def amount(value: float, unit: str) -> str:
    """Return a dose with its unit, in three digits; small molarities get a prefix: 323 pM."""
    if unit == "M" and 0 < value < 0.1:
        prefix, scale = next((p for p in _MOLAR if value >= p[1]), _MOLAR[-1])
        return f"{short(value / scale)} {prefix}M"
    return f"{short(value)} {unit}".rstrip()


def facts(found: Mapping[str, object]) -> str:
    """Return a table of names and values; empty ones are left out."""
    rows = "".join(
        f"<tr><th scope=row>{escape(str(name))}<td><code>{escape(str(value))}</code>"
        for name, value in found.items()
        if value != ""
    )
    return f"<table class=facts>{rows}</table>" if rows else "<p>None.</p>"
