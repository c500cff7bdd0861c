"""Fuzz job: TIFF files as prepare reads them, with tifffile and imagecodecs."""

import io
import struct

import numpy as np
import tifffile
from common.errors import StageError
from common.tiff import grey_samples

PIXELS = np.arange(60 * 70, dtype=np.uint32).reshape(60, 70)


def tiff(kind, **options):
    stream = io.BytesIO()
    tifffile.imwrite(stream, PIXELS.astype(kind), **options)
    return stream.getvalue()


def test_a_tiff(fuzz):
    samples = [tiff(np.uint8, compression=c) for c in (None, "lzw", "zlib", "packbits", "jpeg2000")]
    samples += [tiff(np.uint16, bigtiff=True), tiff(np.uint8, ome=True), tiff(np.uint8, imagej=True),
                tiff(np.uint16, tile=(16, 32)), tiff(np.uint8, byteorder=">")]  # fmt: skip
    words = [b"II*\0", b"MM\0*", b"II+\0", b"ImageJ=1\nimages=9", b"<OME>", b'{"shape": [9e9]}', b"\0" * 8,
             *(struct.pack("<HHI", t, 4, 1) for t in (254, 256, 257, 273, 322, 324, 330, 33629, 34412))]  # fmt: skip

    def parse(data):
        values, bits = grey_samples(data, "a.tif", 1 << 22)
        assert values.ndim == 2
        assert values.dtype.itemsize == (1 if bits == 8 else 2)

    fuzz.run(parse, fuzz.mutated(samples, words), refusal=StageError, names="a.tif")
