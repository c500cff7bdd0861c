"""Plates whose files' names say everything: a layout's pattern reads them."""

from __future__ import annotations

import re
from pathlib import Path

from common import spelling
from common.kinds.inventory import Folder, Inventory, Plane
from common.wells import row_number

TITLE = "images by their names"
SUFFIXES = {
    *(".bmp", ".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".j2k", ".jxr", ".wdp", ".gif"),
    *(".webp", ".stk", ".flex", ".czi", ".nd2", ".lif", ".c01", ".dib"),
}


def signs(_: Folder) -> str:
    """Return nothing: only a layout's pattern can tell."""
    return ""


def read(folder: Folder) -> Inventory:
    """Return the pictures whose names fit the layout's pattern, one a file."""
    compiled = re.compile(folder.pattern, re.IGNORECASE)
    planes: list[Plane] = []
    unused: list[Path] = []
    for path in folder.files:
        found = compiled.fullmatch(spelling.composed(path.name))
        groups = {} if found is None else found.groupdict()
        plane = None if found is None else plane_of(groups, path)
        if plane is not None:
            planes.append(plane)
        elif found is not None or (path.suffix.lower() in SUFFIXES and not path.is_dir()):
            unused.append(path)
    return Inventory(
        tuple(planes), dict.fromkeys((p.channel for p in planes), ""), (), tuple(unused)
    )


def plane_of(groups: dict[str, str | None], path: Path) -> Plane | None:
    """Return the picture that a pattern's groups name, or None where they name no well."""
    row, column, site, channel, z, t = (
        groups.get(name) or "" for name in ("row", "column", "field", "channel", "z", "time")
    )
    number = row_number(row)
    if number is None or not (column.isdecimal() and 0 < int(column[:9]) < 100):
        return None
    if any(text and not text.isdecimal() for text in (z, t)):
        return None
    return Plane(
        row=number,
        column=int(column[:9]),
        site=str(int(site)) if site.isdecimal() else site,
        channel=channel,
        z=int(z or 0),
        t=int(t or 0),
        path=path,
    )
