"""One plate to tiles.npy: wells are read, checked, measured and cut in worker processes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from io import BytesIO, FileIO
from itertools import accumulate
from pathlib import Path

import numpy as np
from common import digest, tiling
from common.errors import MachineError, StageError
from common.kinds.inventory import Plane
from common.layout import Layout
from common.pictures import read_picture, shared_files
from common.plate import Place, Plate, files_of
from common.shrink import Grey
from numpy.typing import NDArray
from PIL import Image

from prepare.quality import Quality, measure

THUMBNAIL = 64  # pixels, the longer side
_ROWS = 8  # of a picture at least, that a row of its thumbnail is made of
_BUFFER = 1 << 18  # bytes, which stay in the processor's cache between reading and hashing


@dataclass(frozen=True)
class Job:
    """One field of a well: what its two pictures are made of, and where its tiles go.

    Where the plate need not be `whole`, a picture may be without planes, or unreadable.
    """

    well: str
    field: int
    plate: Plate  # its folder; the images of the whole plate are not handed to every worker
    planes: Mapping[str, tuple[Plane, ...]]  # meaning -> what its picture is made of
    size: tuple[int, int]
    bits: int
    target: tuple[int, int]
    output: str
    offset: int  # bytes
    picked: tuple[int, ...]  # of the field's tiles
    whole: bool = True


@dataclass(frozen=True)
class Field:
    """What came out of one field of a well.

    `flag` is `missing` or `unreadable` where there is no picture, and its tiles are black, and
    `problem` says what is wrong. Else both are empty.
    """

    well: str
    field: int
    hashes: Mapping[str, str]
    quality: Quality
    thumbnail: NDArray[np.uint8]  # [h, w, 2]: signal, DNA
    flag: str = ""
    problem: str = ""


def cut_field(job: Job) -> Field:
    """Read, check and measure one field; write its tiles at their place in tiles.npy."""
    pictures: dict[str, Grey] = {}
    hashes: dict[str, str] = {}
    flag = problem = ""
    for meaning, planes in job.planes.items():
        try:
            if not planes:
                flag = "missing"
                raise StageError(f"well {job.well} lacks its {meaning} image")
            pictures[meaning], found = read_picture(job.plate, planes, job.size, job.bits)
        except StageError as error:
            if job.whole:
                raise
            flag, problem = flag or "unreadable", str(error)
            found = {path: digest.file_sha256(path) for path in files_of(job.plate, planes)}
        hashes |= {job.plate.relative(path): sha256 for path, sha256 in found.items()}
    if problem:
        pictures = dict.fromkeys(job.planes, np.zeros(job.size[::-1], np.uint8))
    signal, dna = pictures["signal"], pictures["dna"]
    tiles = tiling.tile_well(signal, dna, job.target)
    if len(job.picked) < len(tiles):
        tiles = tiles[list(job.picked)]
    try:
        with Path(job.output).open("r+b", buffering=0) as file:
            file.seek(job.offset)
            left = memoryview(tiles.data).cast("B")
            while left:
                left = left[file.write(left) :]
    except OSError as error:
        raise MachineError(
            f"cannot write {job.output}: {error.strerror or error}; make room"
        ) from None
    thumbnail = np.stack([_thumbnail(picture) for picture in (signal, dna)], axis=-1)
    return Field(job.well, job.field, hashes, measure(signal, dna), thumbnail, flag, problem)


def _thumbnail(picture: Grey) -> Grey:
    """Return a small copy, made of some rows only of a large picture: reading it takes a while."""
    height, width = picture.shape
    scale = THUMBNAIL / max(width, height)
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    rows = Image.fromarray(picture[:: max(1, height // (_ROWS * small[1]))])
    return np.asarray(rows.resize(small, Image.Resampling.BOX, reducing_gap=2.0))


def spread(fields: int, tiles: int, most: int) -> dict[int, tuple[int, ...]]:
    """Return field -> the tiles taken of it: all, or `most` of a well, evenly spread over them."""
    if not 0 < most < fields * tiles:
        return {field: tuple(range(tiles)) for field in range(fields)}
    picked = [int((2 * n + 1) * fields * tiles / (2 * most)) for n in range(most)]
    chosen: dict[int, tuple[int, ...]] = {}
    for place in picked:
        chosen[place // tiles] = (*chosen.get(place // tiles, ()), place % tiles)
    return chosen


def cut_plate(
    plate: Plate,
    layout: Layout,
    output: Path,
    *,
    tiles_per_well: int = 0,
    whole: bool = True,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Field], str, str]:
    """Write `output` (tiles.npy); return its fields, in the order of its tiles, and two digests.

    The digests are the sha256 of `output` and the plate's (see `common.plate.digest_of`). Of a well
    at most `tiles_per_well` tiles are taken, where that is not 0, and what they are not in is not
    read.
    Memory: one field a worker. Raises StageError for the first image that cannot be used; where
    the plate need not be `whole`, only where no field can be.
    """
    target = layout.target or tiling.default_target(*layout.size)
    count = (target[0] // tiling.TILE) * (target[1] // tiling.TILE)
    picks = spread(layout.fields, count, tiles_per_well)
    places = [(name, number) for name in layout.wells for number in picks]
    header = _header(sum(len(picks[number]) for _, number in places))
    size = tiling.TILE * tiling.TILE * 3
    befores = accumulate((len(picks[number]) for _, number in places), initial=0)
    jobs = [
        Job(
            well=name,
            field=number,
            plate=Plate(plate.folder, fill_missing=plate.fill_missing),
            planes={
                meaning: plate.images.get(Place(name, number, meaning), ())
                for meaning in ("signal", "dna")
            },
            size=layout.size,
            bits=layout.bits,
            target=target,
            output=str(output),
            offset=len(header) + size * before,
            picked=picks[number],
            whole=whole,
        )
        for before, (name, number) in zip(befores, places, strict=False)
    ]
    try:
        output.write_bytes(header)
    except OSError as error:
        raise MachineError(f"cannot write {output}: {error.strerror or error}") from None
    processes = workers or len(os.sched_getaffinity(0))
    fields: list[Field] = []
    total = hashlib.sha256(header)
    pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("fork"))
    try:
        with output.open("rb", buffering=0) as file:
            file.seek(len(header))
            for job, field in zip(jobs, pool.map(cut_field, jobs), strict=True):
                fields.append(field)
                _hash(file, size * len(job.picked), total)
                if progress is not None:
                    progress(len(fields), len(jobs))
        shared = shared_files(plate)
        hashes = dict(
            zip(map(plate.relative, shared), pool.map(digest.file_sha256, shared), strict=True)
        )
    except BrokenProcessPool:
        raise MachineError(
            f"a worker was killed after {len(fields)} of {len(jobs)} fields, most likely for want "
            "of memory; give the task more memory"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    if all(field.problem for field in fields):
        raise StageError(f"no image of the plate can be used: {fields[0].problem}")
    for field in fields:
        hashes |= field.hashes
    return fields, total.hexdigest(), digest.of_hashes(hashes)


def _hash(file: FileIO, length: int, total: hashlib._Hash) -> None:
    """Take the next `length` bytes of a file into a digest."""
    buffer = memoryview(bytearray(_BUFFER))
    while length:
        count = file.readinto(buffer[: min(length, _BUFFER)])
        if not count:
            raise MachineError(f"{file.name} ends too early; another program may have changed it")
        total.update(buffer[:count])
        length -= count


def _header(tiles: int) -> bytes:
    stream = BytesIO()
    shape = (tiles, tiling.TILE, tiling.TILE, 3)
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()
