"""Fuzz jobs: pictures as the function reads them, with Pillow."""

import io
import struct

import numpy as np
from common.errors import StageError
from common.tiling import TILE, picture_channels
from hypothesis import strategies as st
from PIL import Image

PIXELS = np.random.default_rng(1).integers(0, 255, (TILE, TILE, 3)).astype(np.uint8)
PIXELS[..., 0] = 0
PIXELS[40:] = 7  # most of it compresses


def encoded(form, **options):
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, form, **options)
    return stream.getvalue()


def parse(data):
    green, _ = picture_channels(data, "the picture", 1 << 22)
    assert green.size >= (TILE, TILE)


def test_a_png_or_bmp(fuzz):
    words = [b"IDAT", b"IHDR", b"tRNS", b"PLTE", b"acTL", b"IEND", b"\x7f\xff\xff\xff", b"\0\0\0\0"]
    samples = [encoded("PNG"), encoded("BMP"), encoded("PNG", optimize=True)]
    fuzz.run(parse, fuzz.mutated(samples, words), refusal=StageError, names="the picture")


def test_a_tiff(fuzz):
    def chain(tags, frames, loop):
        """Return a TIFF of frames, each with the same few tags; the last may point at the first."""
        entries = struct.pack("<H", len(tags))
        entries += b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
        starts = [8 + (len(entries) + 4) * number for number in range(1, frames)]
        following = [*starts, 8 if loop else 0]
        chained = (entries + struct.pack("<I", start) for start in following)
        return b"II*\0" + struct.pack("<I", 8) + b"".join(chained)

    tag = st.tuples(
        st.sampled_from([254, 256, 257, 258, 259, 262, 273, 277, 278, 279, 320, 322, 330, 338, 339]),
        st.integers(0, 20), st.sampled_from([0, 1, 2, 2**31, 2**32 - 1]),
        st.sampled_from([0, 1, 8, 256, 65535, 2**32 - 1]),
    )  # fmt: skip
    made = st.builds(
        chain, st.lists(tag, max_size=9), st.sampled_from([1, 2, 50_000]), st.booleans()
    )
    samples = [
        encoded("TIFF", compression=c) for c in (None, "tiff_lzw", "tiff_deflate", "packbits")
    ]
    words = [
        b"II*\0",
        b"MM\0*",
        b"II+\0",
        *(struct.pack("<HHI", t, 4, 1) for t in (256, 257, 273, 324)),
    ]
    fuzz.run(parse, made | fuzz.mutated(samples, words), refusal=StageError, names="the picture")
