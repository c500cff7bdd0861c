"""Plates of CellVoyager microscopes (Yokogawa), with MeasurementData.mlf.

MeasurementData.mlf has an element MeasurementRecord a picture, of Type IMG, or ERR for what failed:
Row, Column, FieldIndex, TimePoint, ZIndex, Ch, and the file's name as text; beside it,
MeasurementDetail.mrf gives the plate's rows and columns and each channel's size and bits, and
a .mes file the channels' names.
Format: not published; after files that others describe, and fmi-faim/cellvoyager-types.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

from common.errors import StageError
from common.kinds.inventory import (
    Folder,
    Inventory,
    Plane,
    micrometres,
    named_file,
    one_size,
)
from common.kinds.markup import attributes, local, namespace, pieces, whole

TITLE = "CellVoyager"
NAMESPACE = "http://www.yokogawa.co.jp/BTS/BTSSchema/1.0"
_DATA, _DETAIL = "measurementdata.mlf", "measurementdetail.mrf"


def signs(folder: Folder) -> str:
    """Say why the folder looks like one of CellVoyager, or nothing."""
    found = [path for path in folder.files if path.name.lower() == _DATA]
    return f"it holds {folder.shown(found[0])}" if found else ""


def read(folder: Folder) -> Inventory:
    """Return the pictures that MeasurementData.mlf names. Raises StageError for what is unclear."""
    found = [path for path in folder.files if path.name.lower() == _DATA]
    if len(found) != 1:
        raise StageError(
            f"the folder holds {len(found)} files MeasurementData.mlf; give the folder of one plate"
        )
    document = found[0]
    name = folder.shown(document)
    planes: list[Plane] = []
    projections: list[Plane] = []
    errors = 0
    for number, element in enumerate(pieces(document, name, {"MeasurementData/MeasurementRecord"})):
        facts = attributes(element)
        if number == 0:
            _check_root(element, name, "MeasurementData")
        elif facts.get("Type") == "ERR":
            errors += 1
        elif facts.get("Type") != "IMG":
            raise StageError(
                f"{name} has a record of the type {facts.get('Type')!r}, not IMG or ERR; export "
                "the plate again"
            )
        else:
            made = "ZImageProcessing" in facts
            (projections if made else planes).append(_plane(document, element, facts, name))
    notes = [f"{name} records {errors} errors of the microscope"] if errors else []
    if planes and projections:
        notes.append(f"{len(projections)} projections that the microscope made are passed over")
    detail = _beside(document, folder.files, _DETAIL)
    nothing = _Detail({}, None, None, None)
    known = _detail(detail, folder.shown(detail)) if detail else nothing
    settings = [
        p for p in folder.files if p.suffix.lower() == ".mes" and p.parent == document.parent
    ]
    used = planes or projections
    channels = dict.fromkeys(sorted({plane.channel for plane in used}), "")
    if len(settings) == 1:
        channels.update(_names(settings[0], folder.shown(settings[0])))
    listed = {plane.path for plane in (*planes, *projections)}
    return Inventory(
        planes=tuple(used),
        channels=channels,
        documents=(document, *([detail] if detail else []), *settings[:1]),
        unused=tuple(
            p for p in folder.files if p.suffix.lower() in {".tif", ".png"} and p not in listed
        ),
        size=known.size,
        bits=known.bits,
        pixel_size=known.pixel_size,
        rows=known.plate.get("RowCount"),
        columns=known.plate.get("ColumnCount"),
        notes=tuple(notes),
    )


def _check_root(element: Element, name: str, wanted: str) -> None:
    version = attributes(element).get("Version", "1.0")
    if local(element.tag) != wanted or namespace(element) != NAMESPACE or version != "1.0":
        raise StageError(
            f"{name} begins with {element.tag[:120]} of version {version[:20]!r}, not with "
            f"{wanted} 1.0 of {NAMESPACE}; export the plate again"
        )


def _plane(document: Path, element: Element, facts: dict[str, str], name: str) -> Plane:
    file = (element.text or "").strip()
    row, column, site, z, t, channel = (
        whole(facts, key, f"{name}, record of {file[:80]!r}")
        for key in ("Row", "Column", "FieldIndex", "ZIndex", "TimePoint", "Ch")
    )
    path = named_file(document.parent, file, name)
    return Plane(row, column, str(site), str(channel), z, t, path)


def _beside(document: Path, files: Sequence[Path], name: str) -> Path | None:
    found = [p for p in files if p.name.lower() == name and p.parent == document.parent]
    return found[0] if found else None


@dataclass(frozen=True)
class _Detail:
    """The plate's rows and columns, and the size, bits and pixel size that all channels share."""

    plate: dict[str, int]
    size: tuple[int, int] | None
    bits: int | None
    pixel_size: float | None


def _detail(path: Path, name: str) -> _Detail:
    plate: dict[str, int] = {}
    shapes: set[tuple[int, int, int]] = set()
    pixel_sizes: set[float | None] = set()
    for number, element in enumerate(pieces(path, name, {"MeasurementDetail/MeasurementChannel"})):
        facts = attributes(element)
        if number == 0:
            _check_root(element, name, "MeasurementDetail")
            plate = {k: whole(facts, k, name) for k in ("RowCount", "ColumnCount") if k in facts}
        else:
            keys = ("HorizontalPixels", "VerticalPixels", "InputBitDepth")
            width, height, bits = (whole(facts, key, f"{name}, a channel") for key in keys)
            shapes.add((width, height, bits))
            pixel_sizes.add(micrometres(facts.get("HorizontalPixelDimension"), "µm"))
    if len(shapes) != 1:
        return _Detail(plate, None, None, None)
    width, height, bits = next(iter(shapes))
    return _Detail(plate, (width, height), bits, one_size(pixel_sizes))


def _names(path: Path, name: str) -> dict[str, str]:
    """Return channel -> its target or its filter, from the settings of the measurement."""
    found = {}
    for number, element in enumerate(pieces(path, name, {"ChannelList/Channel"})):
        facts = attributes(element)
        if number == 0:
            _check_root(element, name, "MeasurementSetting")
        elif "Ch" in facts:
            found[facts["Ch"]] = facts.get("Target") or facts.get("Acquisition", "")
    return found
