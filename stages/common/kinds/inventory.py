"""What a reader makes of a folder: one frozen table of pictures, whatever microscope wrote it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from common import spelling
from common.errors import StageError

_MICROMETRES = {
    "m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "meter": 1e6,
    "centimeter": 1e4, "millimeter": 1e3, "micrometer": 1.0, "nanometer": 1e-3,
}  # fmt: skip
MOST_DOCUMENT = 16 << 20  # bytes of a document that is read whole


@dataclass(frozen=True)
class Folder:
    """A folder to be read: its files, sorted, and the layout's pattern, which may be empty."""

    path: Path
    files: Sequence[Path]
    pattern: str = ""

    def shown(self, path: Path) -> str:
        """Return a file's name within the folder for a message."""
        return spelling.shown(path.relative_to(self.path).as_posix())


@dataclass(frozen=True, slots=True)
class Plane:
    """One picture as the microscope took it. Rows and columns count from 1.

    `site`, `channel`, `z` and `t` are as the microscope names them. `picture` is None where the
    file holds one picture, its number from 0 in a TIFF file of several, and in a Zarr array (whose
    folder is `path`) the place of the picture on the axes before y and x.
    """

    row: int
    column: int
    site: str
    channel: str
    z: int
    t: int
    path: Path
    picture: int | tuple[int, ...] | None = None


@dataclass(frozen=True)
class Inventory:
    """All pictures of a folder, and what its documents say of them.

    `channels` is channel -> the name that the microscope gives it, which may be empty. `documents`
    are the files that say which picture is which. `unused` are image files that the reader passes
    over. `pixel_size` is a pixel's width in µm, None where the documents do not give one for all.
    `problems` make the plate unusable, `notes` are worth reading.
    """

    planes: tuple[Plane, ...]
    channels: Mapping[str, str] = field(default_factory=dict)
    documents: tuple[Path, ...] = ()
    unused: tuple[Path, ...] = ()
    size: tuple[int, int] | None = None
    bits: int | None = None
    rows: int | None = None
    columns: int | None = None
    pixel_size: float | None = None
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def named_file(base: Path, name: str, document: str) -> Path:
    """Return the file that a plate's document names, relative to `base`.

    Microscopes run Windows: `\\` is a folder's end. Raises StageError for a name that leads out of
    the plate's folder.
    """
    given = name.strip().replace("\\", "/")
    parts = PurePosixPath(given).parts
    if not parts or given.startswith("/") or ":" in parts[0] or ".." in parts or "\0" in given:
        raise StageError(
            f"{document} names the file {spelling.shown(name)!r}, which is not within the plate's "
            "folder; export the plate again with its images in one folder"
        )
    return base.joinpath(*parts)


def read_document(path: Path, name: str) -> bytes:
    """Return a document's bytes. Raises StageError where it cannot be read or is too large."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_DOCUMENT + 1)
    except OSError as error:
        raise StageError(f"cannot read {name}: {error.strerror or error}") from None
    if len(data) > MOST_DOCUMENT:
        raise StageError(
            f"{name} has more than {MOST_DOCUMENT >> 20} MiB; it is no plate's document"
        )
    return data


def micrometres(size: str | float | None, unit: str | None) -> float | None:
    """Return a pixel's size in µm; None for what is no length above 0 in a unit that is known."""
    try:
        found = float("nan" if size is None else size) * _MICROMETRES.get(unit or "", math.nan)
    except ValueError:
        return None
    return float(f"{found:.9g}") if 0 < found < math.inf else None


def one_size(sizes: Iterable[float | None]) -> float | None:
    """Return the pixel size that all images have; None where one has none or another."""
    found = set(sizes)
    return found.pop() if len(found) == 1 else None


def some(listed: list[str], most: int) -> str:
    """Return a list's first entries for a message, and how many more there are."""
    more = "" if len(listed) <= most else f" and {len(listed) - most} more"
    return f"{', '.join(listed[:most])}{more}"
