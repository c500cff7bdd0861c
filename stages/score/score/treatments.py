"""The wells of a screen as treatments: a compound at a dose, over all plates. Which are hits?"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from common.assay import ssmd
from numpy.typing import NDArray

from .hits import Replicates, combined, false_discovery_rates, p_value

Array = NDArray[np.float64]
Row = Mapping[str, Any]
_IN_ONE_UNIT = {  # unit -> (what it measures, how many decimal places up to that)
    "M": ("mol/l", 0), "mM": ("mol/l", -3), "µM": ("mol/l", -6), "nM": ("mol/l", -9),
    "pM": ("mol/l", -12), "fM": ("mol/l", -15), "mg/ml": ("g/l", 0), "µg/ml": ("g/l", -3),
    "ng/ml": ("g/l", -6), "pg/ml": ("g/l", -9),
}  # fmt: skip


def treatment(well: Row) -> Hashable:
    """Return what a well was given, so that 1 µM and 1000 nM of a compound are the same.

    A well without a compound is a treatment of its own: nothing says that another one is like it.
    """
    compound = well["Metadata_Compound"]
    if not compound:
        return "", well["Metadata_Plate"], well["Metadata_Well"]
    dose, unit = well["Metadata_Dose"], well["Metadata_DoseUnit"]
    if dose is None:
        return compound, None, ""
    measure, places = _IN_ONE_UNIT.get(unit, (unit, 0))
    return compound, float(f"{dose * 10.0**places:.6g}"), measure


def judge(
    wells: Iterable[Row],
    references: Mapping[str, int],
    *,
    rate: float,
    agreement: float,
) -> list[dict[str, Any]]:
    """Return a row of `tables.TREATMENTS` for each treatment of the sample wells, hits first.

    `references` are the wells that each plate's normalisation rests on. A treatment is a hit where
    its q-value is at most `rate` and at least the share `agreement` of its usable wells is called
    positive. Usable are wells without flags that have a normalised score.
    """
    groups: dict[Hashable, list[Row]] = {}
    negative: dict[str, list[float]] = {}
    for well in wells:
        if well["Metadata_Role"] == "sample":
            groups.setdefault(treatment(well), []).append(well)
        elif well["Metadata_Role"] == "negative" and _usable(well):
            negative.setdefault(well["Metadata_Plate"], []).append(well["Score_Normalised"])
    found = [_row(members, references, negative) for members in groups.values()]
    tested = [row for row in found if not math.isnan(row["Treatment_P"])]
    rates = false_discovery_rates(np.array([row["Treatment_P"] for row in tested]))
    for row, q in zip(tested, rates, strict=True):
        row["Treatment_Q"] = float(q)
        if q > rate:
            row["Treatment_Reason"] = f"q above {rate:g}"
        elif row["Treatment_Agreement"] < agreement:
            row["Treatment_Reason"] = f"under {agreement:g} of its wells are called positive"
        row["Treatment_Hit"] = not row["Treatment_Reason"]
    return sorted(found, key=_order)


def _usable(well: Row) -> bool:
    return not well["Metadata_Flags"] and well["Score_Normalised"] is not None


def _order(row: Row) -> tuple[Any, ...]:
    q = row["Treatment_Q"]
    return (
        not row["Treatment_Hit"], math.inf if math.isnan(q) else q, -_or(row, -math.inf),
        row["Metadata_Compound"], row["Metadata_Dose"] or 0.0, row["Treatment_WellNames"],
    )  # fmt: skip


def _or(row: Row, other: float) -> float:
    value = float(row["Treatment_Normalised"])
    return other if math.isnan(value) else value


def _row(
    members: Sequence[Row], references: Mapping[str, int], negative: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    usable = [well for well in members if _usable(well)]
    plates: dict[str, list[float]] = {}
    for well in usable:
        plates.setdefault(well["Metadata_Plate"], []).append(well["Score_Normalised"])
    sides = [[v for own in plates.values() for v in own],
             [v for name in plates for v in negative.get(name, [])]]  # fmt: skip
    effect = ssmd(*(np.array(side, float) for side in sides))
    p = [p_value(Replicates(tuple(own), references[name])) for name, own in plates.items()]
    return {
        **{name: members[0][name] for name in
           ("Metadata_Compound", "Metadata_Dose", "Metadata_DoseUnit")},
        "Treatment_Hit": False,
        "Treatment_Reason": "" if usable else _why_none(members),
        "Treatment_Q": math.nan,
        "Treatment_P": combined(p, [len(own) for own in plates.values()]) if p else math.nan,
        "Treatment_Agreement": float(np.mean([w["Score_Call"] == "positive" for w in usable]))
        if usable else math.nan,
        "Treatment_Wells": len(usable),
        "Treatment_WellsLeftOut": len(members) - len(usable),
        "Treatment_Plates": len(plates),
        "Treatment_Normalised": float(np.mean(sides[0])) if usable else math.nan,
        "Treatment_SSMD": math.nan if effect is None else effect,
        "Treatment_Probability": _median(usable, "Score_Probability"),
        "Treatment_LogOdds": _median(usable, "Score_LogOdds"),
        "Treatment_CountPerField": _median(usable, "Nuclei_CountPerField"),
        "Treatment_WellNames": " ".join(
            f"{w['Metadata_Plate']}:{w['Metadata_Well']}" for w in usable
        ),
    }  # fmt: skip


def _why_none(members: Sequence[Row]) -> str:
    marks = sorted({mark for well in members for mark in well["Metadata_Flags"].split()})
    return f"no usable well: {', '.join(marks) or 'no normalised score'}"


def _median(wells: Sequence[Row], name: str) -> float:
    values = [well[name] for well in wells if well[name] is not None]
    return float(np.median(values)) if values else math.nan
