"""What was done to each well of a plate: from a layout's [[wells]], or from its plate map."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .platemap import Entry
from .units import UNITS, unit_name
from .wells import column_range, parse_well, row_name, row_range, well_name

ROLES = ("positive", "negative", "sample", "empty")
_LABELS = {"positive": 1, "negative": 0}


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


def from_groups(
    groups: Sequence[Mapping[str, Any]],
    folds: Mapping[tuple[str, int], str],
    rows: int,
    columns: int,
) -> dict[str, Well]:
    """Return the wells of the tables [[wells]], row by row. Raises ValueError for a faulty one."""
    wells: list[Well] = []
    for group in groups:
        across = column_range(group["columns"], columns)
        roles = [str(role).casefold() for role in group.get("roles") or ()]
        roles = roles or [str(group["role"]).casefold()] * len(across)
        if len(roles) != len(across):
            raise ValueError(f"{len(roles)} roles are given for {len(across)} columns")
        doses = _doses(group.get("doses"), len(across))
        unit = unit_name(str(group.get("unit", "")))
        if unit is None:
            raise ValueError(f"the unit {group['unit']!r} is not one of {', '.join(UNITS)}")
        for row in row_range(group["rows"], rows):
            for column, role, dose in zip(across, roles, doses, strict=True):
                wells.append(
                    Well(
                        name=well_name(row, column),
                        row=row,
                        column=column,
                        compound=str(group.get("compound", "")),
                        dose=dose,
                        unit=unit,
                        role=role,
                        label=group.get("label", _LABELS.get(role)),
                        fold=folds.get((row, column), ""),
                    )
                )
    return _checked(wells)


def from_map(
    entries: Sequence[Entry], folds: Mapping[tuple[str, int], str], rows: int, columns: int
) -> dict[str, Well]:
    """Return the wells of a plate map, row by row. Raises ValueError for one beyond the plate."""
    wells = []
    for entry in entries:
        row = row_name(entry.row)
        if entry.row > rows or entry.column > columns:
            raise ValueError(
                f"the plate map has well {well_name(row, entry.column)}, the plate "
                f"{rows} x {columns} wells; correct [plate] or the map"
            )
        wells.append(
            Well(
                name=well_name(row, entry.column),
                row=row,
                column=entry.column,
                compound=entry.compound,
                dose=entry.dose,
                unit=entry.unit,
                role=entry.role,
                label=_LABELS.get(entry.role),
                fold=folds.get((row, entry.column), ""),
            )
        )
    return _checked(wells)


def _checked(wells: Sequence[Well]) -> dict[str, Well]:
    found: dict[str, Well] = {}
    for well in wells:
        if well.role not in ROLES:
            raise ValueError(f"the role {well.role!r} of {well.name} is not one of {ROLES}")
        if well.name in found:
            raise ValueError(f"well {well.name} is described twice")
        if not well.fold:
            raise ValueError(f"well {well.name} is in no fold")
        if well.label not in {0, 1, None}:
            raise ValueError(f"the label {well.label!r} of {well.name} is not 0 or 1")
        found[well.name] = well
    return dict(sorted(found.items(), key=lambda item: parse_well(item[0]) or (0, 0)))


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
