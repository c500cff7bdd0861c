"""The plates of a run: a list on the volume of images, or the folders that fit a pattern.

A list is a table (CSV, TSV, Excel) or JSON with a line a plate: `folder`, and if need be `plate`
(its name), `layout` and `platemap`. Its paths are relative to the list's own folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from . import layout as layouts
from . import spelling
from .errors import StageError
from .kinds.inventory import some
from .layout import Layout, OfList
from .table import KINDS, read_bytes, read_table

# The names and digests of that many plates still fit the one argument that a step is started with:
# Linux takes 128 KiB (MAX_ARG_STRLEN).
MOST_PLATES = 1_500
COLUMNS = ("plate", "folder", "layout", "platemap")
_WHAT, _WHERE = "the list of plates", "on the volume of the plates"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_PATTERN = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class ListedPlate:
    """A plate of a run: its name, and its folder relative to the volume's root.

    `layout` is the name of a known one, a TOML file relative to the root, or a TOML file's text;
    `platemap` a file relative to the root, or empty.
    """

    plate: str
    folder: str
    layout: str
    platemap: str = ""


@dataclass(frozen=True)
class _Line:
    """A plate as it was written, and where that stands, for messages."""

    where: str
    values: Mapping[str, str]


def read_plates(root: Path, plates: str, layout: str = "") -> tuple[ListedPlate, ...]:
    """Return the plates that `plates` names on the volume `root`, in the list's order.

    `plates` is the path of a list there, or a pattern of folders such as `screen/P*`, whose plates
    go by their folders' names. `layout` is for those whose line has none. Raises StageError for
    whatever is unclear: a plate or a folder twice, a path outside of the volume, an unknown column,
    no plate at all, a file or folder that is not there.
    """
    name = spelling.shown(plates)
    if not plates:
        raise StageError(f"no plates were named; give a list {_WHERE}, or a pattern of folders")
    start = _inside(root, PurePosixPath(), plates, f"{_WHAT} {name}")
    if Path(plates).suffix.lower() in (*KINDS, ".json"):
        lines, base = list(_listed(root / start, name)), start.parent
    elif _PATTERN.search(plates):
        lines, base = list(_matching(root, str(start), name)), PurePosixPath()
    else:
        raise StageError(
            f"{name} is neither a list of plates ({', '.join((*KINDS, '.json'))}) nor a pattern "
            "of folders with * in it; for one plate use the package of one plate"
        )
    if not lines:
        raise StageError(f"{_WHAT} {name} is empty; write a line a plate")
    if len(lines) > MOST_PLATES:
        raise StageError(
            f"{name} names {len(lines)} plates, and one run takes {MOST_PLATES:,} at most; share "
            "them out to several lists"
        )
    found = [_plate(root, base, line, layout) for line in lines]
    _check_once(lines, found, root)
    return tuple(found)


def load_layout(root: Path, plate: ListedPlate) -> Layout:
    """Return the layout of a plate of a list. Raises StageError, naming the plate."""
    given: str | Path = plate.layout
    if plate.layout.endswith(".toml"):
        given = root / plate.layout
    platemap = root / plate.platemap if plate.platemap else None
    try:
        return layouts.load(given, root / plate.folder, OfList(plate.plate, platemap))
    except StageError as error:
        raise StageError(f"plate {plate.plate}: {error}") from None


def _inside(root: Path, base: PurePosixPath, given: str, what: str) -> PurePosixPath:
    """Return the path `given`, relative to `base`, as one relative to `root`.

    Raises StageError where it leads out of `root`, by its name or by a link.
    """
    parts: list[str] = []
    out = PurePosixPath(given).is_absolute() or "\0" in given
    for part in (*base.parts, *PurePosixPath(given).parts):
        if part == "..":
            out = out or not parts
            parts = parts[:-1]
        else:
            parts.append(part)
    path = PurePosixPath(*parts)
    try:
        out = out or not (root / path).resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError) as error:
        raise StageError(f"{what}: {spelling.shown(given)} cannot be followed ({error})") from None
    if out:
        raise StageError(
            f"{what}: {spelling.shown(given)} leads out of the volume of the plates; write a path "
            "below it, relative to the list"
        )
    return path


def _listed(path: Path, name: str) -> Iterator[_Line]:
    if path.suffix.lower() == ".json":
        yield from _of_json(path, name)
        return
    table = read_table(path, name, what=_WHAT, where=_WHERE)
    known = {heading: heading.strip().casefold() for heading in table.headings}
    _check_columns(known.values(), name)
    for number, line in table.lines:
        yield _Line(f"{name}, line {number}", {known[key]: text for key, text in line.items()})


def _of_json(path: Path, name: str) -> Iterator[_Line]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise ValueError(f"the key {twice[0]!r} is twice in one object")
        return dict(pairs)

    data = read_bytes(path, name, what=_WHAT, where=_WHERE)
    try:
        document = json.loads(data.decode("utf-8-sig"), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise StageError(f"{_WHAT} {name} is not JSON ({error}); correct it") from None
    if not isinstance(document, list):
        raise StageError(
            f'{_WHAT} {name} must be a list of objects: [{{"plate": "P1", "folder": "P1"}}]'
        )
    for number, entry in enumerate(document, 1):
        where = f"{name}, plate {number}"
        if not isinstance(entry, dict) or not all(isinstance(v, str) for v in entry.values()):
            raise StageError(f"{where} must be an object whose values are texts")
        _check_columns(entry, where)
        yield _Line(where, {key: text.strip() for key, text in entry.items()})


def _check_columns(found: Iterable[str], where: str) -> None:
    columns = list(found)
    if unknown := sorted(set(columns) - set(COLUMNS)):
        raise StageError(
            f"{where} has the unknown column {spelling.shown(unknown[0])!r}; there are "
            f"{', '.join(COLUMNS)}"
        )
    if twice := sorted({column for column in columns if columns.count(column) > 1}):
        raise StageError(f"{where} has the column {twice[0]!r} twice; keep one")
    if "folder" not in columns:
        raise StageError(f"{where} has no column 'folder', which says where a plate's images are")


def _matching(root: Path, pattern: str, name: str) -> Iterator[_Line]:
    if "**" in pattern:
        raise StageError(f"the pattern {name} has **, which could be any depth; write each folder")
    try:
        found = sorted(path for path in root.glob(pattern) if path.is_dir())
    except (OSError, ValueError) as error:
        raise StageError(f"the pattern {name} cannot be used ({error})") from None
    if not found:
        raise StageError(f"no folder fits the pattern {name} {_WHERE}; correct it")
    for path in found:
        if not path.name.startswith("."):
            yield _Line(f"the pattern {name}", {"folder": path.relative_to(root).as_posix()})


def _plate(root: Path, base: PurePosixPath, line: _Line, layout: str) -> ListedPlate:
    given = line.values.get("folder", "")
    if not given:
        raise StageError(f"{line.where} has no folder; say where the plate's images are")
    folder = _inside(root, base, given, line.where)
    plate = line.values.get("plate") or folder.name
    if not _NAME.fullmatch(plate):
        raise StageError(
            f"{line.where}: the plate's name {spelling.shown(plate)!r} has other signs than "
            "A-Z a-z 0-9 . _ -, or more than 40; give it a name in the column plate"
        )
    if not (root / folder).is_dir():
        raise StageError(
            f"{line.where}: the folder {spelling.shown(given)} of plate {plate} is not there; "
            "correct it, or take the line out"
        )
    own = line.values.get("layout") or layout
    if not own:
        raise StageError(
            f"{line.where}: plate {plate} has no layout; add a column layout, or set plate_layout"
        )
    if own.endswith(".toml"):
        own = str(_file(root, (folder, base), own, f"{line.where}: the layout"))
    platemap = line.values.get("platemap", "")
    if platemap:
        platemap = str(_file(root, (base,), platemap, f"{line.where}: the plate map"))
    return ListedPlate(plate, folder.as_posix(), own, platemap)


def _file(root: Path, places: tuple[PurePosixPath, ...], given: str, what: str) -> PurePosixPath:
    """Return where the file `given` is: beside one of `places`, relative to `root`."""
    for base in places:
        path = _inside(root, base, given, what)
        if (root / path).is_file():
            return path
    raise StageError(f"{what} {spelling.shown(given)} is not there; correct it")


def _check_once(lines: list[_Line], plates: list[ListedPlate], root: Path) -> None:
    """Raise StageError for a plate's name or folder that is there twice, or one inside another."""
    names: dict[str, _Line] = {}
    folders: dict[Path, str] = {}
    for line, one in zip(lines, plates, strict=True):
        before = names.setdefault(one.plate.casefold(), line)
        if before is not line:
            raise StageError(
                f"plate {one.plate} is twice: {before.where} and {line.where}; give each its name"
            )
        resolved = (root / one.folder).resolve()
        if resolved in folders:
            raise StageError(
                f"{line.where}: the folder {one.folder} is that of plate {folders[resolved]} too; "
                "a plate is one folder"
            )
        folders[resolved] = one.plate
    for folder, name in folders.items():
        if around := [folders[above] for above in folder.parents if above in folders]:
            raise StageError(
                f"the folder of plate {name} lies in that of plate {some(around, 1)}, whose images "
                "would be mixed with its own; move one"
            )
