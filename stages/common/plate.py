"""Matches a plate's folder with a layout: which pictures are which well, field and channel."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from . import digest, kinds, spelling
from .errors import StageError
from .kinds.inventory import Folder, Inventory, Plane, some
from .layout import MEANINGS, Layout
from .wells import MOST_ROWS, row_name, well_name

MOST_ENTRIES = 1_000_000  # 1,536 wells of 4 fields, 5 channels and 20 planes have 614,400 files
MOST_DEPTH = 4


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
    """A folder matched with a layout. `problems` make it unusable, `notes` are worth reading.

    `images` holds the planes that each picture is made of, in their order; `documents` are the
    files that say which picture is which, and the plate map. `fill_missing` takes a Zarr chunk that
    is not there for its fill value. `lacking` are those of the problems that are wells
    without an image. `pixel_size` is in µm, None where the plate's documents do not say it.
    """

    folder: Path
    images: dict[Place, tuple[Plane, ...]] = field(default_factory=dict)
    documents: tuple[Path, ...] = ()
    fill_missing: bool = False
    pixel_size: float | None = None
    lacking: list[str] = field(default_factory=list)
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
    """A picture that belongs to the layout; `site` is the field as the microscope names it."""

    well: str
    site: str
    meaning: str
    plane: Plane


def files_below(folder: Path) -> list[Path]:
    """Return the files below `folder`, sorted; links to folders are not followed.

    A Zarr group's own folders are left out: their files have no names to read. Raises StageError
    where the folder is missing, unreadable, or too large to be a plate.
    """
    if not folder.is_dir():
        raise StageError("the plate's folder does not exist or is no folder; check its path")
    found: list[Path] = []
    waiting = [(folder, 0)]
    seen = 0
    while waiting:
        current, depth = waiting.pop()
        below: list[tuple[Path, int]] = []
        is_group = False
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    seen += 1
                    if seen > MOST_ENTRIES:
                        raise StageError(
                            f"the plate's folder holds more than {MOST_ENTRIES:,} entries; "
                            "give the folder of one plate"
                        )
                    is_group |= entry.name in {".zgroup", "zarr.json"}
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        if depth < MOST_DEPTH:
                            below.append((Path(entry.path), depth + 1))
                    elif entry.is_symlink() or entry.is_file(follow_symlinks=False):
                        found.append(Path(entry.path))
        except OSError as error:
            inside = spelling.shown(current.relative_to(folder).as_posix())
            raise StageError(
                f"cannot list the plate's folder {inside}: {error.strerror}; check its rights"
            ) from None
        waiting += [] if is_group else below
    return sorted(found)


def match(folder: Path, layout: Layout) -> Plate:
    """Return which pictures of `folder` are which of the plate, and what does not fit.

    Raises StageError for a folder that cannot be listed, and for documents of a microscope that are
    not understood.
    """
    read = kinds.KINDS[layout.kind].read
    inventory = read(Folder(folder, files_below(folder), layout.pattern))
    plate = Plate(
        folder,
        documents=(*inventory.documents, *layout.documents),
        fill_missing=layout.fill_missing,
        pixel_size=inventory.pixel_size,
    )
    plate.notes += inventory.notes
    plate.problems += inventory.problems
    plate.problems += _disagreements(inventory, layout)
    named, unknown = _named(plate, inventory, layout)
    named = _at_one_time(plate, named, layout)
    ranks = {site: rank for rank, site in enumerate(sorted({n.site for n in named}, key=_order))}
    stacks: dict[Place, dict[int, Plane]] = {}
    for one in named:
        place = Place(one.well, ranks[one.site], one.meaning)
        _put(plate, stacks.setdefault(place, {}), place, one.plane)
    _project(plate, stacks, layout)
    if unknown:
        files = "1 image file fits" if len(unknown) == 1 else f"{len(unknown)} image files fit"
        listed = some([plate.shown(path) for path in unknown], 3)
        plate.notes.append(f"{files} no well of the layout: {listed}")
    if not named:
        plate.problems.append(_nothing(plate, inventory, layout))
    elif len(ranks) != layout.fields:
        plate.problems.append(_sites(named, layout))
    if named:
        plate.lacking += _lacking(plate, layout, list(ranks))
        plate.problems += plate.lacking
    return plate


def _disagreements(inventory: Inventory, layout: Layout) -> list[str]:
    """Return where the plate's own documents say something else than the layout."""
    problems = []
    if inventory.size is not None and inventory.planes and inventory.size != layout.size:
        (width, height), (across, down) = inventory.size, layout.size
        problems.append(
            f"the plate's images have {width} x {height} pixels, the layout says "
            f"{across} x {down}; set files.size = [{width}, {height}]"
        )
    if (
        inventory.bits is not None
        and inventory.planes
        # Samples are kept in 16 bits also where the camera gives fewer; each value is checked.
        and (layout.bits < inventory.bits < 16 or (inventory.bits == 8) != (layout.bits == 8))
    ):
        problems.append(
            f"the plate's images have {inventory.bits} bits, the layout says {layout.bits}; set "
            f"files.bits = {inventory.bits}"
        )
    rows, columns = inventory.rows or MOST_ROWS, inventory.columns or 99
    beyond = [p for p in inventory.planes if not (0 < p.row <= rows and 0 < p.column <= columns)]
    if beyond:
        where = f"row {beyond[0].row}, column {beyond[0].column} ({beyond[0].path.name})"
        problems.append(
            f"the plate has {rows} x {columns} wells, and {len(beyond)} images are beyond it, the "
            f"first in {where}; export the plate again"
        )
    return problems


def _named(plate: Plate, inventory: Inventory, layout: Layout) -> tuple[list[_Named], list[Path]]:
    """Return the pictures that belong to the layout, and the image files that fit no well of it.

    Channels and wells that the layout does not name are noted where a document lists them.
    """
    meanings = {channel: _meaning(channel, inventory, layout) for channel in inventory.channels}
    named: list[_Named] = []
    other: list[Path] = []
    wells: set[str] = set()
    for plane in inventory.planes:
        if not 0 < plane.row <= MOST_ROWS:
            continue  # named among the problems
        well = well_name(row_name(plane.row), plane.column)
        meaning = meanings[plane.channel]
        if well in layout.wells and meaning:
            named.append(_Named(well, plane.site, meaning, plane))
            continue
        other.append(plane.path)
        if well not in layout.wells:
            wells.add(well)
    if layout.kind == kinds.NAMES:
        return named, sorted([*inventory.unused, *other])
    left = [
        f"{channel} ({name})" if name else channel
        for channel, name in inventory.channels.items()
        if not meanings[channel]
    ]
    if left:
        plate.notes.append(f"channels that the layout does not name: {some(left, 8)}")
    if wells:
        plate.notes.append(f"wells that the layout does not name: {some(sorted(wells), 8)}")
    return named, list(inventory.unused)


def _meaning(channel: str, inventory: Inventory, layout: Layout) -> str:
    """Return what a channel is to the layout: by its own name there, or by the microscope's."""
    known = spelling.channel(channel, layout.channels)
    label = spelling.plain(inventory.channels[channel])
    by_label = [key for key in layout.channels if label and spelling.plain(key) == label]
    if by_label:
        known = by_label[0]
    return "" if known is None else layout.channels[known]


def _at_one_time(plate: Plate, named: list[_Named], layout: Layout) -> list[_Named]:
    times = sorted({one.plane.t for one in named})
    listed = some([str(t) for t in times], 8)
    if layout.time is None:
        if len(times) > 1:
            plate.problems.append(
                f"the plate has the time points {listed}; choose one with files.time"
            )
        return [one for one in named if one.plane.t == times[0]]
    if named and layout.time not in times:
        plate.problems.append(
            f"files.time is {layout.time}, and the plate has the time points {listed}"
        )
    return [one for one in named if one.plane.t == layout.time]


def _order(site: str) -> tuple[bool, int, str]:
    """Sort sites as numbers where they are numbers."""
    return (not site.isdecimal(), int(site) if site.isdecimal() else 0, site)


def _put(plate: Plate, stack: dict[int, Plane], place: Place, plane: Plane) -> None:
    path = plane.path
    if not spelling.is_utf8(str(path.relative_to(plate.folder))):
        plate.problems.append(f"the name {plate.shown(path)} is not UTF-8; rename the file")
    elif plane.z in stack:
        of = f" of plane {plane.z}" if plane.z > 1 else ""
        plate.problems.append(
            f"well {place.well} has two {place.meaning} images{of}: "
            f"{_where(plate, stack[plane.z])} and {_where(plate, plane)}; remove one, or let "
            "files.pattern fit one only"
        )
    elif not isinstance(plane.picture, tuple) and not path.is_file():
        plate.problems.append(
            f"{plate.shown(path)} is a link that leads nowhere or in a loop; replace it"
            if path.is_symlink()
            else f"{plate.shown(path)} is named by the plate's documents and is not there; copy it"
        )
    else:
        stack[plane.z] = plane


def _where(plate: Plate, plane: Plane) -> str:
    picture = "" if plane.picture is None else f" (picture {plane.picture})"
    return plate.shown(plane.path) + picture


def _project(plate: Plate, stacks: Mapping[Place, Mapping[int, Plane]], layout: Layout) -> None:
    """Put into the plate what each picture is made of: one plane, or all for a projection."""
    for meaning in MEANINGS:
        own = {place: stack for place, stack in stacks.items() if place.meaning == meaning}
        heights = sorted({z for stack in own.values() for z in stack})
        if layout.plane is not None:
            if heights and layout.plane not in heights:
                plate.problems.append(
                    f"files.plane is {layout.plane}, and the {meaning} channel has the planes "
                    f"{some([str(z) for z in heights], 8)}"
                )
            heights = [layout.plane]
        elif len(heights) > 1 and not layout.projection:
            plate.problems.append(
                f"the {meaning} channel has the planes {some([str(z) for z in heights], 8)}; set "
                'files.projection = "maximum", or choose one with files.plane'
            )
        for place, stack in own.items():
            lacking = [str(z) for z in heights if z not in stack]
            if not lacking:
                plate.images[place] = tuple(stack[z] for z in heights)
            elif len(lacking) < len(heights):
                plate.problems.append(
                    f"well {place.well} lacks plane {some(lacking, 4)} of its {meaning} image"
                )
                plate.images[place] = tuple(stack[z] for z in heights if z in stack)


def _nothing(plate: Plate, inventory: Inventory, layout: Layout) -> str:
    if inventory.planes:
        fitting = some([plate.shown(p.path) for p in inventory.planes[:3]], 3)
        if len(inventory.planes) > 3:
            fitting += f" and {len(inventory.planes) - 3} more"
        found = (
            "the names fit files.pattern of" if layout.kind == kinds.NAMES else "the folder fits"
        )
        return (
            f"{found} the layout {layout.name}, but none is a well and a channel of it "
            f"({fitting}); its channels are {' and '.join(layout.channels)}: correct [channels] or "
            "[[wells]]"
        )
    if layout.kind != kinds.NAMES:
        said = f" ({'; '.join(inventory.notes)})" if inventory.notes else ""
        return (
            f"the folder holds no image that its documents ({layout.kind}) name as whole{said}; "
            "check the folder, or files.kind of the layout"
        )
    return (
        f"the folder holds no image whose name fits the layout {layout.name} ({layout.pattern}); "
        "check the folder and the layout's name. `invoke check-plate FOLDER` says which known "
        "layouts fit"
    )


def _sites(named: list[_Named], layout: Layout) -> str:
    """Say why the fields that the plate has are not as many as the layout's."""
    wells: dict[str, set[str]] = {}
    for one in named:
        wells.setdefault(one.site, set()).add(one.well)
    whole = set.union(*wells.values())
    listed = [site or "none" for site in sorted(wells, key=_order)]
    which = "names have" if layout.kind == kinds.NAMES else "plate has"
    found = f"the {which} {'1 field' if len(wells) == 1 else f'{len(wells)} fields'}"
    found += f" ({some(listed, 8)}), the layout says {layout.fields}; "
    rare = [site for site in sorted(wells, key=_order) if wells[site] != whole]
    if not rare:
        return found + f"set files.fields = {len(wells)} in the layout"
    lacking = [f"{site} is in {len(wells[site])} of {len(whole)} wells" for site in rare]
    return found + f"every well needs the same ones: {some(lacking, 4)}"


def _lacking(plate: Plate, layout: Layout, sites: list[str]) -> list[str]:
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
            f"no image of well {some(gone, 8)}; copy them, or take the wells out of the layout"
        )
    return problems


def check(plate: Plate, *, whole: bool = True) -> None:
    """Raise one StageError with all of the plate's problems, if there are any.

    Where it need not be `whole`, a well that lacks an image is none.
    """
    problems = [one for one in plate.problems if whole or one not in plate.lacking]
    if problems:
        shown = problems[:10]
        if len(problems) > 10:
            shown.append(f"… and {len(problems) - 10} more")
        raise StageError(
            "the plate cannot be used: " + "; ".join(shown) + ". See it with `invoke check-plate`."
        )


def files_of(plate: Plate, planes: Iterable[Plane]) -> list[Path]:
    """Return the files that `planes` are in, each once.

    Raises StageError for a chunk of a Zarr array that is not there, unless it stands for its fill
    value by the layout.
    """
    files: dict[Path, None] = {}
    for plane in planes:
        for path in kinds.files_of(plane, plate.shown(plane.path)):
            if not isinstance(plane.picture, tuple) or path.is_file():
                files[path] = None
            elif not plate.fill_missing:
                raise StageError(
                    f"the chunk {plate.shown(path)} is not there: either the copy is not whole, or "
                    "the plate was written without its empty chunks; copy it again, or set "
                    'files.missing_chunks = "fill" to take them for the fill value'
                )
    return list(files)


def digest_of(plate: Plate) -> str:
    """Return the digest of a plate: sha256 over the sorted names and contents of its files.

    These are its images, the documents that say which is which, and the plate map. Raises
    StageError for a file that cannot be read.
    """
    planes = (plane for stack in plate.images.values() for plane in stack)
    paths = list(dict.fromkeys((*plate.documents, *files_of(plate, planes))))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        hashes = pool.map(digest.file_sha256, paths)
        return digest.of_hashes(dict(zip(map(plate.relative, paths), hashes, strict=True)))


def plate_digest(folder: Path, layout: Layout) -> str:
    """Return the digest of the plate in `folder`. Raises StageError where it cannot be used."""
    plate = match(folder, layout)
    check(plate)
    return digest_of(plate)
