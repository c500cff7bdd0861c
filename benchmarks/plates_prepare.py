"""What `benchmarks/plates.py` measures in the prepare image. Each function is its own process."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

SMALL = """
format = 1
name = "small"
[files]
pattern = '(?P<row>[A-D])(?P<column>\\d)-(?P<channel>[12])\\.png'
size = [512, 512]
[channels]
1 = "signal"
2 = "dna"
[plate]
rows = 4
columns = 4
[[wells]]
rows = "A-D"
columns = "1-4"
roles = ["negative", "negative", "positive", "positive"]
[folds]
A = "A-B"
B = "C-D"
"""
LARGE = """
format = 1
name = "large"
[files]
pattern = '(?P<row>[A-P])(?P<column>\\d+)-f(?P<field>\\d)-(?P<channel>[12])\\.tif'
size = [2160, 2160]
bits = 16
fields = 9
[channels]
1 = "signal"
2 = "dna"
[plate]
rows = 16
columns = 24
[[wells]]
rows = "A-P"
columns = "1-24"
role = "sample"
[folds]
A = "A-H"
B = "I-P"
"""


def _peaks() -> dict[str, float]:
    own, below = (
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {"own_mib": own, "worker_mib": below}


def draw(folder: str, plates: str) -> dict[str, Any]:
    """Draw one small plate, and link its files into so many folders, each a plate."""
    from common import layout as layouts
    from prepare.synthetic import draw_well

    known = layouts.parse(SMALL, "small")
    root = Path(folder)
    first = root / "P0001"
    first.mkdir(parents=True)
    for well in known.wells.values():
        for channel, image in enumerate(draw_well(well, known.size, 0), start=1):
            image.save(first / f"{well.row}{well.column}-{channel}.png")
    for number in range(2, int(plates) + 1):
        other = root / f"P{number:04d}"
        other.mkdir()
        for file in first.iterdir():
            os.link(file, other / file.name)
    (root / "small.toml").write_text(SMALL)
    return {}


def controls(folder: str, workspace: str, plates: str) -> dict[str, Any]:
    """Cut the control wells of so many plates one after the other; seconds, and MiB at the peak."""
    from common.plate_list import ListedPlate
    from common.stage_io import StageIO
    from prepare.controls import control_tiles
    from prepare.plates import as_text

    os.environ |= {"PLATELINE_IMAGES": folder, "PLATELINE_WORKSPACE": workspace}
    start, digests = time.perf_counter(), []
    for number in range(1, int(plates) + 1):
        one = ListedPlate(f"P{number:04d}", f"P{number:04d}", "small.toml")
        text = as_text(one).replace("small.toml", str(Path(folder, "small.toml")))
        values = {"listed": text, "tiles_per_well": 2.0, "workspace_name": f"w{plates}"}
        task = StageIO({"inputs": {"parameterValues": values}})
        control_tiles(task)
        digests.append(task.output_parameters()["digest"])
    Path(workspace, f"digests{plates}.json").write_text(json.dumps(digests))
    return {"seconds": time.perf_counter() - start, **_peaks()}


def gathered(workspace: str, plates: str) -> dict[str, Any]:
    """Gather so many plates and read every tile of theirs; seconds, MiB, bytes of the argument."""
    from common import many_plates
    from common.stage_io import StageIO
    from prepare.gather import gather

    os.environ["PLATELINE_WORKSPACE"] = workspace
    text = Path(workspace, f"digests{plates}.json").read_text()
    values = {"digests": json.loads(text), "workspace_name": f"w{plates}"}
    out = Path(workspace, f"out{plates}")
    artifacts = {n: {"artifacts": [{"uri": str(out / n)}]} for n in ("tiles", "summary")}
    document = {"inputs": {"parameterValues": values}, "outputs": {"artifacts": artifacts}}
    start = time.perf_counter()
    gather(StageIO(document))
    tiles = many_plates.read(out / "tiles")
    for row in range(len(tiles.array)):
        tiles.array[row]
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "tiles": len(tiles.index), "bytes": len(text), **_peaks()}


def link(folder: str, wells: str) -> dict[str, Any]:
    """Write four 16-bit pictures of noise, and link them as those of so many wells of 9 fields."""
    import numpy as np
    import tifffile
    from common import layout as layouts

    root, random = Path(folder), np.random.default_rng(0)
    root.mkdir()
    (root / "source").mkdir()
    sources = []
    for number in range(4):
        path = root / "source" / f"{number}.bin"
        picture = random.poisson(400 + 900 * number, (2160, 2160)).astype(np.uint16)
        tifffile.imwrite(path, picture, compression="zlib", photometric="minisblack")
        sources.append(path)
    known, count = layouts.parse(LARGE, "large"), 0
    for well in list(known.wells.values())[: int(wells)]:
        for field in range(9):
            for channel in (1, 2):
                name = f"{well.row}{well.column}-f{field}-{channel}.tif"
                os.link(sources[count % 4], root / name)
                count += 1
    return {"files": count, "bytes": sum(p.stat().st_size for p in root.glob("*.tif"))}


def _only(wells: str) -> Any:
    from dataclasses import replace

    from common import layout as layouts

    known = layouts.parse(LARGE, "large")
    return replace(known, wells=dict(list(known.wells.items())[: int(wells)]))


def prepare(folder: str, out: str, wells: str, workers: str) -> dict[str, Any]:
    """Prepare the plate of so many wells; seconds, and MiB at the peak."""
    from prepare.stage import prepare_plate

    start = time.perf_counter()
    prepare_plate(
        Path(folder), _only(wells), Path(out), Path(out + ".html"), quiet=True, workers=int(workers)
    )
    return {"seconds": time.perf_counter() - start, "processor": _processor(), **_peaks()}


def _read(path: Path) -> int:
    import tifffile

    return int(tifffile.imread(path, maxworkers=1).size)


def read(folder: str, workers: str) -> dict[str, Any]:
    """Read and decode the same files by tifffile in as many processes; seconds."""
    files, start = sorted(Path(folder).glob("*.tif")), time.perf_counter()
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(int(workers), mp_context=context) as pool:
        pixels = sum(pool.map(_read, files))
    return {"seconds": time.perf_counter() - start, "processor": _processor(), "pixels": pixels}


def _processor() -> float:
    """Return the seconds of the processor that this process and its ended workers took."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both)


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
