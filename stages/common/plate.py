"""Finds a plate's image files and matches them with a layout. Standard library only."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from . import digest, spelling
from .errors import StageError
from .layout import MEANINGS, Layout, well_name

MOST_ENTRIES = 100_000  # a 384-well plate of 2 channels and 9 fields has 6,912 files
MOST_DEPTH = 4
_SUFFIXES = {
    *(".bmp", ".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".j2k", ".jxr", ".wdp", ".gif"),
    *(".webp", ".stk", ".flex", ".czi", ".nd2", ".lif", ".c01", ".dib"),
}


@dataclass(frozen=True)
class Place:
    """Which picture of the plate: well, field, and the channel's meaning (signal or dna).

    Fields count from 0 in the order of the plate's own field numbers: of sites 2 and 5, 2 is 0.
    """

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
        return spelling.composed(path.relative_to(self.folder).as_posix())

    def shown(self, path: Path) -> str:
        """Return a file's name within the plate for a message."""
        return spelling.shown(path.relative_to(self.folder).as_posix())


@dataclass(frozen=True)
class _Named:
    """What a file's name says; `site` is the field as it is written there."""

    well: str
    site: str
    meaning: str
    path: Path


def files_below(folder: Path) -> list[Path]:
    """Return the files below `folder`, sorted; links to folders are not followed.

    Raises StageError where the folder is missing, unreadable, or too large to be a plate.
    """
    if not folder.is_dir():
        raise StageError("the plate's folder does not exist or is no folder; check its path")
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
                            f"the plate's folder holds more than {MOST_ENTRIES:,} entries; "
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
            inside = spelling.shown(current.relative_to(folder).as_posix())
            raise StageError(
                f"cannot list the plate's folder {inside}: {error.strerror}; check its rights"
            ) from None
    return sorted(found)


def digest_of(plate: Plate) -> str:
    """Return the digest of a plate: its images' names and contents, nothing else.

    Raises StageError for a file that cannot be read.
    """
    paths = list(plate.images.values())
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        hashes = pool.map(digest.file_sha256, paths)
        return digest.of_hashes(dict(zip(map(plate.relative, paths), hashes, strict=True)))


def match(folder: Path, layout: Layout) -> Plate:
    """Return which file of `folder` is which picture of the plate, and what does not fit."""
    plate = Plate(folder)
    pattern = re.compile(layout.pattern, re.IGNORECASE)
    unknown: list[Path] = []
    named: list[_Named] = []
    for path in files_below(folder):
        found = pattern.fullmatch(spelling.composed(path.name))
        picture = None if found is None else _named(found.groupdict(), layout, path)
        if picture is not None:
            named.append(picture)
        elif found is not None or (path.suffix.lower() in _SUFFIXES and not path.is_dir()):
            unknown.append(path)
    ranks = {site: rank for rank, site in enumerate(sorted({n.site for n in named}, key=_order))}
    for one in named:
        _put(plate, Place(one.well, ranks[one.site], one.meaning), one.path)
    if unknown:
        files = "1 image file fits" if len(unknown) == 1 else f"{len(unknown)} image files fit"
        listed = _some([plate.shown(path) for path in unknown], 3)
        plate.notes.append(f"{files} no well of the layout: {listed}")
    if not named:
        plate.problems.append(_nothing(plate, layout, unknown))
    elif len(ranks) != layout.fields:
        plate.problems.append(_sites(named, layout))
    if named:
        plate.problems += _missing(plate, layout, list(ranks))
    return plate


def _named(groups: Mapping[str, str | None], layout: Layout, path: Path) -> _Named | None:
    """Return what the groups of a file's name say, or None for no well or channel of the layout."""
    row, column, channel = (groups[name] or "" for name in ("row", "column", "channel"))
    known = spelling.channel(channel, layout.channels)
    if row.isdecimal() and 1 <= int(row) <= len(string.ascii_uppercase):
        row = string.ascii_uppercase[int(row) - 1]
    if known is None or not column.isdecimal():
        return None
    well = well_name(row.upper(), int(column))
    if well not in layout.wells:
        return None
    site = groups.get("field") or ""
    return _Named(well, str(int(site)) if site.isdecimal() else site, layout.channels[known], path)


def _order(site: str) -> tuple[bool, int, str]:
    """Sort sites as numbers where they are numbers."""
    return (not site.isdecimal(), int(site) if site.isdecimal() else 0, site)


def _put(plate: Plate, place: Place, path: Path) -> None:
    if not spelling.is_utf8(str(path.relative_to(plate.folder))):
        plate.problems.append(f"the name {plate.shown(path)} is not UTF-8; rename the file")
    elif place in plate.images:
        plate.problems.append(
            f"well {place.well} has two {place.meaning} images: "
            f"{plate.shown(plate.images[place])} and {plate.shown(path)}; remove one, or let "
            "files.pattern fit one only"
        )
    elif not path.is_file():
        plate.problems.append(
            f"{plate.shown(path)} is a link that leads nowhere or in a loop; replace it"
        )
    else:
        plate.images[place] = path


def _some(listed: list[str], most: int) -> str:
    more = "" if len(listed) <= most else f" and {len(listed) - most} more"
    return f"{', '.join(listed[:most])}{more}"


def _nothing(plate: Plate, layout: Layout, unknown: list[Path]) -> str:
    pattern = re.compile(layout.pattern, re.IGNORECASE)
    fitting = [p for p in unknown if pattern.fullmatch(spelling.composed(p.name))]
    if fitting:
        return (
            f"the names fit files.pattern of the layout {layout.name}, but none is a well and a "
            f"channel of it ({_some([plate.shown(path) for path in fitting], 3)}); its channels "
            f"are {' and '.join(layout.channels)}: correct [channels] or [[wells]]"
        )
    return (
        f"the folder holds no image whose name fits the layout {layout.name} ({layout.pattern}); "
        "check the folder and the layout's name. `invoke check-plate FOLDER` says which known "
        "layouts fit"
    )


def _sites(named: list[_Named], layout: Layout) -> str:
    """Say why the fields that the names have are not as many as the layout's."""
    wells: dict[str, set[str]] = {}
    for one in named:
        wells.setdefault(one.site, set()).add(one.well)
    whole = set.union(*wells.values())
    listed = [site or "none" for site in sorted(wells, key=_order)]
    found = f"the names have {'1 field' if len(wells) == 1 else f'{len(wells)} fields'}"
    found += f" ({_some(listed, 8)}), the layout says {layout.fields}; "
    rare = [site for site in sorted(wells, key=_order) if wells[site] != whole]
    if not rare:
        return found + f"set files.fields = {len(wells)} in the layout"
    lacking = [f"{site} is in {len(wells[site])} of {len(whole)} wells" for site in rare]
    return found + f"every well needs the same ones: {_some(lacking, 4)}"


def _missing(plate: Plate, layout: Layout, sites: list[str]) -> list[str]:
    problems = []
    gone = []
    for name in layout.wells:
        lacking = [
            f"{meaning} image" + (f" of field {site}" if len(sites) > 1 else "")
            for rank, site in enumerate(sites)
            for meaning in MEANINGS
            if Place(name, rank, meaning) not in plate.images
        ]
        if len(lacking) == len(MEANINGS) * len(sites):
            gone.append(name)
        elif lacking:
            problems.append(f"well {name} lacks its {' and its '.join(lacking)}")
    if gone:
        problems.append(
            f"no image of well {_some(gone, 8)}; copy them, or take the wells out of the layout"
        )
    return problems


def check(plate: Plate) -> None:
    """Raise one StageError with all of the plate's problems, if there are any."""
    if plate.problems:
        shown = plate.problems[:10]
        if len(plate.problems) > 10:
            shown.append(f"… and {len(plate.problems) - 10} more")
        raise StageError(
            "the plate cannot be used: " + "; ".join(shown) + ". See it with `invoke check-plate`."
        )


def plate_digest(folder: Path, layout: Layout) -> str:
    """Return the digest of the plate's images: sha256 over sorted names and contents."""
    plate = match(folder, layout)
    check(plate)
    return digest.of_hashes(
        {plate.relative(path): digest.file_sha256(path) for path in plate.images.values()}
    )
