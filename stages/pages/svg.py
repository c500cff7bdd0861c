"""The one way to begin and end a chart."""

from __future__ import annotations

from html import escape


def svg(width: float, height: float, inside: str, label: str, kind: str) -> str:
    """Return a chart of the class `kind`; `inside` is markup, `label` says what is to be seen."""
    return (
        f"<svg class='{kind}' viewBox='0 0 {width:g} {height:g}' role='img' "
        f"aria-label='{escape(label)}'>{inside}</svg>"
    )
