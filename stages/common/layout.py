"""Plate layouts: which picture is which well and channel, and what was done to each well.

A layout is a TOML file (format: docs/layouts.md). The standard library is enough to read one, but
for a plate map in a workbook.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import spelling
from .bounds import MOST_PIXELS
from .digest import file_sha256
from .errors import StageError
from .kinds import KINDS, NAMES, WITH_PATTERN
from .platemap import MEANINGS as MEANINGS_OF_COLUMNS
from .platemap import MapKeys, read_map
from .treatment import Well, from_groups, from_map
from .wells import MOST_COLUMNS, MOST_ROWS, column_range, row_name, row_range, well_name

FORMAT = 1
MEANINGS = ("signal", "dna")
_FOLDER = Path(__file__).parent / "layouts"
_FOLD_NAME = re.compile(r"[A-Za-z0-9._-]+")
# Every key that a layout may have, by its table; another one is a slip, or of a later format.
_KEYS = {
    "": {"format", "name", "title", "source", "files", "channels", "plate", "tiling", "wells"}
    | {"folds", "map"},
    "files": {"kind", "pattern", "size", "bits", "fields", "time", "plane", "projection"}
    | {"missing_chunks"},
    "map": {"file", "sheet", "compounds", "key", "plate", "unit", "columns", "roles"},
    "plate": {"rows", "columns"},
    "tiling": {"target"},
    "folds": {"rows", "columns"},
    "wells": {"rows", "columns", "role", "roles", "compound", "unit", "doses", "label"},
}


@dataclass(frozen=True)
class Layout:
    """A plate's layout. `size` and `target` are (width, height) in pixels.

    `kind` is one of `kinds.KINDS`; `pattern` is empty for those that take none. `time` and `plane`
    pick one where the plate has several; `projection` is `maximum` or empty. `fill_missing` takes a
    Zarr chunk that is not there for its fill value. `documents` are the plate map's files.
    """

    name: str
    title: str
    source: str
    kind: str
    pattern: str
    time: int | None
    plane: int | None
    projection: str
    fill_missing: bool
    size: tuple[int, int]
    bits: int
    fields: int
    channels: Mapping[str, str]
    rows: int
    columns: int
    target: tuple[int, int] | None
    wells: Mapping[str, Well]
    folds: tuple[str, ...]
    documents: tuple[Path, ...]
    digest: str


def names() -> list[str]:
    """Return the names of the layouts that come with the project."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


@dataclass(frozen=True)
class OfList:
    """What a list of plates says of one: its name there, and the file of its plate map, if any."""

    plate: str
    platemap: Path | None = None


def load(layout: str | Path, plate: Path | None = None, of_list: OfList | None = None) -> Layout:
    """Return the layout of that name, in that file (also relative to `plate`), or of that text.

    `of_list` is what a list of plates says of this one. Raises StageError where there is none or
    it cannot be understood. A file goes by its own name in messages: the folder is another one
    inside a container than outside.
    """
    text = str(layout)
    if "\n" in text:
        return parse(text, "the layout", plate, of_list)
    if text.casefold() in names():
        text = text.casefold()
        known_text = (_FOLDER / f"{text}.toml").read_text(encoding="utf-8")
        return parse(known_text, f"layout {text}", None, of_list)
    for path in [Path(text)] + ([plate / text] if plate is not None else []):
        if text.endswith(".toml") and path.is_file():
            origin = f"the layout {spelling.shown(path.name)}"
            try:
                return parse(path.read_text(encoding="utf-8-sig"), origin, plate, of_list)
            except OSError as error:
                raise StageError(f"cannot read {origin}: {error.strerror or error}") from None
            except UnicodeDecodeError:
                raise StageError(f"{origin} is not UTF-8 text; save it as UTF-8") from None
    known = f"known are {', '.join(names())}"
    if beside := [] if plate is None else files_beside(plate):
        known += f", in the plate's folder are {', '.join(map(spelling.shown, beside))}"
    raise StageError(
        f"there is no plate layout {spelling.shown(text)!r}; {known}; or give a .toml file "
        "(docs/layouts.md)"
    )


def files_beside(plate: Path) -> list[str]:
    """Return the names of the layout files that lie in a plate's folder."""
    return sorted(path.name for path in plate.glob("*.toml") if path.is_file())


def parse(
    text: str, origin: str, plate: Path | None = None, of_list: OfList | None = None
) -> Layout:
    """Return the layout that the TOML `text` describes; `origin` names it in messages.

    A plate map is looked for in the folder `plate`, unless a list of plates names its file. Raises
    StageError.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StageError(f"{origin} is not TOML: {error}") from None
    try:
        return _layout(document, text, plate, of_list)
    except KeyError as error:
        raise StageError(f"{origin}: the key {error} is missing (docs/layouts.md)") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise StageError(f"{origin}: {error} (docs/layouts.md)") from None


def _check_keys(table: Mapping[str, Any], name: str) -> None:
    unknown = sorted(set(table) - _KEYS[name])
    if unknown:
        where = f"{name}." if name else ""
        raise ValueError(
            f"there is no key {where}{unknown[0]}; there are {', '.join(sorted(_KEYS[name]))}"
        )


def _whole(table: Mapping[str, Any], key: str, name: str, default: int | None = None) -> int:
    value = table[key] if default is None else table.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}, not a whole number")
    return value


def _layout(
    document: dict[str, Any], text: str, folder: Path | None, of_list: OfList | None
) -> Layout:
    if document.get("format") != FORMAT:
        raise ValueError(f"format is {document.get('format')!r}, this version reads {FORMAT}")
    _check_keys(document, "")
    files, plate, tiling = document["files"], document["plate"], document.get("tiling", {})
    for table, key in ((files, "files"), (plate, "plate"), (tiling, "tiling")):
        _check_keys(table, key)
    rows, columns = _whole(plate, "rows", "plate.rows"), _whole(plate, "columns", "plate.columns")
    if not (1 <= rows <= MOST_ROWS and 1 <= columns <= MOST_COLUMNS):
        raise ValueError(f"a plate of {rows} x {columns} wells is not supported")
    target = tiling.get("target")
    if target is not None and (len(target) != 2 or any(n <= 0 or n % 256 for n in target)):
        raise ValueError(f"tiling.target {target} is not two multiples of 256")
    kind, pattern = _kind(files)
    fields = _whole(files, "fields", "files.fields", 1)
    if fields < 1:
        raise ValueError("files.fields is less than 1")
    if kind == NAMES and fields > 1 and "field" not in re.compile(pattern).groupindex:
        raise ValueError(f"files.fields is {fields}, and files.pattern has no group (?P<field>…)")
    plane, projection = _stack(files)
    folds = _folds(document["folds"], rows, columns)
    wells, documents, content = _wells(document, folds, rows, columns, folder, of_list)
    return Layout(
        name=str(document["name"]),
        title=str(document.get("title", document["name"])),
        source=str(document.get("source", "")),
        kind=kind,
        pattern=pattern,
        time=_whole(files, "time", "files.time") if "time" in files else None,
        plane=plane,
        projection=projection,
        fill_missing=_fill_missing(files, kind),
        size=_size(files),
        bits=_bits(files),
        fields=fields,
        channels=_channels(document["channels"]),
        rows=rows,
        columns=columns,
        target=None if target is None else (int(target[0]), int(target[1])),
        wells=wells,
        folds=tuple(document["folds"]),
        documents=documents,
        digest="sha256:" + hashlib.sha256(text.encode() + content).hexdigest(),
    )


def _size(files: Mapping[str, Any]) -> tuple[int, int]:
    size = tuple(files["size"])
    if len(size) != 2 or any(not isinstance(n, int) or not 0 < n <= 16384 for n in size):
        raise ValueError(f"files.size {list(size)} is not [width, height] in pixels")
    if size[0] * size[1] > MOST_PIXELS:
        raise ValueError(f"files.size {list(size)} is more than {MOST_PIXELS:,} pixels")
    return size[0], size[1]


def _bits(files: Mapping[str, Any]) -> int:
    bits = _whole(files, "bits", "files.bits", 8)
    if not 8 <= bits <= 16:
        raise ValueError(f"files.bits is {bits}, not 8 to 16")
    return bits


def _kind(files: Mapping[str, Any]) -> tuple[str, str]:
    """Return the kind of folder, and the pattern, empty where the kind needs none."""
    kind = files.get("kind", NAMES)
    if kind not in KINDS:
        raise ValueError(f"files.kind is {kind!r}, not one of {', '.join(KINDS)}")
    if kind == NAMES:
        return kind, _pattern(files["pattern"], ("channel", "row", "column"))
    if "pattern" not in files:
        return kind, ""
    if kind not in WITH_PATTERN:
        raise ValueError(f"files.pattern is not used with files.kind = {kind!r}; take it out")
    return kind, _pattern(files["pattern"], ("row", "column"))


def _stack(files: Mapping[str, Any]) -> tuple[int | None, str]:
    """Return which plane is read, or how the planes of a stack are put together."""
    projection = files.get("projection", "")
    if projection not in {"", "maximum"}:
        raise ValueError(f"files.projection is {projection!r}; there is 'maximum'")
    if "plane" not in files:
        return None, projection
    if projection:
        raise ValueError("files.plane and files.projection exclude each other; take one out")
    return _whole(files, "plane", "files.plane"), ""


def _fill_missing(files: Mapping[str, Any], kind: str) -> bool:
    given = files.get("missing_chunks", "refuse")
    if given not in {"refuse", "fill"} or (given == "fill" and kind != "ome-zarr"):
        raise ValueError(
            f"files.missing_chunks is {given!r}; there are 'refuse' and, for ome-zarr, 'fill'"
        )
    return bool(given == "fill")


def _wells(
    document: Mapping[str, Any],
    folds: Mapping[tuple[str, int], str],
    rows: int,
    columns: int,
    folder: Path | None,
    of_list: OfList | None,
) -> tuple[dict[str, Well], tuple[Path, ...], bytes]:
    """Return the wells, the plate map's files, and their content; both empty without a map."""
    listed = of_list.platemap if of_list else None
    if "map" not in document:
        if listed:
            raise ValueError(
                "the list of plates names a plate map, and the layout has no table [map] that says "
                "how to read it; add one in the place of [[wells]]"
            )
        groups = document["wells"]
        for group in groups:
            _check_keys(group, "wells")
        return from_groups(groups, folds, rows, columns), (), b""
    if "wells" in document:
        raise ValueError("[map] and [[wells]] both say what was done to the wells; take one out")
    given = document["map"]
    _check_keys(given, "map")
    for key in ("columns", "roles"):
        if not all(isinstance(value, str) for value in given.get(key, {}).values()):
            raise TypeError(f"map.{key} holds something else than text")
    if not all(isinstance(v, str) for k, v in given.items() if k not in {"columns", "roles"}):
        raise TypeError("[map] holds something else than text")
    unknown = sorted(set(given.get("columns", {})) - MEANINGS_OF_COLUMNS)
    if unknown:
        raise ValueError(
            f"there is no map.columns.{unknown[0]}; there are "
            f"{', '.join(sorted(MEANINGS_OF_COLUMNS))}"
        )
    if listed:
        folder, given = listed.parent, {**given, "file": listed.name}
    if folder is None:
        raise ValueError("a plate map lies in the plate's folder; say with which plate it is read")
    keys = MapKeys(**{"file": given["file"], **given})
    entries, documents = read_map(folder, keys, of_list.plate if of_list else "")
    content = b"".join(b"\0" + file_sha256(path).encode() for path in documents)
    # A map elsewhere is no file of the plate; the layout's digest holds its content.
    own = () if listed else tuple(documents)
    return from_map(entries, folds, rows, columns), own, content


def _channels(document: Mapping[str, Any]) -> dict[str, str]:
    channels = {str(key): str(value).casefold() for key, value in document.items()}
    if sorted(channels.values()) != sorted(MEANINGS):
        raise ValueError(f"channels must name one signal and one dna, not {channels}")
    if len({spelling.plain(key) for key in channels}) < len(channels):
        raise ValueError(f"the channels {' and '.join(channels)} are the same one")
    return channels


def _pattern(pattern: str, needed: tuple[str, ...]) -> str:
    pattern = spelling.composed(pattern)  # as the files' names are when they are compared
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise ValueError(f"files.pattern is not a regular expression: {error}") from None
    for group in needed:
        if group not in groups:
            raise ValueError(f"files.pattern has no group (?P<{group}>…)")
    return pattern


def _folds(document: Mapping[str, Any], rows: int, columns: int) -> dict[tuple[str, int], str]:
    """Return the fold of each well, from `name = "rows"` or `name = {rows=, columns=}`."""
    found: dict[tuple[str, int], str] = {}
    if len(document) < 2:
        raise ValueError("at least two folds are needed, to judge wells that were not trained on")
    for name, place in document.items():
        if not _FOLD_NAME.fullmatch(name):
            raise ValueError(f"the fold name {name!r} has other signs than A-Z a-z 0-9 . _ -")
        given = {"rows": place} if isinstance(place, str) else place
        _check_keys(given, "folds")
        for row in row_range(given.get("rows", f"A-{row_name(rows)}"), rows):
            for column in column_range(given.get("columns", f"1-{columns}"), columns):
                if (row, column) in found:
                    raise ValueError(f"well {well_name(row, column)} is in two folds")
                found[row, column] = name
    return found
