"""Plate maps as they are exchanged: a table with a row a well, as CSV, TSV or Excel.

Also tables of the JUMP Cell Painting consortium: a map with well_position and broad_sample, and a
second table that says what each broad_sample is (https://github.com/jump-cellpainting/JUMP-Target).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import spelling
from .errors import StageError
from .table import Table, read_table
from .units import unit_name
from .wells import parse_well, row_name, well_name

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


def read_map(folder: Path, keys: MapKeys, plate: str = "") -> tuple[list[Entry], list[Path]]:
    """Return what the map in a plate's folder says of each well, and the files it was read from.

    Where the map has a column of plates, the lines of `keys.plate` count, or those of `plate`, the
    plate's own name.

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
    for number, line in _of_plate(table, columns, keys, plate):
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
    table: Table, columns: Mapping[str, str], keys: MapKeys, plate: str
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
    wanted = keys.plate or plate or (plates[0] if len(plates) == 1 else "")
    shown = ", ".join(plates[:5]) + (" …" if len(plates) > 5 else "")
    if not keys.plate and plate and plate not in plates:
        raise StageError(
            f"{table.name} is about the plates {shown}, and this one is called {plate}; call it so "
            "in the list of plates, or say which with map.plate"
        )
    if not wanted or wanted not in plates:
        raise StageError(
            f"{table.name} is about {len(plates)} plates ({shown}); say which with map.plate"
        )
    return [(number, line) for number, line in table.lines if line[columns["plate"]] == wanted]


def _columns(table: Table, keys: MapKeys) -> dict[str, str]:
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


def _joined(table: Table, second: Table, keys: MapKeys) -> Table:
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
    return Table(table.name, table.headings + more, tuple(lines), table.decimal_comma)


def _read(folder: Path, file: str, sheet: str) -> Table:
    name = spelling.shown(file)
    parts = Path(file).parts
    if not parts or Path(file).is_absolute() or ".." in parts:
        raise StageError(f"the plate map {name} is not within the plate's folder; copy it there")
    where = "in the plate's folder"
    return read_table(folder / file, name, what="the plate map", where=where, sheet=sheet)
