"""Finds a plate's image files and matches them with a layout. Standard library only."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from . import digest
from .errors import StageError
from .layout import Layout, well_name

MOST_ENTRIES = 100_000  # a 384-well plate of 2 channels and 9 fields has 6,912 files
MOST_DEPTH = 4
_SUFFIXES = (".bmp", ".tif", ".tiff", ".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Place:
    """Which picture of the plate: well, field, and the channel's meaning (signal or dna)."""

    well: str
    field: int
    meaning: str


@dataclass
class Plate:
    """A folder matched with a layout. `problems` make it unusable, `notes` are worth reading."""

    folder: Path
    images: dict[Place, Path] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def relative(self, path: Path) -> str:
        """Return a file's name within the plate, as it goes into the plate's digest."""
        return unicodedata.normalize("NFC", path.relative_to(self.folder).as_posix())


def files_below(folder: Path) -> list[Path]:
    """Return the files below `folder`, sorted; links to folders are not followed.

    Raises StageError where the folder is missing, unreadable, or too large to be a plate.
    """
    if not folder.is_dir():
        raise StageError(f"the plate folder {folder} does not exist or is no folder")
    found: list[Path] = []
    waiting = [(folder, 0)]
    seen = 0
    while waiting:
        current, depth = waiting.pop()
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    seen += 1
                    if seen > MOST_ENTRIES:
                        raise StageError(
                            f"{folder} holds more than {MOST_ENTRIES:,} entries; "
                            "give the folder of one plate"
                        )
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        if depth < MOST_DEPTH:
                            waiting.append((Path(entry.path), depth + 1))
                    elif entry.is_symlink() or entry.is_file(follow_symlinks=False):
                        found.append(Path(entry.path))
        except OSError as error:
            raise StageError(f"cannot list {current}: {error.strerror}") from None
    return sorted(found)


def match(folder: Path, layout: Layout) -> Plate:
    """Return which file of `folder` is which picture of the plate, and what does not fit."""
    plate = Plate(folder)
    pattern = re.compile(layout.pattern, re.IGNORECASE)
    first_field: int | None = None
    unknown = []
    named: list[tuple[str, int, str, Path]] = []
    for path in files_below(folder):
        found = pattern.fullmatch(unicodedata.normalize("NFC", path.name))
        if found is None:
            if path.suffix.lower() in _SUFFIXES and not path.is_dir():
                unknown.append(plate.relative(path))
            continue
        groups = found.groupdict()
        name = well_name(groups["row"].upper(), int(groups["column"]))
        channel = groups["channel"]
        if channel not in layout.channels:
            unknown.append(plate.relative(path))
            continue
        number = int(groups.get("field") or 0)
        first_field = number if first_field is None else min(first_field, number)
        named.append((name, number, layout.channels[channel], path))
    for name, number, meaning, path in named:
        place = Place(name, number - (first_field or 0), meaning)
        if name not in layout.wells:
            unknown.append(plate.relative(path))
        elif place in plate.images:
            plate.problems.append(
                f"well {name} has two {meaning} images: {plate.relative(plate.images[place])} "
                f"and {plate.relative(path)}; remove one"
            )
        elif not path.is_file():
            plate.problems.append(
                f"{plate.relative(path)} is a link that leads nowhere or in a loop; replace it"
            )
        else:
            plate.images[place] = path
    if unknown:
        more = "" if len(unknown) <= 3 else f" and {len(unknown) - 3} more"
        files = "1 image file fits" if len(unknown) == 1 else f"{len(unknown)} image files fit"
        plate.notes.append(f"{files} no well of the layout: {', '.join(unknown[:3])}{more}")
    if not named:
        plate.problems.append(
            f"{folder} holds no image whose name fits the layout {layout.name} "
            f"({layout.pattern}); check the folder and the layout's name"
        )
    else:
        plate.problems += _missing(plate, layout)
    return plate


def _missing(plate: Plate, layout: Layout) -> list[str]:
    problems = []
    gone = []
    for name in layout.wells:
        lacking = [
            f"{meaning} image" + (f" of field {number + 1}" if layout.fields > 1 else "")
            for number in range(layout.fields)
            for meaning in ("signal", "dna")
            if Place(name, number, meaning) not in plate.images
        ]
        if len(lacking) == 2 * layout.fields:
            gone.append(name)
        elif lacking:
            problems.append(f"well {name} lacks its {' and its '.join(lacking)}")
    extra = sorted({place.field for place in plate.images if place.field >= layout.fields})
    if extra:
        problems.append(
            f"there are {max(extra) + 1} fields a well where the layout says {layout.fields}; "
            "set files.fields in the layout"
        )
    if gone:
        more = "" if len(gone) <= 8 else f" and {len(gone) - 8} more"
        problems.append(f"no image of well {', '.join(gone[:8])}{more}")
    return problems


def check(plate: Plate) -> None:
    """Raise one StageError with all of the plate's problems, if there are any."""
    if plate.problems:
        shown = plate.problems[:10]
        if len(plate.problems) > 10:
            shown.append(f"… and {len(plate.problems) - 10} more")
        raise StageError(
            f"the plate {plate.folder} cannot be used: "
            + "; ".join(shown)
            + ". See it with `invoke check-plate`."
        )


def plate_digest(folder: Path, layout: Layout) -> str:
    """Return the digest of the plate's images: sha256 over sorted names and contents."""
    plate = match(folder, layout)
    check(plate)
    return digest.of_hashes(
        {plate.relative(path): digest.file_sha256(path) for path in plate.images.values()}
    )
