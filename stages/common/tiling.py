"""Reads microscope images and cuts them into tiles: the same code for prepare and for serving.

Pillow, numpy and isal only. A picture is uint8 [height, width, 3] with R = 0, G = signal, B = DNA;
a tile is such a picture of 256 x 256. Intensities are never stretched: an empty tile stays dark.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from .errors import StageError
from .png import stored

TILE = 256
FORMATS = ("PNG", "TIFF", "BMP")
MOST_PIXELS = 64_000_000
Picture = NDArray[np.uint8]


def open_image(data: bytes, name: str, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """Return the decoded image of a PNG, TIFF or BMP file's bytes.

    The number of pixels is checked before anything is decoded. Raises StageError, naming `name`.
    """
    if not data:
        raise StageError(f"{name} is empty (0 bytes); copy it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(stored(data, most_pixels)), formats=FORMATS)
            if image.width * image.height > most_pixels:
                raise StageError(
                    f"{name} has {image.width} x {image.height} pixels, more than {most_pixels:,}"
                )
            if (frames := getattr(image, "n_frames", 1)) > 1:
                raise StageError(f"{name} has {frames} frames; give one picture a file")
            # Pillow would drop the lower bits of such pictures without a word.
            if image.mode == "RGB" and ";16" in str(image.tile):
                raise StageError(f"{name} has 16 bits a channel; save it with 8")
            image.load()
    except Image.DecompressionBombError:
        raise StageError(f"{name} has far more than {most_pixels:,} pixels") from None
    except UnidentifiedImageError:
        raise StageError(f"{name} is no readable PNG, TIFF or BMP image; copy it again") from None
    except StageError:
        raise
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise whatever their input provokes
        raise StageError(
            f"{name} is damaged or truncated ({error or type(error).__name__}); copy it again"
        ) from None
    return image


def grey(data: bytes, name: str, bits: int = 8, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """Return a single channel's image as 8-bit grey (mode L).

    Palettes are applied; 16-bit values become 8-bit by dropping the lower `bits` - 8 bits, the
    same for every image. Raises StageError for a colour image and for values above 2**bits - 1.
    """
    image = open_image(data, name, most_pixels)
    if image.mode == "L":
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        if image.mode == "F" or bits == 8:
            raise StageError(
                f"{name} has {'floating-point' if image.mode == 'F' else '16-bit'} values where "
                "the layout says 8; set files.bits (12, 14 or 16) in the layout"
            )
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= 1 << bits:
            raise StageError(
                f"{name} has the value {low if low < 0 else high}, outside {bits} bits; "
                "correct files.bits in the layout"
            )
        return Image.fromarray((values >> (bits - 8)).astype(np.uint8))
    colour = np.asarray(image.convert("RGB"))
    if (colour[..., 0] != colour[..., 1]).any() or (colour[..., 0] != colour[..., 2]).any():
        raise StageError(f"{name} is a colour image; each channel must be a grey image of its own")
    return Image.fromarray(np.ascontiguousarray(colour[..., 0]))


def default_target(width: int, height: int) -> tuple[int, int]:
    """Return the nearest multiples of 256, at least one tile each way."""
    return tuple(max(1, round(n / TILE)) * TILE for n in (width, height))  # type: ignore[return-value]


def fit(image: Image.Image, target: tuple[int, int] | None = None) -> Image.Image:
    """Return `image` scaled and centre-cropped to `target` (width, height), aspect kept.

    One scale for both axes: the smallest at which the target is covered; what is over goes in
    equal parts from both sides. Shrinking averages areas (BOX), enlarging is bilinear.
    """
    width, height = image.size
    across, down = target or default_target(width, height)
    scale = max(across / width, down / height)
    left = max(0.0, (width - across / scale) / 2)  # rounding can fall just below 0
    top = max(0.0, (height - down / scale) / 2)
    if scale == 1:
        return image.crop((int(left), int(top), int(left) + across, int(top) + down))
    return image.resize(
        (across, down),
        Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR,
        box=(left, top, width - left, height - top),
    )


def cut(picture: Picture) -> Picture:
    """Return the tiles [n, 256, 256, 3] of a picture, row by row from the top left (a view)."""
    height, width, channels = picture.shape
    if height % TILE or width % TILE:
        raise ValueError(f"{width} x {height} is no multiple of {TILE}")
    blocks = picture.reshape(height // TILE, TILE, width // TILE, TILE, channels)
    return blocks.swapaxes(1, 2).reshape(-1, TILE, TILE, channels)


def compose(signal: Image.Image, dna: Image.Image) -> Picture:
    """Return the tiles uint8 [n, 256, 256, 3] of two fitted grey images of one size."""
    if signal.size != dna.size:
        raise ValueError(f"signal is {signal.size}, DNA {dna.size}")
    width, height = signal.size
    across, down = width // TILE, height // TILE
    tiles = np.zeros((down, across, TILE, TILE, 3), np.uint8)
    for channel, image in ((1, signal), (2, dna)):
        blocks = np.asarray(image).reshape(down, TILE, across, TILE)
        tiles[..., channel] = blocks.swapaxes(1, 2)
    return tiles.reshape(-1, TILE, TILE, 3)


def tile_well(
    signal: Image.Image, dna: Image.Image, target: tuple[int, int] | None = None
) -> Picture:
    """Return a well's tiles from its two grey images."""
    return compose(fit(signal, target), fit(dna, target))


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
