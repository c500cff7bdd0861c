"""Plates of ImageXpress microscopes, as MetaXpress (Molecular Devices) writes them.

A folder holds NAME.HTD and, below TimePoint_N and ZStep_N where there are several, the files
NAME_A01_s1_w1GUID.TIF; a part that there is one of is left out. The HTD file is text of lines
`"key", value, ...`, and names the plate's rows, columns, time points, steps and wavelengths.
Format: not published; after HTD files of the Image Data Resource (idr0005, idr0008, idr0081) and
folders of the JUMP Cell Painting consortium (cpg0016, source_8), as others describe them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import StageError
from common.kinds.inventory import Folder, Inventory, Plane, read_document
from common.wells import row_number

TITLE = "ImageXpress (MetaXpress)"
VERSION = "Version 1.0"
_GUID = r"[0-9A-F]{8}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{12}"
_NAME = re.compile(
    r"(?P<plate>.+)_(?P<row>[A-Z]{1,2})(?P<column>\d\d)(?:_s(?P<site>\d+))?(?:_w(?P<wave>\d{1,2}))?"
    rf"(?P<thumb>_thumb)?(?:_?\[?{_GUID}\]?)?\.tiff?",
    re.IGNORECASE,
)
_FOLDER = re.compile(r"(?P<kind>TimePoint|ZStep)_(?P<number>\d{1,6})", re.IGNORECASE)


@dataclass(frozen=True)
class _Step:
    plane: Plane
    plate: str


def signs(folder: Folder) -> str:
    """Say why the folder looks like one of MetaXpress, or nothing."""
    for path in folder.files:
        if path.suffix.lower() == ".htd":
            return f"it holds {folder.shown(path)}"
    for path in folder.files:
        found = _NAME.fullmatch(path.name)
        inside = any(_FOLDER.fullmatch(part) for part in path.relative_to(folder.path).parts[:-1])
        if found and (inside or (found["wave"] and re.search(_GUID, path.name, re.IGNORECASE))):
            return f"it has names such as {folder.shown(path)}, though no HTD file"
    return ""


def read(folder: Folder) -> Inventory:
    """Return the pictures of a MetaXpress folder. Raises StageError for an HTD file not understood.

    The microscope's own projections (ZStep_0, and files beside the folders ZStep_N) are passed over
    where there are planes.
    """
    documents = [path for path in folder.files if path.suffix.lower() == ".htd"]
    if len(documents) > 1:
        named = " and ".join(folder.shown(path) for path in documents[:3])
        raise StageError(f"the folder holds several plates ({named}); give the folder of one")
    facts = _htd(folder, documents[0]) if documents else {}
    steps: list[_Step] = []
    unused: list[Path] = []
    thumbs = 0
    for path in folder.files:
        found = _NAME.fullmatch(path.name)
        row = row_number(found["row"]) if found else None
        if found and found["thumb"]:
            thumbs += 1
        elif found and row is not None:
            steps.append(_step(folder, path, found, row))
        elif path.suffix.lower() in {".tif", ".tiff"}:
            unused.append(path)
    plates = sorted({step.plate.casefold() for step in steps})
    if len(plates) > 1:
        raise StageError(
            f"the folder holds images of several plates ({', '.join(plates[:3])}); give the folder "
            "of one"
        )
    planes = [step.plane for step in steps]
    notes = [] if not thumbs else [f"{thumbs} thumbnails are passed over"]
    projections = [plane for plane in planes if plane.z == 0]
    if projections and len(projections) < len(planes):
        planes = [plane for plane in planes if plane.z]
        notes.append(f"{len(projections)} projections that the microscope made are passed over")
    channels, problems = _channels(facts, planes, documents)
    return Inventory(
        planes=tuple(planes),
        channels=channels,
        documents=tuple(documents),
        unused=tuple(unused),
        rows=_number(facts, "YWells"),
        columns=_number(facts, "XWells"),
        notes=tuple(notes),
        problems=tuple(problems),
    )


def _step(folder: Folder, path: Path, found: re.Match[str], row: int) -> _Step:
    numbers = {"timepoint": 1, "zstep": 0}
    for part in path.relative_to(folder.path).parts[:-1]:
        if inside := _FOLDER.fullmatch(part):
            numbers[inside["kind"].lower()] = int(inside["number"])
    return _Step(
        Plane(
            row=row,
            column=int(found["column"]),
            site=str(int(found["site"] or 1)),
            channel=str(int(found["wave"] or 1)),
            z=numbers["zstep"],
            t=numbers["timepoint"],
            path=path,
        ),
        found["plate"],
    )


def _htd(folder: Folder, path: Path) -> dict[str, list[str]]:
    """Return an HTD file's lines: key -> values."""
    name = folder.shown(path)
    data = read_document(path, name)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:  # descriptions are typed by people, in their system's own encoding
        text = data.decode("latin-1")
    facts: dict[str, list[str]] = {}
    try:
        lines = [line for line in csv.reader(text.splitlines(), skipinitialspace=True) if line]
    except csv.Error as error:
        raise StageError(f"{name} is no HTD file ({error}); export the plate again") from None
    for key, *values in lines:
        if key in facts:
            raise StageError(f"{name} has the key {key[:40]!r} twice; export the plate again")
        facts[key] = [value.strip() for value in values]
    if facts.get("HTSInfoFile") != [VERSION]:
        raise StageError(
            f"{name} is no HTD file of {VERSION}: its first line is {lines[0] if lines else ''}; "
            "export the plate again"
        )
    if "EndFile" not in facts:
        raise StageError(f"{name} is truncated: it has no line EndFile; copy it again")
    return facts


def _number(facts: Mapping[str, list[str]], key: str) -> int | None:
    values = facts.get(key)
    if values is None:
        return None
    if len(values) != 1 or not re.fullmatch(r"[0-9]{1,6}", values[0]):
        raise StageError(f"the HTD file has {values} as {key}, not a whole number; export it again")
    return int(values[0])


def _channels(
    facts: Mapping[str, list[str]], planes: Sequence[Plane], documents: Sequence[Path]
) -> tuple[dict[str, str], list[str]]:
    """Return wavelength -> its name, and what the HTD file and the images disagree in."""
    found = sorted({plane.channel for plane in planes}, key=int)
    count = _number(facts, "NWavelengths")
    if count is None:
        return dict.fromkeys(found, ""), []
    names = {str(n): " ".join(facts.get(f"WaveName{n}", [])) for n in range(1, min(count, 99) + 1)}
    more = [f"w{channel}" for channel in found if channel not in names]
    if more:
        problem = (
            f"there are images of {', '.join(more)}, and {documents[0].name} has {count} "
            "wavelengths; the folder mixes two plates"
        )
        return {**dict.fromkeys(found, ""), **names}, [problem]
    return names, []
