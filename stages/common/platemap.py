"""Plate maps as they are exchanged: a table with a row a well, as CSV, TSV or Excel.

Also tables of the JUMP Cell Painting consortium: a map with well_position and broad_sample, and a
second table that says what each broad_sample is (https://github.com/jump-cellpainting/JUMP-Target).
"""

from __future__ import annotations

import csv
import io
import math
import re
import unicodedata
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any

from . import spelling
from .errors import StageError
from .units import unit_name
from .wells import parse_well, row_name, well_name

MOST_BYTES = 16 << 20
_MOST_UNPACKED = 256 << 20
_MOST_CELLS = 5_000_000
_TEXT, _BOOKS = (".csv", ".tsv", ".txt"), (".xlsx", ".xlsm", ".xls")
_HEADINGS = {
    "well": {"well", "wellposition", "wellid", "wellname", "position"},
    "compound": {"compound", "compoundname", "compoundid", "broadsample", "pertiname", "jcp2022"}
    | {"treatment", "substance"},
    "dose": {"dose", "concentration", "conc"},
    "unit": {"unit", "units", "doseunit", "concentrationunit", "concunit"},
    "role": {"role", "controltype", "perttype", "welltype", "welltypecode"},
    "plate": {"plate", "barcode", "platebarcode", "plateid", "assayplatebarcode", "platename"},
}
MEANINGS = frozenset(_HEADINGS)
_DOSE_WITH_UNIT = re.compile(
    r"(?:dose|conc|concentration)\s*[_ (\[]\s*([^)\]]+?)\s*[)\]]?", re.IGNORECASE
)
_DOSE_UNITS = {"mmolesperliter": "mM", "umolesperliter": "µM", "mgperml": "mg/ml"}
_ROLES = {role: role for role in ("positive", "negative", "sample", "empty")} | {
    "poscon": "positive",
    "negcon": "negative",
    "trt": "sample",
}


@dataclass(frozen=True)
class MapKeys:
    """The table [map] of a layout: which file, and what its columns and roles mean there."""

    file: str
    sheet: str = ""
    compounds: str = ""
    key: str = ""
    plate: str = ""
    unit: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """What a plate map says of a well; `dose` is in `unit`."""

    row: int
    column: int
    compound: str
    dose: float | None
    unit: str
    role: str


@dataclass(frozen=True)
class _Table:
    """A table as it was read; `lines` are heading -> text, each with its number in the file."""

    name: str
    headings: tuple[str, ...]
    lines: tuple[tuple[int, Mapping[str, str]], ...]
    decimal_comma: bool


def read_map(folder: Path, keys: MapKeys) -> tuple[list[Entry], list[Path]]:
    """Return what the map in a plate's folder says of each well, and the files it was read from.

    Raises StageError, naming file and line, for whatever is unclear: a well twice, a dose that is
    no number, a unit or role that is not known, two columns that could be the same thing.
    """
    table = _read(folder, keys.file, keys.sheet)
    files = [folder / keys.file]
    if keys.compounds:
        files.append(folder / keys.compounds)
        table = _joined(table, _read(folder, keys.compounds, ""), keys)
    columns = _columns(table, keys)
    entries: dict[tuple[int, int], tuple[int, Entry]] = {}
    for number, line in _of_plate(table, columns, keys):
        where = f"{table.name}, line {number}"
        entry = _entry(line, columns, keys, where, table.decimal_comma)
        place = entry.row, entry.column
        if place in entries:
            well = well_name(row_name(entry.row), entry.column)
            raise StageError(
                f"{table.name} has well {well} in line {entries[place][0]} and in line {number}; "
                "keep one"
            )
        entries[place] = number, entry
    if not entries:
        raise StageError(f"{table.name} has no line with a well")
    found = [entry for _, entry in entries.values()]
    _check_units(found, table.name)
    return found, files


def _check_units(entries: Sequence[Entry], name: str) -> None:
    units: dict[str, set[str]] = {}
    for entry in entries:
        if entry.dose is not None and entry.unit:
            units.setdefault(entry.compound, set()).add(entry.unit)
    for compound, found in units.items():
        if len(found) > 1:
            raise StageError(
                f"{name} gives doses of {compound!r} in {' and in '.join(sorted(found))}; use one "
                "unit for a compound"
            )


def _entry(
    line: Mapping[str, str], columns: Mapping[str, str], keys: MapKeys, where: str, comma: bool
) -> Entry:
    values = {meaning: line[heading] for meaning, heading in columns.items()}
    place = parse_well(values["well"])
    if place is None:
        raise StageError(f"{where}: {values['well']!r} is no well; write A1, A01 or AF48")
    dose = _dose(values.get("dose", ""), where, comma)
    given = keys.unit or values.get("unit", "") or _unit_of(columns.get("dose", ""))
    unit = unit_name(given)
    if unit is None:
        raise StageError(
            f"{where}: the unit {given!r} is not known; write one of M, mM, µM, nM, pM, fM, mg/ml, "
            "µg/ml, ng/ml, pg/ml, %"
        )
    if dose and not unit:
        raise StageError(f"{where}: the dose {dose:g} has no unit; add a column unit, or map.unit")
    return Entry(
        *place, values.get("compound", ""), dose, unit, _role(values.get("role"), keys.roles, where)
    )


def _dose(text: str, where: str, comma: bool) -> float | None:
    if not text:
        return None
    number = text
    if comma and re.fullmatch(r"-?\d+,\d+(e-?\d+)?", text, re.IGNORECASE):
        if re.fullmatch(r"-?[1-9]\d{0,2},\d{3}", text):
            raise StageError(f"{where}: the dose {text!r} can be read in two ways; write a point")
        number = text.replace(",", ".")
    try:
        dose = float(number) if re.fullmatch(r"[0-9.eE+-]+", number) else math.nan
    except ValueError:
        dose = math.nan
    if not math.isfinite(dose) or dose < 0:
        raise StageError(
            f"{where}: the dose {text!r} is not a number of 0 or more; write the number alone, and "
            "the unit in a column of its own"
        )
    return dose


def _role(text: str | None, roles: Mapping[str, str], where: str) -> str:
    if text is None:
        raise StageError(
            f"{where}: no column says the role; name one with map.columns.role, and what its "
            "values mean in [map.roles]"
        )
    known = {key.casefold(): value for key, value in roles.items()}
    role = known.get(text.casefold()) or _ROLES.get(text.casefold()) or known.get("*")
    if role is None:
        raise StageError(
            f"{where}: the role {text!r} is not known; write positive, negative, sample or empty, "
            "or say in [map.roles] what it means"
        )
    return role


def _of_plate(
    table: _Table, columns: Mapping[str, str], keys: MapKeys
) -> list[tuple[int, Mapping[str, str]]]:
    """Return the lines of the one plate that is meant."""
    if "plate" not in columns:
        if keys.plate:
            raise StageError(
                f"{table.name} has no column that says the plate; take map.plate out, or name the "
                "column with map.columns.plate"
            )
        return list(table.lines)
    plates = sorted({line[columns["plate"]] for _, line in table.lines})
    wanted = keys.plate or (plates[0] if len(plates) == 1 else "")
    if not wanted or wanted not in plates:
        shown = ", ".join(plates[:5]) + (" …" if len(plates) > 5 else "")
        raise StageError(
            f"{table.name} is about {len(plates)} plates ({shown}); say which with map.plate"
        )
    return [(number, line) for number, line in table.lines if line[columns["plate"]] == wanted]


def _columns(table: _Table, keys: MapKeys) -> dict[str, str]:
    """Return meaning -> heading. Raises StageError where two headings could be meant."""
    found: dict[str, str] = {}
    for meaning in _HEADINGS:
        if meaning in keys.columns:
            heading = keys.columns[meaning]
            if heading not in table.headings:
                raise StageError(
                    f"{table.name} has no column {heading!r} for map.columns.{meaning}; it has "
                    f"{', '.join(table.headings)}"
                )
            found[meaning] = heading
            continue
        fitting = [heading for heading in table.headings if _means(heading, meaning)]
        if len(fitting) > 1:
            raise StageError(
                f"{table.name} has several columns for the {meaning}: {', '.join(fitting)}; name "
                f"one with map.columns.{meaning}"
            )
        found.update(dict.fromkeys([meaning] * len(fitting), fitting[0]) if fitting else {})
    if "well" not in found:
        raise StageError(
            f"{table.name} has no column for the well among {', '.join(table.headings)}; name it "
            "with map.columns.well"
        )
    return found


def _means(heading: str, meaning: str) -> bool:
    plain = _plain(heading)
    if plain in _HEADINGS[meaning]:
        return True
    return meaning == "dose" and bool(_unit_of(heading))


def _plain(heading: str) -> str:
    text = re.sub(r"^metadata_", "", heading.strip().casefold())
    return re.sub(r"[\s_.-]", "", text)


def _unit_of(heading: str) -> str:
    """Return the unit that a heading names: `dose_uM`, `Concentration (nM)`, `mmoles_per_liter`."""
    if unit := _DOSE_UNITS.get(_plain(heading)):
        return unit
    found = _DOSE_WITH_UNIT.fullmatch(
        re.sub(r"^metadata_", "", heading.strip(), flags=re.IGNORECASE)
    )
    return (unit_name(found[1]) or "") if found else ""


def _joined(table: _Table, second: _Table, keys: MapKeys) -> _Table:
    """Return `table` with the columns of `second` whose key is the same."""
    shared = [heading for heading in table.headings if heading in second.headings]
    key = keys.key or (shared[0] if len(shared) == 1 else "")
    if key not in shared:
        raise StageError(
            f"{table.name} and {second.name} share the columns {', '.join(shared) or 'none'}; say "
            "with map.key by which one they belong together"
        )
    by_key: dict[str, Mapping[str, str]] = {}
    for number, line in second.lines:
        if line[key] in by_key:
            raise StageError(f"{second.name}, line {number}: {key} {line[key]!r} is there twice")
        by_key[line[key]] = line
    more = tuple(heading for heading in second.headings if heading not in table.headings)
    lines = []
    for number, line in table.lines:
        if line[key] not in by_key:
            raise StageError(
                f"{table.name}, line {number}: {key} {line[key]!r} is not in {second.name}"
            )
        lines.append((number, {**{name: by_key[line[key]][name] for name in more}, **line}))
    return _Table(table.name, table.headings + more, tuple(lines), table.decimal_comma)


def _read(folder: Path, file: str, sheet: str) -> _Table:
    name = spelling.shown(file)
    parts = Path(file).parts
    if not parts or Path(file).is_absolute() or ".." in parts:
        raise StageError(f"the plate map {name} is not within the plate's folder; copy it there")
    path = folder / file
    suffix = path.suffix.lower()
    if suffix not in _TEXT + _BOOKS:
        raise StageError(f"the plate map {name} is none of {', '.join(_TEXT + _BOOKS)}; save it so")
    try:
        with path.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise StageError(
            f"cannot read the plate map {name}: {error.strerror or error}; it must be in the "
            "plate's folder"
        ) from None
    if len(data) > MOST_BYTES:
        raise StageError(f"the plate map {name} has more than {MOST_BYTES >> 20} MiB")
    comma = False
    if suffix in _BOOKS:
        rows = _book(data, name, sheet)
    else:
        rows, comma = _text(data, name)
    return _table(rows, name, comma)


def _table(rows: Sequence[Sequence[str]], name: str, comma: bool) -> _Table:
    numbered = [(n, [cell.strip() for cell in row]) for n, row in enumerate(rows, start=1)]
    filled = [(number, row) for number, row in numbered if any(row)]
    if not filled:
        raise StageError(f"the plate map {name} is empty")
    headings = filled[0][1]
    while headings and not headings[-1]:
        headings.pop()
    twice = sorted({heading for heading in headings if headings.count(heading) > 1})
    if twice or not all(headings):
        raise StageError(
            f"the plate map {name} has "
            + (f"the column {twice[0]!r} twice" if twice else "a column without a heading")
            + " in its first line; name each column once"
        )
    lines = []
    for number, row in filled[1:]:
        if any(row[len(headings) :]):
            raise StageError(f"{name}, line {number} has more values than there are columns")
        padded = row + [""] * (len(headings) - len(row))
        lines.append((number, dict(zip(headings, padded, strict=False))))
    return _Table(name, tuple(headings), tuple(lines), comma)


def _text(data: bytes, name: str) -> tuple[list[list[str]], bool]:
    """Return a text table's rows, and whether its numbers may have a decimal comma."""
    try:
        wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))  # Excel's «Unicode text»
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        raise StageError(
            f"the plate map {name} is not UTF-8 text; in Excel save it as «CSV UTF-8»"
        ) from None
    text = unicodedata.normalize("NFC", text)
    head = next((line for line in text.splitlines() if line.strip(" \t,;")), "")
    counts = {sign: head.count(sign) for sign in ",;\t"}
    used = [sign for sign in counts if counts[sign]]
    if len(used) > 1:
        shown = " and ".join(map(repr, used))
        raise StageError(
            f"the first line of the plate map {name} has {shown}; separate its columns by one sign"
        )
    sign = used[0] if used else ","
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=sign, strict=True)
        rows: list[list[str]] = []
        for row in reader:
            # A quoted text may have lines of its own: keep the numbers of the file's lines.
            rows += [[] for _ in range(len(rows), reader.line_num - 1)]
            rows.append(row)
    except csv.Error as error:
        raise StageError(
            f"the plate map {name} is no whole table ({error}); save it again"
        ) from None
    return rows, sign == ";"


def _book(data: bytes, name: str, sheet: str) -> list[list[str]]:
    """Return the rows of a workbook's sheet as text."""
    import python_calamine

    try:
        if data.startswith(b"PK"):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                if sum(part.file_size for part in archive.infolist()) > _MOST_UNPACKED:
                    raise StageError(f"the plate map {name} unpacks to too much; save it as CSV")
        book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
        names = [sheet] if sheet else list(book.sheet_names)
        if sheet and sheet not in book.sheet_names:
            raise StageError(
                f"the plate map {name} has no sheet {sheet!r}; it has {', '.join(book.sheet_names)}"
            )
        filled = {}
        for each in names:
            found = book.get_sheet_by_name(each)
            if found.total_height * found.total_width > _MOST_CELLS:
                raise StageError(f"the plate map {name} has too many cells in {each!r}")
            rows = found.to_python(skip_empty_area=False)
            if any(cell not in {"", None} for row in rows for cell in row):
                filled[each] = rows
    except StageError:
        raise
    except Exception as error:  # noqa: BLE001 - the library raises its own kinds for each format
        raise StageError(
            f"the plate map {name} is no whole workbook ({error}); save it again"
        ) from None
    if len(filled) != 1:
        raise StageError(
            f"the plate map {name} has {len(filled)} sheets with values"
            + (f" ({', '.join(filled)}); say which with map.sheet" if filled else "")
        )
    (title, rows), *_ = filled.items()
    return [
        [_cell(value, f"{name}, {title}, line {n}, column {m}") for m, value in enumerate(row, 1)]
        for n, row in enumerate(rows, 1)
    ]


def _cell(value: Any, where: str) -> str:
    """Return a cell as text. Raises StageError for a date: Excel makes one of `1-2` and `MAR1`."""
    if isinstance(value, (date, time, timedelta)):
        raise StageError(
            f"{where} holds the date {value}; where it should be text or a number, set the cell's "
            "format to text and type it again"
        )
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        return format(value, ".15g")
    return "" if value is None else str(value)
