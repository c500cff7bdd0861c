"""From a request's body to tiles: a picture as it is, as a form's file, or as base64 in JSON."""

from __future__ import annotations

import binascii
import json
from base64 import b64decode
from dataclasses import dataclass
from typing import Any

import numpy as np
from common.errors import StageError
from common.tiling import TILE, default_target, picture_channels, tile_well
from numpy.typing import NDArray
from starlette.datastructures import UploadFile
from starlette.requests import Request

NAME = "the picture"


@dataclass(frozen=True)
class Picture:
    """A picture's tiles, uint8 [rows * columns, 256, 256, 3], row by row, and its own size."""

    width: int
    height: int
    columns: int
    rows: int
    tiles: NDArray[np.uint8]


def decode(data: bytes, most_pixels: int) -> Picture:
    """Cut a PNG, TIFF or BMP file's bytes as prepare cuts a well.

    Raises StageError where it is no 8-bit RGB picture.
    """
    signal, dna = picture_channels(data, NAME, most_pixels)
    across, down = default_target(*signal.size)
    return Picture(*signal.size, across // TILE, down // TILE, tile_well(signal, dna))


def parse_json(body: bytes) -> Any:
    """Return a JSON body's value; raises StageError where it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise StageError(f"the body is no JSON ({str(error)[:100]})") from None


def of_json(body: bytes) -> bytes:
    """Return the picture of `{"image": "<base64>"}`; raises StageError where there is none."""
    document = parse_json(body)
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
                return await value.read()
    raise StageError("the form has no file; send the picture as a file, with a filename")
