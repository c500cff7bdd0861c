"""Reads a grey picture of a TIFF file, and refuses by name whatever would be lost or guessed.

tifffile and imagecodecs: for prepare, which reads what microscopes write (BigTIFF, OME-TIFF, JPEG
2000, JPEG XR, ...). Formats: TIFF 6.0 (Adobe, 1992), section 8, and its registered tags.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from .errors import StageError

_REDUCED = 1  # a bit of NewSubfileType: a smaller copy of another picture of the file
_BLACK, _RGB, _PALETTE = 1, 2, 3  # values of PhotometricInterpretation that are read
_KINDS = {2: "signed", 3: "floating-point", 4: "undefined", 5: "complex", 6: "complex"}
_READ = {
    1: "none",
    5: "LZW",
    7: "JPEG",
    8: "Deflate",
    32946: "Deflate",
    32773: "PackBits",
    34925: "LZMA",
    50000: "Zstandard",
    **dict.fromkeys((33003, 33004, 33005, 34712), "JPEG 2000"),
    **dict.fromkeys((22610, 34934), "JPEG XR"),
}
_MOST_PAGES = 64  # a picture and its smaller copies; each page takes its time to be read
_MIRRORED = {2, 4, 5, 7}
_QUARTER_TURNS = {3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}  # to the left, after mirroring
_GREY = "save it as one grey sample a pixel, black as 0, unsigned, 8 or 16 bits"

_ONE_AT_A_TIME = Lock()  # threads of a check share the opened files

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it has to say is said here


def grey_samples(data: bytes, name: str, most_pixels: int) -> tuple[NDArray[Any], int]:
    """Return a TIFF file's picture, unsigned [height, width], and the bits that its samples have.

    A palette is applied, and a colour picture of three equal samples is grey. The number of pixels
    is checked before anything is decoded. Raises StageError, naming `name`.
    """
    # The opened file is part of a circle, and would keep its bytes until the next collection.
    with _decoding(name), io.BytesIO(data) as stream, tifffile.TiffFile(stream) as file:
        return _samples(_only_page(file, name), name, len(data), most_pixels)


def grey_samples_of(
    path: Path, number: int, name: str, most_pixels: int
) -> tuple[NDArray[Any], int]:
    """Return picture `number`, from 0, of a TIFF file of several, as `grey_samples` does."""
    with _decoding(name), _ONE_AT_A_TIME:
        file = _opened(path)
        try:
            page = file.pages.get(number).aspage()
        except IndexError:
            raise StageError(
                f"{name} has {len(file.pages)} pictures, and its OME-XML names more; copy it again"
            ) from None
        return _samples(page, f"{name}, picture {number + 1}", file.filehandle.size, most_pixels)


def description(path: Path, name: str) -> str:
    """Return the text that describes a TIFF file: its first picture's tag ImageDescription.

    Raises StageError, naming `name`, for a file that is damaged or has no picture.
    """
    with _decoding(name), tifffile.TiffFile(path) as file:
        return str(file.pages.first.description)


@lru_cache(maxsize=2)  # a worker reads many pictures of one file, and finding them takes a while
def _opened(path: Path) -> tifffile.TiffFile:
    return tifffile.TiffFile(path)


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    try:
        yield
    except StageError:
        raise
    except OSError as error:
        raise StageError(f"cannot read {name}: {error.strerror or error}") from None
    except Exception as error:  # noqa: BLE001 - decoders raise whatever their input provokes
        raise StageError(
            f"{name} is damaged or truncated ({error or type(error).__name__}); copy it again"
        ) from None


def _samples(
    page: tifffile.TiffPage, name: str, length: int, most_pixels: int
) -> tuple[NDArray[Any], int]:
    _check_samples(page, name)
    _check_size(page, name, length, most_pixels)
    values = page.asarray(maxworkers=1)
    return _upright(_grey(page, values, name), page, name), _depth(page)


def _only_page(file: tifffile.TiffFile, name: str) -> tifffile.TiffPage:
    pages = [page.aspage() for page in islice(file.pages, _MOST_PAGES + 1)]
    if not pages:
        raise StageError(f"{name} holds no picture; copy it again")
    if len(pages) > _MOST_PAGES:
        raise StageError(f"{name} has more than {_MOST_PAGES} frames; give one picture a file")
    pictures = [page for page in pages if not page.subfiletype & _REDUCED] or pages
    planes = max(len(pictures), _planes(file, pictures[0]))
    if planes > 1:
        raise StageError(f"{name} has {planes} frames; give one picture a file")
    return pictures[0]


def _planes(file: tifffile.TiffFile, page: tifffile.TiffPage) -> int:
    """Return how many planes the file's own metadata name: a long stack has but one page."""
    if file.is_stk and 33629 in page.tags:  # MetaMorph: the tag UIC2 has an entry a plane
        return int(page.tags[33629].count)
    if file.is_imagej:
        return int((file.imagej_metadata or {}).get("images", 1))
    if file.is_shaped:
        described: Any = (file.shaped_metadata or ({},))[0]
        shape = described.get("shape", page.shape)
        return int(np.prod(shape, dtype=np.int64)) // max(1, int(np.prod(page.shape)))
    return 1


def _check_samples(page: tifffile.TiffPage, name: str) -> None:
    """Raise StageError for samples that are not what every layout declares."""
    if page.sampleformat != 1:
        kind = _KINDS.get(page.sampleformat, f"unknown (SampleFormat {page.sampleformat})")
        raise StageError(
            f"{name} has {kind} samples, a layout declares unsigned integers; convert all images "
            "of the plate to unsigned 16 bits with one and the same scale, and set files.bits = 16"
        )
    if 262 not in page.tags:
        raise StageError(f"{name} does not say whether black or white is 0; {_GREY}")
    bits, samples, meaning = page.bitspersample, page.samplesperpixel, page.photometric
    if meaning == 0:
        raise StageError(f"{name} has white as 0 (MinIsWhite), a layout declares black; {_GREY}")
    if meaning not in {_BLACK, _RGB, _PALETTE}:
        raise StageError(f"{name} has pixels of the kind {meaning.name}; {_GREY}")
    if samples != (3 if meaning == _RGB else 1):
        raise StageError(
            f"{name} has {samples} samples a pixel, a layout declares one; save each channel as a "
            "grey image of its own, without alpha"
        )
    if not isinstance(bits, int) or (meaning == _RGB and bits != 8):
        raise StageError(f"{name} is a colour image of {bits} bits a channel; {_GREY}")
    if meaning == _BLACK and not 8 <= bits <= 16:
        raise StageError(f"{name} has {bits} bits a sample, a layout declares 8 to 16; {_GREY}")
    if page.compression not in _READ:
        kind = getattr(page.compression, "name", page.compression)
        known = ", ".join(dict.fromkeys(_READ.values()))
        raise StageError(f"{name} is compressed with {kind}; save it with one of: {known}")


def _check_size(page: tifffile.TiffPage, name: str, length: int, most_pixels: int) -> None:
    width, height = page.imagewidth, page.imagelength
    # A tile is decoded whole, however little of it the picture needs.
    if max(width * height, page.tilewidth * page.tilelength) > most_pixels:
        raise StageError(f"{name} has {width} x {height} pixels, more than {most_pixels:,}")
    if page.imagedepth != 1:
        raise StageError(f"{name} has {page.imagedepth} planes; give one picture a file")
    # The library fills parts that are missing with 0.
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    expected = int(np.prod(page.chunked))
    if len(parts) != expected:
        raise StageError(f"{name} has {len(parts)} of {expected} parts; copy it again")
    if any(start < 8 or count < 1 or start + count > length for start, count in parts):
        raise StageError(f"{name} is truncated: it ends before its pixels do; copy it again")


def _grey(page: tifffile.TiffPage, values: NDArray[Any], name: str) -> NDArray[Any]:
    colours: list[NDArray[Any]]
    if page.photometric == _PALETTE:
        red, green, blue = (page.colormap >> 8).astype(np.uint8)
        colours = [red[values], green[values], blue[values]]
    elif page.photometric == _RGB:
        colours = list(np.moveaxis(values, -1 if page.planarconfig == 1 else 0, 0))
    else:
        colours = [values]
    if any(not np.array_equal(colours[0], other) for other in colours[1:]):
        raise StageError(f"{name} is a colour image; each channel must be a grey image of its own")
    if colours[0].shape != (page.imagelength, page.imagewidth) or colours[0].dtype.kind != "u":
        raise StageError(f"{name} holds other pixels than it declares; save it again")
    return colours[0]


def _depth(page: tifffile.TiffPage) -> int:
    return 8 if page.photometric == _PALETTE else int(page.bitspersample)


def _upright(values: NDArray[Any], page: tifffile.TiffPage, name: str) -> NDArray[Any]:
    """Return the picture as it is meant to be seen (tag Orientation, TIFF 6.0, page 36)."""
    orientation = int(page.tags.valueof(274, 1))
    if not 1 <= orientation <= 8:
        raise StageError(f"{name} has the orientation {orientation}, not 1 to 8; save it again")
    if orientation in _MIRRORED:
        values = values[:, ::-1]
    return np.ascontiguousarray(np.rot90(values, _QUARTER_TURNS.get(orientation, 0)))
