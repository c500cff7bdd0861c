"""The beginning of a layout for a folder that has none: what the folder itself can say."""

from __future__ import annotations

from pathlib import Path

from . import kinds
from .errors import StageError
from .kinds.inventory import Folder
from .plate import files_below
from .wells import row_name

_PLATES = ((8, 12), (16, 24), (32, 48))


def begin(folder: Path, kind: str) -> tuple[str, str]:
    """Return the text of an unfinished layout for a folder of that kind, and what is left to do.

    The text is empty where the folder cannot be read; then the second says why.
    """
    try:
        found = kinds.KINDS[kind].read(Folder(folder, files_below(folder)))
    except StageError as error:
        return "", str(error)
    if not found.planes:
        return "", "the folder's documents name no image; check that it was copied whole"
    rows = max(plane.row for plane in found.planes)
    columns = max(plane.column for plane in found.planes)
    usual = next(((r, c) for r, c in _PLATES if rows <= r and columns <= c), (rows, columns))
    size = (found.rows or usual[0], found.columns or usual[1])
    times = sorted({plane.t for plane in found.planes})
    heights = {plane.z for plane in found.planes}
    fields = {plane.site for plane in found.planes}
    half = max(1, size[0] // 2)
    lines = [
        "A layout for it begins so; what is in <> only a person knows:",
        "",
        "format = 1",
        'name = "<a name>"',
        "",
        "[files]",
        f'kind = "{kind}"',
        f"size = {list(found.size)}" if found.size else "size = <[width, height] of the images>",
        _bits(found.bits),
        *([f"fields = {len(fields)}"] if len(fields) > 1 else []),
        *(['projection = "maximum"'] if len(heights) > 1 else []),
        *([f"time = <one of {', '.join(map(str, times[:8]))}>"] if len(times) > 1 else []),
        "",
        "[channels]  # one is the signal, one is dna; leave the others out",
        *(
            f'{channel} = "<signal or dna>"' + (f"  # {' '.join(name.split())}" if name else "")
            for channel, name in found.channels.items()
        ),
        "",
        "[plate]",
        f"rows = {size[0]}",
        f"columns = {size[1]}",
        "",
        "[map]  # or [[wells]]",
        'file = "<the plate map in this folder: well, compound, dose, unit, role>"',
        "",
        "[folds]",
        f'upper = "A-{row_name(half)}"',
        f'lower = "{row_name(min(half + 1, size[0]))}-{row_name(size[0])}"',
    ]
    return "\n".join(lines), (
        f"no layout was given, and none fits; finish the one above ({kind}), save it as a "
        ".toml file and give it with --layout FILE (docs/layouts.md)"
    )


def _bits(found: int | None) -> str:
    if found == 16:
        return "bits = 16  # or what the camera gives, where that is less: 12 or 14"
    return f"bits = {found}" if found else "bits = <8, or what the camera gives, up to 16>"
