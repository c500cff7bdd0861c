"""Plate layouts: which file is which well and channel, and what was done to each well.

A layout is a TOML file (format: docs/layouts.md). This module needs the standard library only.
"""

from __future__ import annotations

import hashlib
import math
import re
import string
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import spelling
from .errors import StageError

FORMAT = 1
MOST_PIXELS = 64_000_000  # of one image
ROLES = ("positive", "negative", "sample", "empty")
MEANINGS = ("signal", "dna")
_FOLDER = Path(__file__).parent / "layouts"
_FOLD_NAME = re.compile(r"[A-Za-z0-9._-]+")
# Every key that a layout may have, by its table; another one is a slip, or of a later format.
_KEYS = {
    "": {"format", "name", "title", "source", "files", "channels", "plate", "tiling", "wells"}
    | {"folds"},
    "files": {"pattern", "size", "bits", "fields"},
    "plate": {"rows", "columns"},
    "tiling": {"target"},
    "folds": {"rows", "columns"},
    "wells": {"rows", "columns", "role", "roles", "compound", "unit", "doses", "label"},
}


@dataclass(frozen=True)
class Well:
    """One well and what was done to it; `dose` in `unit`, `label` 1, 0 or None (not labelled)."""

    name: str
    row: str
    column: int
    compound: str
    dose: float | None
    unit: str
    role: str
    label: int | None
    fold: str


@dataclass(frozen=True)
class Layout:
    """A plate's layout. `size` and `target` are (width, height) in pixels."""

    name: str
    title: str
    source: str
    pattern: str
    size: tuple[int, int]
    bits: int
    fields: int
    channels: Mapping[str, str]
    rows: int
    columns: int
    target: tuple[int, int] | None
    wells: Mapping[str, Well]
    folds: tuple[str, ...]
    digest: str


def names() -> list[str]:
    """Return the names of the layouts that come with the project."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load(layout: str | Path, plate: Path | None = None) -> Layout:
    """Return the layout of that name, in that file (also relative to `plate`), or of that text.

    Raises StageError where there is none or it cannot be understood. A file goes by its own name in
    messages: the folder is another one inside a container than outside.
    """
    text = str(layout)
    if "\n" in text:
        return parse(text, "the layout")
    if text.casefold() in names():
        text = text.casefold()
        return parse((_FOLDER / f"{text}.toml").read_text(encoding="utf-8"), f"layout {text}")
    for path in [Path(text)] + ([plate / text] if plate is not None else []):
        if text.endswith(".toml") and path.is_file():
            origin = f"the layout {spelling.shown(path.name)}"
            try:
                return parse(path.read_text(encoding="utf-8-sig"), origin)
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


def parse(text: str, origin: str) -> Layout:
    """Return the layout that the TOML `text` describes; `origin` names it in messages."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StageError(f"{origin} is not TOML: {error}") from None
    try:
        return _layout(document, text)
    except KeyError as error:
        raise StageError(f"{origin}: the key {error} is missing (docs/layouts.md)") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise StageError(f"{origin}: {error} (docs/layouts.md)") from None


def well_name(row: str, column: int) -> str:
    """Return a well's name: A01."""
    return f"{row}{column:02d}"


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


def _layout(document: dict[str, Any], text: str) -> Layout:
    if document.get("format") != FORMAT:
        raise ValueError(f"format is {document.get('format')!r}, this version reads {FORMAT}")
    _check_keys(document, "")
    files, plate, tiling = document["files"], document["plate"], document.get("tiling", {})
    for table, key in ((files, "files"), (plate, "plate"), (tiling, "tiling")):
        _check_keys(table, key)
    rows, columns = _whole(plate, "rows", "plate.rows"), _whole(plate, "columns", "plate.columns")
    if not (1 <= rows <= 26 and 1 <= columns <= 99):
        raise ValueError(f"a plate of {rows} x {columns} wells is not supported")
    target = tiling.get("target")
    if target is not None and (len(target) != 2 or any(n <= 0 or n % 256 for n in target)):
        raise ValueError(f"tiling.target {target} is not two multiples of 256")
    size = tuple(files["size"])
    if len(size) != 2 or any(not isinstance(n, int) or not 0 < n <= 16384 for n in size):
        raise ValueError(f"files.size {list(size)} is not [width, height] in pixels")
    if size[0] * size[1] > MOST_PIXELS:
        raise ValueError(f"files.size {list(size)} is more than {MOST_PIXELS:,} pixels")
    bits = _whole(files, "bits", "files.bits", 8)
    if not 8 <= bits <= 16:
        raise ValueError(f"files.bits is {bits}, not 8 to 16")
    fields = _whole(files, "fields", "files.fields", 1)
    if fields < 1:
        raise ValueError("files.fields is less than 1")
    pattern = _pattern(files["pattern"])
    if fields > 1 and "field" not in re.compile(pattern).groupindex:
        raise ValueError(f"files.fields is {fields}, and files.pattern has no group (?P<field>…)")
    channels = _channels(document["channels"])
    folds = _folds(document["folds"], rows, columns)
    return Layout(
        name=str(document["name"]),
        title=str(document.get("title", document["name"])),
        source=str(document.get("source", "")),
        pattern=pattern,
        size=(size[0], size[1]),
        bits=bits,
        fields=fields,
        channels=channels,
        rows=rows,
        columns=columns,
        target=None if target is None else (int(target[0]), int(target[1])),
        wells=_wells(document["wells"], folds, rows, columns),
        folds=tuple(document["folds"]),
        digest="sha256:" + hashlib.sha256(text.encode()).hexdigest(),
    )


def _channels(document: Mapping[str, Any]) -> dict[str, str]:
    channels = {str(key): str(value).casefold() for key, value in document.items()}
    if sorted(channels.values()) != sorted(MEANINGS):
        raise ValueError(f"channels must name one signal and one dna, not {channels}")
    if len({spelling.plain(key) for key in channels}) < len(channels):
        raise ValueError(f"the channels {' and '.join(channels)} are the same one")
    return channels


def _pattern(pattern: str) -> str:
    pattern = spelling.composed(pattern)  # as the files' names are when they are compared
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise ValueError(f"files.pattern is not a regular expression: {error}") from None
    for group in ("channel", "row", "column"):
        if group not in groups:
            raise ValueError(f"files.pattern has no group (?P<{group}>…)")
    return pattern


def _row_range(text: str, rows: int) -> list[str]:
    first, _, last = str(text).partition("-")
    letters = string.ascii_uppercase[:rows]
    if first not in letters or (last or first) not in letters or not first:
        raise ValueError(f"rows {text!r} are not within A-{letters[-1]}")
    picked = letters[letters.index(first) : letters.index(last or first) + 1]
    if not picked:
        raise ValueError(f"rows {text!r} run backwards")
    return list(picked)


def _column_range(text: str | int, columns: int) -> list[int]:
    first, _, last = str(text).partition("-")
    picked = list(range(int(first), int(last or first) + 1))
    if not picked or picked[0] < 1 or picked[-1] > columns:
        raise ValueError(f"columns {text!r} are not within 1-{columns}")
    return picked


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
        for row in _row_range(given.get("rows", f"A-{string.ascii_uppercase[rows - 1]}"), rows):
            for column in _column_range(given.get("columns", f"1-{columns}"), columns):
                if (row, column) in found:
                    raise ValueError(f"well {well_name(row, column)} is in two folds")
                found[row, column] = name
    return found


def _doses(given: Any, count: int) -> list[float | None]:
    if given is None:
        return [None] * count
    if isinstance(given, Mapping):
        first, last = float(given["first"]), float(given["last"])
        if first <= 0 or last <= 0 or count < 2:
            raise ValueError("doses from first to last need positive ends and two columns")
        step = (math.log10(last) - math.log10(first)) / (count - 1)
        return [float(f"{10 ** (math.log10(first) + step * i):.6g}") for i in range(count)]
    doses = [float(dose) for dose in given]
    if len(doses) != count or any(not math.isfinite(dose) or dose < 0 for dose in doses):
        raise ValueError(f"doses {given} are not {count} finite numbers, one a column")
    return list(doses)


def _wells(
    groups: list[Mapping[str, Any]], folds: Mapping[tuple[str, int], str], rows: int, columns: int
) -> dict[str, Well]:
    wells: dict[str, Well] = {}
    for group in groups:
        _check_keys(group, "wells")
        across = _column_range(group["columns"], columns)
        roles = [str(role).casefold() for role in group.get("roles") or ()]
        roles = roles or [str(group["role"]).casefold()] * len(across)
        if len(roles) != len(across):
            raise ValueError(f"{len(roles)} roles are given for {len(across)} columns")
        doses = _doses(group.get("doses"), len(across))
        for row in _row_range(group["rows"], rows):
            for column, role, dose in zip(across, roles, doses, strict=True):
                name = well_name(row, column)
                if role not in ROLES:
                    raise ValueError(f"the role {role!r} of {name} is not one of {ROLES}")
                if name in wells:
                    raise ValueError(f"well {name} is described twice")
                if (row, column) not in folds:
                    raise ValueError(f"well {name} is in no fold")
                label = group.get("label", {"positive": 1, "negative": 0}.get(role))
                if label not in {0, 1, None}:
                    raise ValueError(f"the label {label!r} of {name} is not 0 or 1")
                wells[name] = Well(
                    name=name,
                    row=row,
                    column=column,
                    compound=str(group.get("compound", "")),
                    dose=dose,
                    unit=str(group.get("unit", "")),
                    role=role,
                    label=label,
                    fold=folds[row, column],
                )
    return dict(sorted(wells.items()))
