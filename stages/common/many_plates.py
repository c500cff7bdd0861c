"""The tiles of many plates as one: plates.json names the folders on the workspace, copies nothing.

    <workspace>/plates/<plate>/  state.json, and a tiles folder as `common.tiles` describes
    <artifact>/plates.json       which of them are used, their folds, and which plates are broken

A well is called <plate>/<well>, and its fold is the one in which its plate, or its half, is held
out. Memory grows with the tiles' index only: pictures are read when they are asked for.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import digest
from .errors import StageError
from .tiles import Tile, Tiles, read_index, read_tiles
from .workspace import workspace_root

FORMAT = 1
FOLDER, DOCUMENT, STATE = "plates", "plates.json", "state.json"


class Stack:
    """The tiles.npy of several folders as one array: a row is looked for in the file it is in.

    A file's sha256 is compared when it is opened for the first time.
    """

    def __init__(self, files: Sequence[tuple[Path, str, int]]) -> None:
        """Take (file, sha256, number of tiles) of each."""
        self._files = files
        self._ends = np.cumsum([count for _, _, count in files])
        self._starts: dict[int, int] = {}  # of the tiles in each file that was checked
        self._lock = Lock()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, rows: Any, /) -> NDArray[np.uint8]:
        """Return a copy of the tile `rows` [256, 256, 3], or of several [n, 256, 256, 3]."""
        if isinstance(rows, int | np.integer):
            found: NDArray[np.uint8] = self[[int(rows)]][0]
            return found
        wanted = range(len(self))[rows] if isinstance(rows, slice) else rows
        places = np.asarray(wanted, dtype=np.int64)
        parts = np.searchsorted(self._ends, places, side="right")
        made = np.empty((len(places), 256, 256, 3), np.uint8)
        for part in np.unique(parts):
            chosen = parts == part
            start = int(self._ends[part]) - self._files[part][2]
            made[chosen] = self._read(int(part), places[chosen] - start)
        return made

    def _read(self, part: int, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return these rows of a file; it is read, as mapped files would add up in memory."""
        path, _, _ = self._files[part]
        found = np.empty((len(rows), 256, 256, 3), np.uint8)
        try:
            start = self._start(part)
            with path.open("rb", buffering=0) as file:
                for place, row in enumerate(rows):
                    file.seek(start + int(row) * found[place].nbytes)
                    if file.readinto(found[place].data.cast("B")) != found[place].nbytes:
                        raise ValueError("it ends too early")
        except (OSError, ValueError) as error:
            raise StageError(f"cannot read {path} ({error}); {_AGAIN}") from None
        return found

    def _start(self, part: int) -> int:
        path, sha256, count = self._files[part]
        with self._lock:
            if part not in self._starts:
                if digest.file_sha256(path) != sha256:
                    raise StageError(f"{path} was changed or is damaged; {_AGAIN}")
                array = np.load(path, mmap_mode="r", allow_pickle=False)
                if array.dtype != np.uint8 or array.shape != (count, 256, 256, 3):
                    raise StageError(f"{path} is {array.dtype} {array.shape}; {_AGAIN}")
                self._starts[part] = array.offset
            return self._starts[part]


_AGAIN = "run again, which makes what the workspace lacks"


def read(folder: Path) -> Tiles:
    """Return the tiles in an artifact's folder, of one plate or of many.

    Raises StageError where a file is missing, was changed, or does not fit the others.
    """
    if not (folder / DOCUMENT).is_file():
        return read_tiles(folder)
    try:
        document = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise StageError(f"{folder} has format {document['format']!r}, not {FORMAT}")
        index: list[Tile] = []
        files = []
        for entry in document["plates"]:
            rows, file = _read_plate(document["workspace"], entry)
            files.append(file)
            index += rows
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageError(f"cannot read the plates in {folder}: {error!r}; {_AGAIN}") from None
    return Tiles(folder, Stack(files), tuple(index), document, DOCUMENT)


def _read_plate(
    workspace: str, entry: Mapping[str, Any]
) -> tuple[list[Tile], tuple[Path, str, int]]:
    name = entry["plate"]
    folder = folder_of(workspace, name)
    if not (folder / "plate.json").is_file():
        raise StageError(f"the workspace has no tiles of plate {name} ({folder}); {_AGAIN}")
    if digest.folder_digest(folder / "plate.json") != entry["digest"]:
        raise StageError(f"the tiles of plate {name} in {folder} are others now; {_AGAIN}")
    files = json.loads((folder / "plate.json").read_text(encoding="utf-8"))["files"]
    if digest.file_sha256(folder / "tiles.csv") != files["tiles.csv"]:
        raise StageError(f"{folder / 'tiles.csv'} was changed; {_AGAIN}")
    index = [
        replace(
            tile, well=sys.intern(f"{name}/{tile.well}"), row=sys.intern(tile.row),
            fold=sys.intern(entry["fold"] or tile.fold), compound=sys.intern(tile.compound),
            unit=sys.intern(tile.unit), role=sys.intern(tile.role), flags=sys.intern(tile.flags),
        )
        for tile in read_index(folder / "tiles.csv")
    ]  # fmt: skip
    return index, (folder / "tiles.npy", files["tiles.npy"], len(index))


def folder_of(workspace: str, plate: str) -> Path:
    """Return where the workspace holds a plate's tiles. Raises StageError without a workspace."""
    root = workspace_root()
    if not workspace or not root.is_dir():
        raise StageError(
            "a run over many plates keeps their tiles on the workspace: "
            + ("set workspace_name" if not workspace else f"nothing is mounted at {root}")
        )
    return root / workspace / FOLDER / plate


def plate_of(well: str) -> str:
    """Return the plate in the name of a well of many plates; empty in that of one plate's."""
    return well.rpartition("/")[0]
