"""summary.html: the plate as one montage, its layout, its flagged wells. No outside asset."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from common.layout import Layout
from common.wells import row_name
from PIL import Image

from prepare.cutting import Field

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:1rem auto;padding:0 1rem}"
    "img{width:100%;image-rendering:pixelated;background:#000}td,th{padding:.1rem .8rem .1rem 0;"
    "text-align:left}code{overflow-wrap:anywhere}"
)


def montage(layout: Layout, fields: Sequence[Field]) -> Image.Image:
    """Return each well's first field side by side: signal green, DNA magenta, one scale a plate.

    Green and magenta stay apart without red-green vision.
    """
    first = {field.well: field.thumbnail for field in reversed(fields)}
    height, width, _ = next(iter(first.values())).shape
    stack = np.stack(list(first.values()))
    low = np.percentile(stack, 1, axis=(0, 1, 2))
    high = np.maximum(np.percentile(stack, 99.8, axis=(0, 1, 2)), low + 1)
    sheet = np.zeros((layout.rows * (height + 2), layout.columns * (width + 2), 3), np.uint8)
    rows = [row_name(number) for number in range(1, layout.rows + 1)]
    for name, thumbnail in first.items():
        well = layout.wells[name]
        y = rows.index(well.row) * (height + 2)
        x = (well.column - 1) * (width + 2)
        shown = np.clip((thumbnail - low) / (high - low), 0, 1) * 255
        sheet[y : y + height, x : x + width] = shown[..., [1, 0, 1]].astype(np.uint8)
    return Image.fromarray(sheet)


def summary_html(layout: Layout, document: Mapping[str, Any], fields: Sequence[Field]) -> str:
    """Return the summary page of a prepared plate."""
    stream = io.BytesIO()
    montage(layout, fields).save(stream, "PNG")
    picture = base64.b64encode(stream.getvalue()).decode()
    flagged = [well for well in document["wells"] if well["flags"]]
    lines = "".join(
        f"<tr><td>{well['well']}<td>{html.escape(well['flags'].replace('_', ' '))}"
        for well in flagged
    )
    table = (
        f"<table><tr><th>Well<th>Flags{lines}</table>" if flagged else "<p>No well is flagged.</p>"
    )
    roles = {
        role: sum(w["role"] == role for w in document["wells"])
        for role in ("positive", "negative", "sample", "empty")
    }
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>{html.escape(layout.title)}</title><style>{_STYLE}</style>"
        f"<h1>{html.escape(layout.title)}</h1>"
        f"<p>{len(document['wells'])} wells: "
        + ", ".join(f"{count} {role}" for role, count in roles.items())
        + f". Folds {', '.join(map(html.escape, document['folds']))}.</p>"
        f"<p>{html.escape(layout.source)}</p>"
        f"<img alt='All wells; signal green, DNA magenta' src='data:image/png;base64,{picture}'>"
        f"<h2>Flagged wells</h2>{table}"
        f"<p>Plate digest <code>{document['plate_digest']}</code></p></html>\n"
    )
