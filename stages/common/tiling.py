"""Reads microscope images and cuts them into tiles: the same code for prepare and for serving.

A picture is uint8 [height, width, 3] with R = 0, G = signal, B = DNA; a tile is such a picture of
256 x 256. Intensities are never stretched: an empty tile stays dark.
Pillow, numpy and isal; `grey` reads a TIFF file with tifffile, which only prepare's image has.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from . import shrink
from .bounds import MOST_PIXELS
from .errors import StageError
from .png import stored
from .shrink import Grey

TILE = 256
FORMATS = ("PNG", "TIFF", "BMP")
Picture = NDArray[np.uint8]
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF
_FEWER_BITS = {"1": 1, "1;I": 1, "L;2": 2, "L;4": 4, "BGR;15": 5, "BGR;16": 5}  # Pillow's raw modes
_OTHER_FORMATS = (  # first bytes, where they begin, and what writes them
    (b"\xff\xd8\xff", 0, "JPEG"),
    (b"jP  \r\n\x87\n", 4, "JPEG 2000"),
    (b"\xff\x4f\xff\x51", 0, "JPEG 2000"),
    (b"II\xbc", 0, "JPEG XR"),
    (b"GIF8", 0, "GIF"),
    (b"WEBP", 8, "WebP"),
    (b"ZISRAWFILE", 0, "Zeiss CZI"),
    (b"\xda\xce\xbe\n", 0, "Nikon ND2"),
    (b"\x89HDF\r\n\x1a\n", 0, "HDF5"),
    (b"DICM", 128, "DICOM"),
    (b"PK\x03\x04", 0, "ZIP"),
    (b"\x1f\x8b", 0, "gzip"),
)


def open_image(
    data: bytes, name: str, most_pixels: int = MOST_PIXELS, formats: tuple[str, ...] = FORMATS
) -> Image.Image:
    """Return the decoded image of a PNG, TIFF or BMP file's bytes.

    The number of pixels is checked before anything is decoded. Raises StageError, naming `name`,
    also for what Pillow would leave out without a word: frames, samples, bits, transparency.
    """
    if not data:
        raise StageError(f"{name} is empty (0 bytes); copy it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(stored(data, most_pixels)), formats=formats)
            _check_whole(image, name, most_pixels)
            image.load()
    except Image.DecompressionBombError:
        raise StageError(f"{name} has far more than {most_pixels:,} pixels") from None
    except UnidentifiedImageError:
        raise StageError(f"{name} {_not_read(data)}") from None
    except StageError:
        raise
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise whatever their input provokes
        raise StageError(
            f"{name} is damaged or truncated ({error or type(error).__name__}); copy it again"
        ) from None
    # A PNG's chunk tRNS is no band of the picture. It may stand behind its first pixels.
    if "transparency" in image.info:
        raise StageError(f"{name} has a transparent colour; save it without transparency")
    return image


def _check_whole(image: Image.Image, name: str, most_pixels: int) -> None:
    """Raise StageError where Pillow would decode less than the file holds."""
    if image.width * image.height > most_pixels:
        raise StageError(
            f"{name} has {image.width} x {image.height} pixels, more than {most_pixels:,}"
        )
    # How many there are is not asked: of some thousand frames, Pillow needs minutes to count them.
    if getattr(image, "is_animated", False):
        raise StageError(f"{name} has more than one frame; give one picture a file")
    raw = _raw_mode(image)
    if len(image.getbands()) > 1 and ";16" in raw and raw not in _FEWER_BITS:
        raise StageError(
            f"{name} has several samples of 16 bits a pixel, and half of each would be lost; save "
            "it with 8 bits, or each channel as a grey image of its own"
        )
    if raw in _FEWER_BITS:
        raise StageError(f"{name} has {_FEWER_BITS[raw]} bits a sample; save it with at least 8")
    if image.format == "TIFF":
        samples = int(image.tag_v2.get(277, 1))
        if samples != len(image.getbands()):
            raise StageError(
                f"{name} has {samples} samples a pixel, of which {len(image.getbands())} would be "
                "read; save it without the others"
            )


def _raw_mode(image: Image.Image) -> str:
    """Return Pillow's name for the order and depth of the samples in the file."""
    if not image.tile:
        return ""
    arguments = image.tile[0][3]
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _not_read(data: bytes) -> str:
    for start, offset, kind in _OTHER_FORMATS:
        if data.startswith(start, offset):
            return (
                f"is no readable PNG, TIFF or BMP image but a {kind} file; save it as one of these"
            )
    if data.startswith(_TIFF):
        return (
            "is damaged or truncated, or a TIFF of a kind that is not read here; copy it again, or "
            "save it as PNG"
        )
    return "is no readable PNG, TIFF or BMP image; copy it again"


def grey(data: bytes, name: str, bits: int = 8, most_pixels: int = MOST_PIXELS) -> Grey:
    """Return a single channel's image as 8-bit grey, uint8 [height, width].

    A layout declares one unsigned sample of `bits` bits a pixel, with black as 0; a file of 9 to 16
    bits may keep them in 16. Palettes are applied, and three equal samples are grey. More than 8
    bits become 8 by dropping the lowest `bits` - 8, the same for every image. Raises StageError
    for every other file, and for values above 2**bits - 1.
    """
    if data.startswith(_TIFF):
        from . import tiff  # serving has no tifffile, and never comes here

        values, depth = tiff.grey_samples(data, name, most_pixels)
    else:
        values, depth = _grey_samples(open_image(data, name, most_pixels, ("PNG", "BMP")), name)
    return to_grey(values, depth, name, bits)


def to_grey(values: NDArray[Any], depth: int, name: str, bits: int) -> Grey:
    """Return samples [height, width] of `depth` bits as 8-bit grey, as `grey` does."""
    if depth not in {bits, 8 if bits == 8 else 16}:
        raise StageError(
            f"{name} has {depth}-bit values where the layout says {bits}; "
            + (
                "where all images of the plate have them, set files.bits to the bits that the "
                "camera gives: 16, or less where the highest bits are never used"
                if depth > 8
                else "replace it, or set files.bits = 8 where all images of the plate have 8"
            )
        )
    if bits == 8:
        return values
    if bits < 8 * values.dtype.itemsize and (highest := int(values.max())) >= 1 << bits:
        raise StageError(
            f"{name} has the value {highest}, which needs {highest.bit_length()} bits where the "
            f"layout says {bits}; set files.bits = {highest.bit_length()} or more"
        )
    made = np.empty(values.shape, np.uint8)
    np.right_shift(values, bits - 8, out=made, casting="unsafe")
    return made


def _grey_samples(image: Image.Image, name: str) -> tuple[NDArray[Any], int]:
    """Return a PNG or BMP file's grey samples [height, width] and their depth."""
    if image.mode == "L":
        return np.asarray(image), 8
    if image.mode.startswith("I"):
        return np.asarray(image), 16
    if image.mode not in {"RGB", "P"}:
        raise StageError(
            f"{name} has {len(image.getbands())} samples a pixel ({image.mode}), a layout declares "
            "one; save each channel as a grey image of its own, without alpha"
        )
    colour = np.asarray(image.convert("RGB"))
    if (colour[..., 0] != colour[..., 1]).any() or (colour[..., 0] != colour[..., 2]).any():
        raise StageError(f"{name} is a colour image; each channel must be a grey image of its own")
    return np.ascontiguousarray(colour[..., 0]), 8


def default_target(width: int, height: int) -> tuple[int, int]:
    """Return the nearest multiples of 256, at least one tile each way."""
    return tuple(max(1, round(n / TILE)) * TILE for n in (width, height))  # type: ignore[return-value]


def fit(picture: Grey, target: tuple[int, int] | None = None) -> Grey:
    """Return `picture` [h, w] scaled and centre-cropped to `target` (width, height), aspect kept.

    One scale for both axes: the smallest at which the target is covered; what is over goes in
    equal parts from both sides. Shrinking averages areas (BOX), enlarging is bilinear.
    """
    height, width = picture.shape
    across, down = target or default_target(width, height)
    scale = max(across / width, down / height)
    left = max(0.0, (width - across / scale) / 2)  # rounding can fall just below 0
    top = max(0.0, (height - down / scale) / 2)
    if scale == 1:
        return picture[int(top) : int(top) + down, int(left) : int(left) + across]
    part = (left, top, width - left, height - top)
    if scale < 1:
        return shrink.box(picture, (across, down), part)
    enlarged = Image.fromarray(picture).resize((across, down), Image.Resampling.BILINEAR, box=part)
    return np.asarray(enlarged)


def cut(picture: Picture) -> Picture:
    """Return the tiles [n, 256, 256, 3] of a picture, row by row from the top left (a view)."""
    height, width, channels = picture.shape
    if height % TILE or width % TILE:
        raise ValueError(f"{width} x {height} is no multiple of {TILE}")
    blocks = picture.reshape(height // TILE, TILE, width // TILE, TILE, channels)
    return blocks.swapaxes(1, 2).reshape(-1, TILE, TILE, channels)


def compose(signal: Grey, dna: Grey) -> Picture:
    """Return the tiles uint8 [n, 256, 256, 3] of two fitted grey pictures of one size."""
    if signal.shape != dna.shape:
        raise ValueError(f"signal is {signal.shape}, DNA {dna.shape}")
    down, across = (n // TILE for n in signal.shape)
    tiles = np.zeros((down, across, TILE, TILE, 3), np.uint8)
    for channel, picture in ((1, signal), (2, dna)):
        blocks = picture.reshape(down, TILE, across, TILE)
        tiles[..., channel] = blocks.swapaxes(1, 2)
    return tiles.reshape(-1, TILE, TILE, 3)


def tile_well(
    signal: Grey | Image.Image, dna: Grey | Image.Image, target: tuple[int, int] | None = None
) -> Picture:
    """Return a well's tiles from its two grey pictures, as arrays [h, w] or images."""
    return compose(fit(np.asarray(signal), target), fit(np.asarray(dna), target))


def picture_channels(
    data: bytes, name: str = "the image", most_pixels: int = MOST_PIXELS
) -> tuple[Image.Image, Image.Image]:
    """Return signal and DNA, grey, of one RGB picture file (R = 0, G = signal, B = DNA).

    Raises StageError where it is not an 8-bit RGB picture of at least one tile.
    """
    image = open_image(data, name, most_pixels)
    if image.mode != "RGB":
        raise StageError(
            f"{name} is {image.mode}, not RGB; send red = 0, green = signal, blue = DNA, no alpha"
        )
    if min(image.size) < TILE:
        raise StageError(
            f"{name} has {image.width} x {image.height} pixels; a tile has {TILE} x {TILE}"
        )
    _, green, blue = image.split()
    return green, blue
