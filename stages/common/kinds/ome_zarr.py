"""Plates in OME-Zarr: a folder of groups, whose attributes say which array is which well and field.

Format: OME-Zarr 0.4 (https://ngff.openmicroscopy.org/0.4/) in Zarr 2, and 0.5 in Zarr 3
(https://zarr-specs.readthedocs.io). Every array's own description is checked here; the zarr library
decodes the chunks. The largest level of each image is read. Standard library only.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

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
from common.wells import row_number

TITLE = "OME-Zarr"
VERSIONS = ("0.4", "0.5")
_MOST_CHUNK = 1 << 28  # elements
_BITS = {"|u1": 8, "<u1": 8, "<u2": 16, ">u2": 16, "uint8": 8, "uint16": 16}
# A codec that is not here could run code of a stranger's (numcodecs has `pickle`).
_COMPRESSORS = {"blosc", "zstd", "gzip", "zlib", "lz4", "bz2", "lzma"}
_CODECS = {"bytes", "transpose", "blosc", "zstd", "gzip", "crc32c", "sharding_indexed"}


@dataclass(frozen=True)
class Array:
    """An array's description: its chunks are the files NAME/0/0/… or NAME/c/0/0/…"""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    bits: int
    prefix: str
    separator: str


def root(folder: Path) -> Path | None:
    """Return the plate's group: the folder itself, or the only folder *.zarr in it."""
    for found in ([folder], sorted(p for p in folder.glob("*.zarr") if not p.is_symlink())):
        plates = [path for path in found if _is_group(path)]
        if len(plates) > 1:
            raise StageError(
                f"the folder holds several plates ({', '.join(p.name for p in plates[:3])}); give "
                "the folder of one"
            )
        if plates:
            return plates[0]
    return None


def _is_group(path: Path) -> bool:
    return (path / ".zgroup").is_file() or (path / "zarr.json").is_file()


def signs(folder: Folder) -> str:
    """Say why the folder looks like an OME-Zarr plate, or nothing."""
    group = root(folder.path)
    if group is None:
        return ""
    file = ".zgroup" if (group / ".zgroup").is_file() else "zarr.json"
    return f"it holds {folder.shown(group / file)}"


def read(folder: Folder) -> Inventory:
    """Return the pictures of a plate. Raises StageError for what is not understood."""
    group = root(folder.path)
    if group is None:
        raise StageError("the folder holds no Zarr group (.zgroup or zarr.json); check its path")
    return _Reader(folder).plate(group)


class _Reader:
    """A plate while it is read."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.documents: list[Path] = []
        self.planes: list[Plane] = []
        self.channels: dict[str, str] = {}
        self.shapes: dict[tuple[tuple[int, int], int], str] = {}
        self.pixel_sizes: set[float | None] = set()

    def plate(self, group: Path) -> Inventory:
        where = f"{self.folder.shown(group)}, plate"
        plate = _table(self._attributes(group).get("plate"), where)
        rows = [_text(row, "name", where) for row in _list(plate, "rows", where)]
        columns = [_text(column, "name", where) for column in _list(plate, "columns", where)]
        for well in _list(plate, "wells", where):
            path = _text(well, "path", where)
            row, _, column = path.partition("/")
            number = row_number(row)
            if row not in rows or column not in columns or number is None or not column.isdecimal():
                raise StageError(
                    f"{where} has the well {path[:40]!r}, which is no row (A to AZ) and column (a "
                    "number) of its own"
                )
            self._well(named_file(group, path, where), number, int(column[:9]))
        if len(self.shapes) > 1:
            found = ", ".join(f"{w} x {h}, {b} bits ({of})" for ((w, h), b), of in
                              self.shapes.items())  # fmt: skip
            raise StageError(f"the images are of several sizes or depths: {found[:400]}")
        (size, bits), _ = next(iter(self.shapes.items()), (((0, 0), 0), ""))
        return Inventory(
            planes=tuple(self.planes),
            channels=self.channels,
            documents=tuple(self.documents),
            size=size,
            bits=bits,
            pixel_size=one_size(self.pixel_sizes),
        )

    def _well(self, group: Path, row: int, column: int) -> None:
        where = f"{self.folder.shown(group)}, well"
        well = _table(self._attributes(group).get("well"), where)
        images = _list(well, "images", where)
        runs = {str(image.get("acquisition", 0)) for image in images}
        if len(runs) > 1:
            raise StageError(f"{where} has images of {len(runs)} acquisitions; give one alone")
        for image in images:
            site = _text(image, "path", where)
            self._image(named_file(group, site, where), row, column, site)

    def _image(self, group: Path, row: int, column: int, site: str) -> None:
        where = f"{self.folder.shown(group)}, image"
        attributes = self._attributes(group)
        scales = _list(attributes, "multiscales", where)
        if len(scales) != 1:
            raise StageError(f"{where} has {len(scales)} multiscales; one is read")
        axes = [_text(axis, "name", where) for axis in _list(scales[0], "axes", where)]
        if axes[-2:] != ["y", "x"] or not set(axes[:-2]) <= {"t", "c", "z"}:
            raise StageError(f"{where} has the axes {axes}; those before y and x must be t, c, z")
        if len(set(axes)) != len(axes):
            raise StageError(f"{where} has an axis twice: {axes}")
        level = _text(_list(scales[0], "datasets", where)[0], "path", where)
        path = named_file(group, level, where)
        array = description(path, self.folder.shown(path))
        self.documents.append(_document(path))
        if len(array.shape) != len(axes):
            raise StageError(f"{where} has {len(axes)} axes, and its array {len(array.shape)}")
        size = array.shape[-1], array.shape[-2]
        self.shapes.setdefault((size, array.bits), where)
        self.pixel_sizes.add(_pixel_size(scales[0]))
        self._name_channels(attributes, dict(zip(axes, array.shape, strict=True)), where)
        for index in itertools.product(*map(range, array.shape[:-2])):
            at = dict(zip(axes, index, strict=False))
            self.planes.append(
                Plane(
                    row=row,
                    column=column,
                    site=str(int(site)) if site.isdecimal() else site,
                    channel=str(at.get("c", 0) + 1),
                    z=at.get("z", 0) + 1,
                    t=at.get("t", 0) + 1,
                    path=path,
                    picture=index,
                )
            )

    def _name_channels(
        self, attributes: Mapping[str, Any], sizes: dict[str, int], where: str
    ) -> None:
        count = sizes.get("c", 1)
        listed = _table(attributes.get("omero", {}), where).get("channels", [{}] * count)
        if not isinstance(listed, list) or len(listed) != count:
            raise StageError(f"{where} names another number of channels than its array's {count}")
        for number, channel in enumerate(listed, start=1):
            label = _table(channel, where).get("label", "")
            if self.channels.setdefault(str(number), str(label)) != str(label):
                raise StageError(
                    f"{where} calls channel {number} {label!r}, another image "
                    f"{self.channels[str(number)]!r}; all images of a plate need the same channels"
                )

    def _attributes(self, group: Path) -> dict[str, Any]:
        """Return a group's OME-Zarr attributes, of a version that is understood."""
        name = self.folder.shown(group)
        if (group / "zarr.json").is_file():
            self.documents.append(group / "zarr.json")
            document = _json(group / "zarr.json", f"{name}/zarr.json")
            if document.get("zarr_format") != 3 or document.get("node_type") != "group":
                raise StageError(f"{name}/zarr.json is no group of Zarr 3; write it again")
            found = _table(_table(document.get("attributes", {}), name).get("ome"), name)
            versions = {str(found.get("version"))}
        elif (group / ".zattrs").is_file():
            self.documents.append(group / ".zattrs")
            found = _json(group / ".zattrs", f"{name}/.zattrs")
            parts = [found.get("plate"), found.get("well"), *(found.get("multiscales") or [])]
            versions = {str(p["version"]) for p in parts if isinstance(p, dict) and "version" in p}
        else:
            raise StageError(
                f"{name} is no Zarr group: it has neither .zattrs nor zarr.json; copy it"
            )
        wanted = "0.5" if (group / "zarr.json").is_file() else "0.4"
        if versions - {wanted}:
            raise StageError(
                f"{name} is OME-Zarr of version {', '.join(sorted(versions))}; "
                f"read are {' and '.join(VERSIONS)}"
            )
        return found


def _pixel_size(scale: Mapping[str, Any]) -> float | None:
    """Return a pixel's width in µm: the scales of the largest level and of all levels, multiplied.

    None where there is no scale or the axis x has no unit, which the specification allows.
    """
    try:
        found, own = 1.0, scale["datasets"][0]["coordinateTransformations"]
        for step in (*own, *scale.get("coordinateTransformations", ())):
            if step["type"] == "scale":
                found *= float(step["scale"][-1])
        return micrometres(found, scale["axes"][-1]["unit"]) if own else None
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def _document(path: Path) -> Path:
    return path / "zarr.json" if (path / "zarr.json").is_file() else path / ".zarray"


@lru_cache(maxsize=64)
def description(path: Path, name: str) -> Array:
    """Return an array's description. Raises StageError, naming `name`, for one not understood."""
    file = _document(path)
    document = _json(file, f"{name}/{file.name}")
    try:
        array = _zarr_2(document) if file.name == ".zarray" else _zarr_3(document)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise StageError(
            f"{name}/{file.name} is not understood ({error}); write it again"
        ) from None
    lengths = (*array.shape, *array.chunks)
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in lengths)
    if not whole or len(array.shape) != len(array.chunks) or len(array.shape) < 2:
        raise StageError(f"{name} has the shape {array.shape} in chunks of {array.chunks}")
    if math.prod(array.chunks) > _MOST_CHUNK:
        raise StageError(
            f"{name} has chunks of {array.chunks}, too large to read; write smaller ones"
        )
    return array


def _zarr_2(document: Mapping[str, Any]) -> Array:
    if document["zarr_format"] != 2:
        raise ValueError(f"zarr_format is {document['zarr_format']!r}, not 2")
    compressor = document["compressor"]
    if document["filters"] or (compressor and compressor["id"] not in _COMPRESSORS):
        raise ValueError(f"filters {document['filters']} or compressor {compressor} is not read")
    return Array(
        shape=tuple(document["shape"]),
        chunks=tuple(document["chunks"]),
        bits=_bits(document["dtype"]),
        prefix="",
        separator=_separator(document.get("dimension_separator", ".")),
    )


def _zarr_3(document: Mapping[str, Any]) -> Array:
    if document["zarr_format"] != 3 or document["node_type"] != "array":
        raise ValueError("it is no array of Zarr 3")
    _check_codecs(document["codecs"])
    if document.get("storage_transformers"):
        raise ValueError("storage_transformers are not read")
    grid, keys = document["chunk_grid"], document["chunk_key_encoding"]
    if grid["name"] != "regular":
        raise ValueError(f"the chunk_grid {grid['name']!r} is not read")
    if keys["name"] not in {"default", "v2"}:
        raise ValueError(f"the chunk_key_encoding {keys['name']!r} is not read")
    usual = "/" if keys["name"] == "default" else "."
    return Array(
        shape=tuple(document["shape"]),
        chunks=tuple(grid["configuration"]["chunk_shape"]),
        bits=_bits(document["data_type"]),
        prefix="c" if keys["name"] == "default" else "",
        separator=_separator(keys.get("configuration", {}).get("separator", usual)),
    )


def _bits(kind: Any) -> int:
    if kind not in _BITS:
        raise ValueError(f"its values are {kind!r}; convert all images of the plate to uint16")
    return _BITS[kind]


def _separator(given: Any) -> str:
    if given not in {".", "/"}:
        raise ValueError(f"the separator {given!r} is not read")
    return str(given)


def _check_codecs(codecs: Sequence[Mapping[str, Any]]) -> None:
    for codec in codecs:
        if codec["name"] not in _CODECS:
            raise ValueError(f"the codec {codec['name']!r} is not read")
        if codec["name"] == "sharding_indexed":
            for key in ("codecs", "index_codecs"):
                _check_codecs(codec["configuration"][key])


def chunk_files(path: Path, index: tuple[int, ...], array: Array) -> list[Path]:
    """Return the files of the chunks (or shards) that a picture is in, whether they are there."""
    lengths = [
        range(math.ceil(n / chunk))
        for n, chunk in zip(array.shape[-2:], array.chunks[-2:], strict=True)
    ]
    first = [at // chunk for at, chunk in zip(index, array.chunks, strict=False)]
    parts = [array.prefix] if array.prefix else []
    return [
        path / array.separator.join([*parts, *map(str, first), str(y), str(x)])
        for y, x in itertools.product(*lengths)
    ]


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        return _table(json.loads(read_document(path, name)), name)
    except (ValueError, RecursionError) as error:  # not UTF-8, no JSON, nested too deep
        raise StageError(f"{name} is not whole JSON ({str(error)[:100]}); copy it again") from None


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise StageError(f"{where} has no description as OME-Zarr asks; write it again")
    return value


def _list(table: Mapping[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    value = table.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(v, dict) for v in value):
        raise StageError(f"{where} has no list {key} of objects; write it again")
    return value


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value:
        raise StageError(f"{where} has {value!r} as {key}, not a text; write it again")
    return value
