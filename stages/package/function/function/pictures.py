"""From a request's body to tiles: a picture as it is, as a form's file, or as base64 in JSON."""

from __future__ import annotations

import binascii
import importlib
import io
import json
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from common.errors import StageError
from common.tiling import FORMATS, TILE, default_target, picture_channels, tile_well
from numpy.typing import NDArray
from PIL import Image
from starlette.datastructures import UploadFile
from starlette.requests import Request

from .models import Size

NAME = "the picture"
MOST_VALUES = 1_000  # in a JSON body: an empty object takes 25 times its bytes of memory


@dataclass(frozen=True)
class Picture:
    """A picture's tiles, uint8 [rows * columns, 256, 256, 3], row by row, and its own size."""

    width: int
    height: int
    columns: int
    rows: int
    tiles: NDArray[np.uint8]


def decode(data: bytes, most_pixels: int, targets: Mapping[Size, Size]) -> Picture:
    """Cut a PNG, TIFF or BMP file's bytes as prepare cuts a well.

    Raises StageError where it is no 8-bit RGB picture, or of no size that `targets` names: cells
    would have another size in it than in the pictures that the models have learnt from.
    """
    signal, dna = picture_channels(data, NAME, most_pixels)
    target = targets.get(signal.size) if targets else default_target(*signal.size)
    if target is None:
        sizes = " or ".join(f"{width} x {height}" for width, height in targets)
        raise StageError(
            f"{NAME} has {signal.width} x {signal.height} pixels; a tile or a well of the models' "
            f"plate has {sizes}"
        )
    across, down = target
    tiles = tile_well(signal, dna, target)
    return Picture(signal.width, signal.height, across // TILE, down // TILE, tiles)


def warm() -> None:
    """Let Pillow load what a PNG needs, which it would do at the first one otherwise."""
    _decode_empty("PNG")


def warm_others() -> None:
    """Let Pillow load what the other formats need.

    For bodies that are no picture it looks at the formats that are allowed, and loads every one
    that it knows where one of these is missing; TIFF is none of those that it loads first.
    """
    importlib.import_module("PIL.TiffImagePlugin")
    for form in FORMATS:
        _decode_empty(form)


def _decode_empty(form: str) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (TILE, TILE)).save(stream, form)
    decode(stream.getvalue(), TILE * TILE, {})


def parse_json(body: bytes, tokens: bytes) -> Any:
    """Return a JSON body's value, in which each of `tokens` stands for a value.

    Raises StageError where it is none, or has more than MOST_VALUES of them, which is found before
    any is made.
    """
    if _more_than(MOST_VALUES, tokens, body):
        raise StageError(
            f"the JSON has more than {MOST_VALUES} of the signs {tokens.decode()}; leave out "
            "what is not asked for"
        )
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise StageError(f"the body is no JSON ({str(error)[:100]})") from None


def _more_than(most: int, tokens: bytes, body: bytes) -> bool:
    """Tell whether `body` has more than `most` of `tokens`.

    `find` leaps over what is none of them, as most of a picture's base64 is; `count` does not.
    """
    for token in tokens:
        at = body.find(token)
        while at >= 0:
            if most == 0:
                return True
            most -= 1
            at = body.find(token, at + 1)
    return False


def of_json(body: bytes) -> bytes:
    """Return the picture of `{"image": "<base64>"}`; raises StageError where there is none."""
    document = parse_json(body, b",[{")
    text = document.get("image") if isinstance(document, dict) else None
    if not isinstance(text, str):
        raise StageError(
            'the body has no picture; send {"image": "<base64 of a PNG, TIFF or BMP>"}'
        )
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise StageError(f"the image is no base64 ({error})") from None


async def of_form(request: Request) -> bytes:
    """Return the only file of a multipart form; raises StageError where there is none."""
    async with request.form(max_files=1, max_fields=16) as form:
        for _, value in form.multi_items():
            if isinstance(value, UploadFile):
                data: bytes = await value.read()
                return data
    raise StageError("the form has no file; send the picture as a file, with a filename")
