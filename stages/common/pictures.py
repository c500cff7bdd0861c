"""Reads a plate's picture, whatever it is made of: files, parts of a TIFF file, a Zarr array."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from . import plate as plates
from . import tiling
from .bounds import MOST_PIXELS
from .digest import file_sha256
from .errors import StageError
from .kinds.inventory import Plane
from .plate import Plate
from .shrink import Grey


def read_picture(
    plate: Plate, planes: Sequence[Plane], size: tuple[int, int], bits: int
) -> tuple[Grey, Mapping[Path, str]]:
    """Return a picture, uint8 [h, w], and the sha256 of its files, but for `shared_files`.

    Several planes give their maximum, pixel by pixel. `size` (width, height) and `bits` are what
    the layout declares. Raises StageError, naming the file, for one that cannot be read or is
    something else than the layout says.
    """
    hashes: dict[Path, str] = {}
    projection: Grey | None = None
    for plane in planes:
        name = plate.shown(plane.path)
        if plane.picture is None:
            picture, hashes[plane.path] = _file(plane.path, name, bits)
        elif isinstance(plane.picture, int):
            values, depth = _of_tiff(plane.path, plane.picture, name)
            picture = tiling.to_grey(values, depth, name, bits)
        else:
            hashes |= {path: file_sha256(path) for path in plates.files_of(plate, [plane])}
            picture = _of_array(plane.path, plane.picture, name, bits)
        height, width = picture.shape
        if (width, height) != size:
            raise StageError(
                f"{name} is {width} x {height} pixels, the layout says "
                f"{size[0]} x {size[1]}; check the file, or files.size in the layout"
            )
        # Fewer bits are a shift of all values alike, so the order of the two does not matter.
        projection = picture if projection is None else np.maximum(projection, picture)
    assert projection is not None, "a picture is made of one plane at least"
    return projection, hashes


def shared_files(plate: Plate) -> list[Path]:
    """Return the files of a plate whose hash no single picture gives: documents, and TIFF files of
    several pictures."""
    planes = (plane for stack in plate.images.values() for plane in stack)
    several = (plane.path for plane in planes if isinstance(plane.picture, int))
    return list(dict.fromkeys((*plate.documents, *several)))


def _file(path: Path, name: str, bits: int) -> tuple[Grey, str]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StageError(f"cannot read {name}: {error.strerror or error}") from None
    return tiling.grey(data, name, bits), hashlib.sha256(data).hexdigest()


def _of_tiff(path: Path, number: int, name: str) -> tuple[Any, int]:
    from . import tiff

    return tiff.grey_samples_of(path, number, name, MOST_PIXELS)


def _of_array(path: Path, index: tuple[int, ...], name: str, bits: int) -> Grey:
    try:
        array = _opened(path)
        if max(array.shape[-2:]) > 1 << 16 or array.shape[-2] * array.shape[-1] > MOST_PIXELS:
            raise StageError(
                f"{name} has {array.shape} values, more than {MOST_PIXELS:,} a picture"
            )
        values = np.asarray(array[index])
    except StageError:
        raise
    except Exception as error:  # noqa: BLE001 - codecs raise whatever their input provokes
        raise StageError(
            f"{name} is damaged or truncated ({error or type(error).__name__}); copy it again"
        ) from None
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    return tiling.to_grey(native, native.dtype.itemsize * 8, name, bits)


@lru_cache(maxsize=8)
def _opened(path: Path) -> Any:
    import zarr  # takes a while, and few plates need it

    return zarr.open_array(path, mode="r")
