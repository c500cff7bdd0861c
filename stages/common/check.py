"""What a layout understands of a plate folder, as text. Standard library only.

python3 -m common.check FOLDER --layout NAME|FILE
"""

from __future__ import annotations

import argparse
import json
import string
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from . import layout as layouts
from . import plate as plates
from .errors import StageError
from .layout import Layout, well_name

_SIGN = {"positive": "+", "negative": "-", "empty": "o", "sample": "s"}


@dataclass(frozen=True)
class Check:
    """A plate's picture as text, what makes it unusable, what is worth reading, and its digest."""

    text: str
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    plate_digest: str


def check_plate(folder: Path, layout: str | Path) -> Check:
    """Match `folder` with `layout` and describe it. Raises StageError for an unusable layout."""
    known = layouts.load(layout, folder)
    plate = plates.match(folder, known)
    digest = "" if plate.problems else plates.plate_digest(folder, known)
    fields = "1 field" if known.fields == 1 else f"{known.fields} fields"
    lines = [
        f"{known.title}",
        (
            f"{len(plate.images)} images of {len(known.wells)} wells, {fields} each, "
            f"{known.size[0]} x {known.size[1]} pixels; folds {', '.join(known.folds)}"
        ),
        "",
        *_picture(known, plate),
        "",
        (
            "+ positive  - negative  o empty  s sample   upper line: role and label; lower: dose   "
            "! image missing  . no such well"
        ),
        *_series(known),
    ]
    return Check("\n".join(lines), tuple(plate.problems), tuple(plate.notes), digest)


def _picture(layout: Layout, plate: plates.Plate) -> list[str]:
    lines = ["   " + "".join(f"{column:>8}" for column in range(1, layout.columns + 1))]
    for row in string.ascii_uppercase[: layout.rows]:
        upper, lower = f" {row} ", "   "
        for column in range(1, layout.columns + 1):
            well = layout.wells.get(well_name(row, column))
            if well is None:
                upper, lower = upper + f"{'.':>8}", lower + " " * 8
                continue
            complete = all(
                plates.Place(well.name, number, meaning) in plate.images
                for number in range(layout.fields)
                for meaning in layouts.MEANINGS
            )
            label = "" if well.label is None else str(well.label)
            upper += f"{('' if complete else '!') + _SIGN[well.role] + label:>8}"
            lower += f"{'' if well.dose is None else format(well.dose, '.3g'):>8}"
        lines += [upper, lower]
    return lines


def _series(layout: Layout) -> list[str]:
    found: dict[tuple[str, str], set[float]] = {}
    for well in layout.wells.values():
        if well.dose:
            found.setdefault((well.compound, well.unit), set()).add(well.dose)
    return [
        f"{compound}: {len(doses)} doses, {min(doses):g} to {max(doses):g} {unit}"
        for (compound, unit), doses in found.items()
    ]


def main() -> None:
    """Print the check, with `--json` as one object; exit with 1 where the plate cannot be used."""
    parser = argparse.ArgumentParser(prog="python3 -m common.check")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layout", required=True)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    try:
        check = check_plate(given.folder, given.layout)
    except StageError as error:
        sys.exit(f"check: {error}")
    if given.json:
        print(json.dumps(asdict(check)))
        return
    print(check.text)
    for note in check.notes:
        print(f"note: {note}")
    for problem in check.problems:
        print(f"problem: {problem}")
    print(f"plate digest: {check.plate_digest}" if check.plate_digest else "not usable")
    sys.exit(1 if check.problems else 0)


if __name__ == "__main__":
    main()
