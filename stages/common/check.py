"""What a layout understands of a plate folder, as text. Refuses what the prepare stage refuses.

python3 -m common.check FOLDER [--layout NAME|FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from . import digest, draft, kinds, pictures, spelling
from . import layout as layouts
from . import plate as plates
from .errors import StageError
from .kinds.inventory import Folder, Plane
from .layout import Layout
from .wells import row_name, well_name

_SIGN = {"positive": "+", "negative": "-", "empty": "o", "sample": "s"}
_MOST_PROBLEMS = 20


@dataclass(frozen=True)
class Check:
    """A plate's picture as text, what makes it unusable, what is worth reading, and its digest.

    `layout` is the layout's name, empty where none was given and not exactly one fits.
    """

    text: str
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    plate_digest: str
    layout: str


def check_plate(folder: Path, layout: str | Path = "") -> Check:
    """Match `folder` with `layout`, read every image of it, and describe it.

    Without a layout, the known ones and the .toml files in the folder are tried, and the only one
    that fits is taken. Raises StageError for an unusable layout and a folder that cannot be listed.
    """
    if not str(layout):
        return _without_layout(folder)
    return _with_layout(folder, layouts.load(layout, folder), ())


def _with_layout(folder: Path, known: Layout, notes: tuple[str, ...]) -> Check:
    plate = plates.match(folder, known)
    unreadable, hashes = _read(plate, known)
    refused, untrained = _folds(known)
    problems = [*plate.problems, *unreadable, *refused]
    if len(problems) > _MOST_PROBLEMS:
        more = len(problems) - _MOST_PROBLEMS
        problems = [*problems[:_MOST_PROBLEMS], f"… and {more} more"]
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
    return Check(
        "\n".join(lines),
        tuple(problems),
        (*notes, *plate.notes, *untrained),
        "" if problems else digest.of_hashes(hashes),
        known.name,
    )


def _without_layout(folder: Path) -> Check:
    """Say what kind of folder it is and how each layout fits; check the only one that does.

    Where none fits a folder of a known kind, the beginning of a layout for it is shown.
    """
    seen = kinds.recognised(Folder(folder, plates.files_below(folder)))
    lines = [
        f"{kinds.KINDS[kind].title}, files.kind = {kind!r}: {why}" for kind, why in seen.items()
    ]
    lines += ["No layout was given. Of those there are:"]
    fitting, whole = [], []
    for name in (*layouts.names(), *layouts.files_beside(folder)):
        shown = spelling.shown(name)
        try:
            known = layouts.load(name, folder)
            plate = plates.match(folder, known)
        except StageError as error:
            lines.append(f"{shown} cannot be used: {error}")
            continue
        most = len(known.wells) * known.fields * len(layouts.MEANINGS)
        verdict = (
            "fits" if not plate.problems else "fits in part" if plate.images else "does not fit"
        )
        lines.append(f"{shown} {verdict}: {len(plate.images)} of {most} images have names of it")
        fitting += [(shown, known)] * bool(plate.images)
        whole += [(shown, known)] * (not plate.problems)
    for found in (whole, fitting):
        if len(found) == 1:
            shown, known = found[0]
            return _with_layout(
                folder, known, (f"no layout was given; {shown} is taken", *_why(seen))
            )
    if fitting:
        named = " or ".join(f"--layout {shown}" for shown, _ in whole or fitting)
        problem = f"more than one layout fits this folder; give {named}"
    elif seen:
        begun, problem = draft.begin(folder, next(iter(seen)))
        lines += ["", begun] if begun else []
    else:
        problem = (
            "no known layout fits the names in this folder; write one (docs/layouts.md has whole "
            "examples) and give it with --layout FILE"
        )
    return Check("\n".join(lines), (problem,), (), "", "")


def _why(seen: Mapping[str, str]) -> list[str]:
    return [f"{kinds.KINDS[kind].title}: {why}" for kind, why in seen.items()]


def _read(plate: plates.Plate, layout: Layout) -> tuple[list[str], dict[str, str]]:
    """Return what is wrong with the plate's pictures, and relative name -> sha256 of its files."""

    def read(planes: tuple[Plane, ...]) -> Mapping[Path, str] | StageError:
        try:
            return pictures.read_picture(plate, planes, layout.size, layout.bits)[1]
        except StageError as error:
            return error

    def hashed(path: Path) -> Mapping[Path, str] | StageError:
        try:
            return {path: digest.file_sha256(path)}
        except StageError as error:
            return error

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = [
            *pool.map(read, plate.images.values()),
            *pool.map(hashed, pictures.shared_files(plate)),
        ]
    problems = list(dict.fromkeys(str(one) for one in found if isinstance(one, StageError)))
    hashes = [one for one in found if not isinstance(one, StageError)]
    return problems, {plate.relative(p): value for one in hashes for p, value in one.items()}


def _folds(layout: Layout) -> tuple[list[str], list[str]]:
    """Return what the later stages refuse of a layout, and what train alone refuses.

    Every fold is judged on positive and negative wells, and trained on two of each at least: one
    to learn from, one to choose the best epoch by.
    """
    refused, untrained = [], []
    for fold in layout.folds:
        for label, kind in ((1, "positive"), (0, "negative")):
            wells = [well for well in layout.wells.values() if well.label == label]
            inside = sum(well.fold == fold for well in wells)
            if not inside:
                refused.append(
                    f"the fold {fold} has no {kind} well to judge; correct [folds] or the roles in "
                    "the layout"
                )
            if (outside := len(wells) - inside) < 2:
                untrained.append(
                    f"outside of the fold {fold} is {outside} {kind} well; train needs two"
                )
    return refused, untrained


def _picture(layout: Layout, plate: plates.Plate) -> list[str]:
    lines = ["   " + "".join(f"{column:>8}" for column in range(1, layout.columns + 1))]
    for row in map(row_name, range(1, layout.rows + 1)):
        upper, lower = f"{row:>2} ", "   "
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
    parser.add_argument("--layout", default="", help="without it the known ones are tried")
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
