"""The kinds of folders that plates come in: a reader for each turns one into the same table.

A reader tells by which signs it knows a folder, and reads it into an `inventory.Inventory`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.kinds import cellvoyager, harmony, imagexpress, names, ome_tiff, ome_zarr
from common.kinds.inventory import Folder, Inventory, Plane


@dataclass(frozen=True)
class Kind:
    """A kind of folder: `signs` says why a folder is one or nothing, `read` makes its inventory."""

    title: str
    signs: Callable[[Folder], str]
    read: Callable[[Folder], Inventory]


NAMES = "names"
WITH_PATTERN = (NAMES, "ome-tiff")  # the others take no pattern
KINDS = {
    name: Kind(module.TITLE, module.signs, module.read)
    for name, module in {
        "ome-zarr": ome_zarr,
        "harmony": harmony,
        "cellvoyager": cellvoyager,
        "imagexpress": imagexpress,
        "ome-tiff": ome_tiff,
        NAMES: names,
    }.items()
}


def recognised(folder: Folder) -> dict[str, str]:
    """Return the kinds that a folder could be, the most telling first, and why."""
    found = {name: kind.signs(folder) for name, kind in KINDS.items()}
    return {name: why for name, why in found.items() if why}


def files_of(plane: Plane, name: str) -> list[Path]:
    """Return the files that a picture is in. Raises StageError, naming it, for an unclear array."""
    if isinstance(plane.picture, tuple):
        array = ome_zarr.description(plane.path, name)
        return ome_zarr.chunk_files(plane.path, plane.picture, array)
    return [plane.path]
