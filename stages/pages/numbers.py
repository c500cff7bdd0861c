"""Numbers as the report says them."""

from __future__ import annotations

_MOLAR = (("m", 1e-3), ("µ", 1e-6), ("n", 1e-9), ("p", 1e-12), ("f", 1e-15))


def short(value: float) -> str:
    """Return a number in three significant digits, with a true minus: 1190, 0.047, 3.2e−10."""
    text = f"{value:.3g}"
    if 1e-3 <= abs(value) < 1e6:
        text = f"{float(text):g}" if abs(value) < 1e5 else f"{float(text):.0f}"
    return text.replace("e-0", "e-").replace("e+0", "e").replace("-", "−")


def decimals(value: float | None) -> str:
    """Return a number to three decimals, with a true minus; a dash for None."""
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def amount(value: float, unit: str) -> str:
    """Return a dose with its unit, in three digits; small molarities get a prefix: 323 pM."""
    if unit == "M" and 0 < value < 0.1:
        prefix, scale = next((p for p in _MOLAR if value >= p[1]), _MOLAR[-1])
        return f"{short(value / scale)} {prefix}M"
    return f"{short(value)} {unit}".rstrip()
