"""The `tiles` artifact: tiles.npy, tiles.csv and plate.json in one folder.

Or problem.json alone, where the plate of a list could not be used.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from . import digest
from .errors import StageError

FORMAT = 1
PROBLEM = "problem.json"
CLASSES = ("negative", "positive")


@dataclass(frozen=True, slots=True)
class Tile:
    """One line of tiles.csv. `field`, `y`, `x` count from 0; `y` and `x` are in tiles."""

    well: str
    row: str
    column: int
    field: int
    y: int
    x: int
    compound: str
    dose: float | None
    unit: str
    role: str
    fold: str
    label: int | None
    flags: str


COLUMNS = tuple(f.name for f in fields(Tile))


class TileArray(Protocol):
    """Tiles [n, 256, 256, 3] of which some are asked for by number: an array, or like one."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> NDArray[np.uint8]: ...


@dataclass(frozen=True)
class Tiles:
    """A tiles folder that was read: `array` is uint8 [n, 256, 256, 3], memory-mapped.

    `plate` is its document, plate.json or, of many plates, plates.json (`common.many_plates`).
    """

    folder: Path
    array: TileArray
    index: tuple[Tile, ...]
    plate: Mapping[str, Any]
    document: str = "plate.json"

    @property
    def folds(self) -> list[str]:
        """The names of the folds, in the layout's order."""
        return list(self.plate["folds"])

    @property
    def digest(self) -> str:
        """The digest of the document, which names all other files: what prepare hands on."""
        return digest.folder_digest(self.folder / self.document)

    @property
    def sha256(self) -> str:
        """What tells these tiles from others: the sha256 of tiles.npy, or that of all plates'."""
        return str(self.plate["files"]["tiles.npy"])


def write_index(path: Path, index: Iterable[Tile]) -> None:
    """Write tiles.csv."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for tile in index:
            values = [getattr(tile, name) for name in COLUMNS]
            writer.writerow(["" if value is None else value for value in values])


def read_index(path: Path) -> tuple[Tile, ...]:
    """Return the lines of tiles.csv."""
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(
            Tile(
                well=line["well"],
                row=line["row"],
                column=int(line["column"]),
                field=int(line["field"]),
                y=int(line["y"]),
                x=int(line["x"]),
                compound=line["compound"],
                dose=float(line["dose"]) if line["dose"] else None,
                unit=line["unit"],
                role=line["role"],
                fold=line["fold"],
                label=int(line["label"]) if line["label"] else None,
                flags=line["flags"],
            )
            for line in csv.DictReader(file)
        )


def write_plate(folder: Path, document: Mapping[str, Any]) -> None:
    """Write plate.json, with the hashes of the two other files unless `files` holds them."""
    known = dict(document.get("files", {}))
    for name in ("tiles.npy", "tiles.csv"):
        known.setdefault(name, digest.file_sha256(folder / name))
    text = json.dumps({"format": FORMAT, **document, "files": known}, indent=1, ensure_ascii=False)
    (folder / "plate.json").write_text(text + "\n", encoding="utf-8")


def write_problem(folder: Path, problem: str) -> None:
    """Write, in the place of tiles, why there are none. Raises StageError where it cannot be."""
    try:
        folder.mkdir(parents=True)
        text = json.dumps({"format": FORMAT, "problem": problem}, ensure_ascii=False)
        (folder / PROBLEM).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise StageError(f"cannot write {folder}: {error.strerror or error}; make room") from None


def read_problem(folder: Path) -> str:
    """Return why a folder holds no tiles; empty where it should. Raises StageError if damaged."""
    if not (folder / PROBLEM).exists():
        return ""
    try:
        return str(json.loads((folder / PROBLEM).read_text(encoding="utf-8"))["problem"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageError(f"cannot read {folder / PROBLEM}: {error!r}; run prepare again") from None


def read_tiles(folder: Path, *, check: bool = True) -> Tiles:
    """Return what the `tiles` folder holds; with `check` its files' hashes are compared first.

    Raises StageError where a file is missing, was changed, or does not fit the others.
    """
    try:
        plate = json.loads((folder / "plate.json").read_text(encoding="utf-8"))
        if plate.get("format") != FORMAT:
            raise StageError(f"{folder} has format {plate.get('format')!r}, not {FORMAT}")
        for name, expected in plate["files"].items() if check else ():
            found = digest.file_sha256(folder / name)
            if found != expected:
                raise StageError(
                    f"{folder / name} has sha256 {found}, plate.json says {expected}; "
                    "run prepare again"
                )
        array = np.load(folder / "tiles.npy", mmap_mode="r", allow_pickle=False)
        index = read_index(folder / "tiles.csv")
    except (OSError, ValueError, KeyError) as error:
        raise StageError(f"cannot read the tiles in {folder}: {error}; run prepare again") from None
    if array.dtype != np.uint8 or array.shape != (len(index), 256, 256, 3):
        raise StageError(
            f"{folder}/tiles.npy is {array.dtype} {array.shape}, tiles.csv has {len(index)} lines"
        )
    return Tiles(folder, array, index, plate)
