"""Plates of OME-TIFF files: each file's OME-XML, or a companion file, says what its pictures are.

An element TiffData says which picture of which file is which channel, plane and time point. Where
the OME-XML has an element Plate, it says which image is which well; where it has none, the layout's
pattern reads well and field from the file's name.
Format: https://ome-model.readthedocs.io, OME-TIFF specification and the schema 2016-06.
tifffile reads the XML's text out of a file; all else is the standard library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree.ElementTree import Element

from common import spelling
from common.errors import StageError
from common.kinds.inventory import (
    Folder,
    Inventory,
    Plane,
    micrometres,
    named_file,
    one_size,
    read_document,
)
from common.kinds.markup import attributes, local, namespace, pieces, whole
from common.kinds.names import plane_of
from common.wells import MOST_ROWS

TITLE = "OME-TIFF"
VERSIONS = ("2011-06", "2012-06", "2013-06", "2015-01", "2016-06")
_SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/"
_TIFF = (".tif", ".tiff", ".tf2", ".tf8", ".btf")
_COMPANION = ".companion.ome"
_BITS = {"uint8": 8, "uint16": 16}
_MOST_PLANES = 10_000_000


@dataclass(frozen=True)
class _Picture:
    """A picture of an Image: channel, plane and time point from 0, and where it is."""

    c: int
    z: int
    t: int
    path: Path
    number: int


@dataclass(frozen=True)
class _Image:
    """An Image of an OME-XML document."""

    id: str
    channels: tuple[str, ...]
    size: tuple[int, int]
    bits: int
    pixel_size: float | None
    pictures: tuple[_Picture, ...]


@dataclass
class _Document:
    """What an OME-XML document says; `wells` is image -> row and column from 1, and its field."""

    path: Path
    name: str
    images: list[_Image] = field(default_factory=list)
    wells: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    plates: list[tuple[int | None, int | None]] = field(default_factory=list)
    elsewhere: str = ""


def signs(folder: Folder) -> str:
    """Say why the folder looks like one of OME-TIFF files, or nothing."""
    for path in folder.files:
        lower = path.name.lower()
        if lower.endswith((_COMPANION, *(f".ome{suffix}" for suffix in _TIFF))):
            return f"it holds {folder.shown(path)}"
    return ""


def read(folder: Folder) -> Inventory:
    """Return the pictures that the files' OME-XML names. Raises StageError for what is unclear.

    The layout's pattern reads well and field from names where no document has an element Plate.
    """
    images = [path for path in folder.files if path.suffix.lower() in _TIFF]
    documents: list[_Document] = []
    described: set[Path] = set()
    unused: list[Path] = []
    companions = [path for path in folder.files if path.name.lower().endswith(_COMPANION)]
    for path in (*companions, *images):
        if path in described:
            continue
        text = _xml(path, folder.shown(path), path in companions)
        if not text and path not in companions:
            unused.append(path)
            continue
        document = _read(folder, path, text)
        if document.elsewhere:
            unused.append(path)
            continue
        documents.append(document)
        described |= {picture.path for image in document.images for picture in image.pictures}
    unused = [path for path in unused if path not in described and path not in companions]
    if not documents:
        raise StageError("the folder holds no OME-XML: its TIFF files do not say what they are")
    return _inventory(documents, folder.pattern, unused, companions)


def _xml(path: Path, name: str, companion: bool) -> bytes:
    """Return the OME-XML of a file, or nothing where it has none."""
    if companion:
        return read_document(path, name)
    from common import tiff  # the host checks layouts without it

    text = tiff.description(path, name).strip()
    return text.encode() if text.startswith("<") and text.endswith("OME>") else b""


def _read(folder: Folder, path: Path, text: bytes) -> _Document:
    document = _Document(path, folder.shown(path))
    wanted = {"OME/Image", "OME/Plate", "OME/BinaryOnly", "SPW/Plate"}
    # An XML declaration may name another encoding than the text was decoded with.
    text = re.sub(rb"^<\?xml[^>]*\?>", b"", text) if document.path.suffix.lower() in _TIFF else text
    for number, element in enumerate(pieces(text, document.name, wanted)):
        kind = local(element.tag)
        if number == 0:
            _check_root(element, document.name)
        elif kind == "Image":
            document.images.append(_image(document, element))
        elif kind == "Plate":
            _plate(document, element)
        else:
            document.elsewhere = attributes(element).get("MetadataFile", "another file")
    return document


def _check_root(element: Element, name: str) -> None:
    version = namespace(element).removeprefix(_SCHEMA)
    if local(element.tag) != "OME" or version not in VERSIONS:
        raise StageError(
            f"{name} begins with {element.tag[:120]}, not with OME of {_SCHEMA} "
            f"{', '.join(VERSIONS)}; write it with one of these versions"
        )


def _plate(document: _Document, plate: Element) -> None:
    facts = attributes(plate)
    sizes = [whole(facts, k, f"{document.name}, Plate") if k in facts else None
             for k in ("Rows", "Columns")]  # fmt: skip
    document.plates.append((sizes[0], sizes[1]))
    runs = sum(local(child.tag) == "PlateAcquisition" for child in plate)
    if runs > 1:
        raise StageError(f"{document.name} has {runs} acquisitions of a plate; export one alone")
    for well in plate:
        if local(well.tag) != "Well":
            continue
        place = attributes(well)
        row, column = (whole(place, k, f"{document.name}, Well") + 1 for k in ("Row", "Column"))
        samples: list[tuple[int, str]] = []
        for sample in well:
            if local(sample.tag) == "WellSample":
                index = whole(attributes(sample), "Index", f"{document.name}, WellSample", 0)
                samples += [
                    (index, attributes(child).get("ID", ""))
                    for child in sample
                    if local(child.tag) == "ImageRef"
                ]
        for site, (_, image) in enumerate(sorted(samples), start=1):
            if image in document.wells:
                raise StageError(f"{document.name} puts the image {image} into two wells")
            document.wells[image] = row, column, site


def _image(document: _Document, image: Element) -> _Image:
    name = attributes(image).get("ID", "")
    where = f"{document.name}, image {name[:60]}"
    found = [child for child in image if local(child.tag) == "Pixels"]
    if len(found) != 1:
        raise StageError(f"{where} has {len(found)} elements Pixels; write it again")
    pixels = found[0]
    facts = attributes(pixels)
    bits = _BITS.get(facts.get("Type", ""))
    if bits is None:
        raise StageError(
            f"{where} has pixels of the type {facts.get('Type')!r}; convert all images of the "
            "plate to uint8 or uint16"
        )
    width, height, sizes = _sizes(facts, where)
    channels = [attributes(child) for child in pixels if local(child.tag) == "Channel"]
    if any(channel.get("SamplesPerPixel", "1") != "1" for channel in channels):
        raise StageError(f"{where} has colour pixels; save each channel as grey pictures")
    if channels and len(channels) != sizes["C"]:
        raise StageError(f"{where} has {len(channels)} elements Channel and SizeC {sizes['C']}")
    names = tuple(channel.get("Name", "") for channel in channels) or ("",) * sizes["C"]
    return _Image(
        id=name,
        channels=names,
        size=(width, height),
        bits=whole(facts, "SignificantBits", where, bits),
        pixel_size=micrometres(facts.get("PhysicalSizeX"), facts.get("PhysicalSizeXUnit", "µm")),
        pictures=tuple(_pictures(document, pixels, sizes, where)),
    )


def _sizes(facts: dict[str, str], where: str) -> tuple[int, int, dict[str, int]]:
    """Return width, height and axis -> length, the axes in the order in which they run."""
    width, height = whole(facts, "SizeX", where), whole(facts, "SizeY", where)
    order = facts.get("DimensionOrder", "")
    if not (order.startswith("XY") and sorted(order[2:]) == ["C", "T", "Z"]):
        raise StageError(f"{where} has the DimensionOrder {order!r}; write it again")
    sizes = {axis: whole(facts, f"Size{axis}", where) for axis in order[2:]}
    if not 0 < sizes["C"] * sizes["Z"] * sizes["T"] <= _MOST_PLANES:
        raise StageError(f"{where} has {sizes} pictures; write it again")
    return width, height, sizes


def _pictures(
    document: _Document, pixels: Element, sizes: Mapping[str, int], where: str
) -> Iterator[_Picture]:
    """Yield the pictures that the elements TiffData name, after the specification's defaults."""
    total = sizes["C"] * sizes["Z"] * sizes["T"]
    parts = [child for child in pixels if local(child.tag) == "TiffData"]
    if any(local(child.tag) in {"BinData", "MetadataOnly"} for child in pixels):
        raise StageError(f"{where} does not keep its pixels in a TIFF file; write it again")
    for part in parts or [Element("TiffData")]:
        facts = attributes(part)
        first = {axis: whole(facts, f"First{axis}", where, 0) for axis in sizes}
        number = whole(facts, "IFD", where, 0)
        start, scale = 0, 1
        for axis, length in sizes.items():
            if first[axis] >= length:
                raise StageError(f"{where} has First{axis} {first[axis]} of {length}")
            start, scale = start + first[axis] * scale, scale * length
        count = whole(facts, "PlaneCount", where, 1 if "IFD" in facts else total - start)
        if start + count > total:
            raise StageError(f"{where} has {start + count} pictures in TiffData, of {total}")
        path = _file(document, part, where)
        for offset in range(count):
            at, rest = {}, start + offset
            for axis, length in sizes.items():
                rest, at[axis] = divmod(rest, length)
            yield _Picture(at["C"], at["Z"], at["T"], path, number + offset)


def _file(document: _Document, part: Element, where: str) -> Path:
    for child in part:
        name = attributes(child).get("FileName")
        if local(child.tag) == "UUID" and name:
            return named_file(document.path.parent, name, document.name)
    if document.path.suffix.lower() not in _TIFF:
        raise StageError(f"{where} does not say in which file its pictures are; write it again")
    return document.path


def _inventory(
    documents: Sequence[_Document], pattern: str, unused: list[Path], companions: Sequence[Path]
) -> Inventory:
    planes: list[Plane] = []
    channels: dict[str, str] = {}
    shapes: dict[tuple[tuple[int, int], int], str] = {}
    with_plate = any(document.plates for document in documents)
    if not with_plate and not pattern:
        raise StageError(
            f"{documents[0].name} has no element Plate, so nothing says which image is which well; "
            "give files.pattern in the layout, which reads row, column and field from the names"
        )
    sizes = {size for document in documents for size in document.plates}
    if len(sizes) > 1:
        raise StageError(
            f"the OME-XML describes plates of several sizes: {sorted(map(str, sizes))}"
        )
    stray = 0
    for document in documents:
        if len(document.plates) > 1:
            raise StageError(f"{document.name} describes {len(document.plates)} plates; give one")
        for number, image in enumerate(document.images):
            shapes.setdefault((image.size, image.bits), f"{document.name}, {image.id}")
            for index, name in enumerate(image.channels, start=1):
                if channels.setdefault(str(index), name) != name:
                    raise StageError(
                        f"{document.name} calls channel {index} {name!r}, another image "
                        f"{channels[str(index)]!r}; all images of a plate need the same channels"
                    )
            if with_plate and image.id not in document.wells:
                stray += 1
                continue
            for picture in image.pictures:
                plane = _placed(document, image, number, picture, pattern)
                if plane is None:
                    unused.append(picture.path)
                else:
                    planes.append(plane)
    if len(shapes) > 1:
        found = ", ".join(f"{w} x {h}, {b} bits ({of})" for ((w, h), b), of in shapes.items())
        raise StageError(f"the images are of several sizes or depths: {found[:400]}")
    (size, bits), _ = next(iter(shapes.items()), (((0, 0), 0), ""))
    rows, columns = next(iter(sizes), (None, None))
    return Inventory(
        planes=tuple(dict.fromkeys(planes)),
        channels=channels,
        documents=tuple(companions),
        unused=tuple(dict.fromkeys(unused)),
        size=size,
        bits=bits,
        pixel_size=one_size(image.pixel_size for d in documents for image in d.images),
        rows=rows,
        columns=columns,
        notes=(f"{stray} images of the OME-XML are in no well and not used",) if stray else (),
    )


def _placed(
    document: _Document, image: _Image, number: int, picture: _Picture, pattern: str
) -> Plane | None:
    """Return a picture's place on the plate, or None where its name fits no well."""
    if document.plates:
        row, column, site = document.wells[image.id]
        if row > MOST_ROWS:
            raise StageError(f"{document.name} has a well in row {row}; a plate has fewer")
        plane = Plane(row, column, str(site), "", 0, 0, picture.path, picture.number)
    else:
        groups = re.compile(pattern, re.IGNORECASE).fullmatch(spelling.composed(picture.path.name))
        named = None if groups is None else plane_of(groups.groupdict(), picture.path)
        if named is None:
            return None
        if named.site and len(document.images) > 1:
            raise StageError(
                f"{document.name} holds {len(document.images)} images, and its name says a field; "
                "leave the group field out of files.pattern"
            )
        plane = replace(named, site=named.site or str(number + 1), picture=picture.number)
    return replace(plane, channel=str(picture.c + 1), z=picture.z + 1, t=picture.t + 1)
