"""A small plate with a layout of its own: two rows, four columns, 256 x 256 pixels, grey BMP."""

from __future__ import annotations

import random
import struct
from pathlib import Path

LAYOUT = """\
format = 1
name = "small"
title = "Two rows for tests"
source = "made by a test"

[files]
pattern = 'c(?P<channel>[12])-(?P<row>[AB])(?P<column>[1-4])\\.bmp'
size = [256, 256]

[channels]
1 = "signal"
2 = "dna"

[plate]
rows = 8
columns = 12

[[wells]]
rows = "A-B"
columns = "1-2"
role = "negative"

[[wells]]
rows = "A-B"
columns = "3-4"
role = "positive"

[folds]
"A" = "A"
"B" = "B"
"""


def picture(width: int, height: int, seed: int) -> bytes:
    """Return an 8-bit grey BMP of blocks with random brightness."""
    draw = random.Random(seed)
    blocks = [[draw.randrange(20, 230) for _ in range(16)] for _ in range(16)]
    row_bytes = (width + 3) // 4 * 4
    rows = b"".join(
        bytes(blocks[y * 16 // height][x * 16 // width] for x in range(width)).ljust(
            row_bytes, b"\0"
        )
        for y in range(height)
    )
    palette = b"".join(bytes((grey, grey, grey, 0)) for grey in range(256))
    start = 54 + len(palette)
    head = struct.pack("<2sIHHI", b"BM", start + len(rows), 0, 0, start)
    return (
        head
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 0, len(rows), 2835, 2835, 256, 0)
        + palette
        + rows
    )


def write_plate(folder: Path) -> Path:
    """Write the plate and its layout `small.toml` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "small.toml").write_text(LAYOUT)
    for row in "AB":
        for column in range(1, 5):
            for channel in (1, 2):
                seed = channel + 10 * column + (100 if row == "B" else 0)
                image = picture(256, 256, seed)
                (folder / f"c{channel}-{row}{column}.bmp").write_bytes(image)
    return folder
