"""Many plates and one large plate: what grows, and how far from bare reading prepare is.

    .venv/bin/python -m benchmarks.plates [--plates N] [--wells N]

Cuts N/8, N/4, N/2 and N small simulated plates and gathers them; prints seconds and memory of each,
and the package's size and number of tasks. Then prepares a 384-well plate of 9 fields, 2 channels,
2160 x 2160 pixels and 16 bits (or its first wells: `--wells 384` makes 44 GB of tiles) whose files
are links to four, beside a loop that reads and decodes them with tifffile. Asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks import figures
from builder.build.make import Built, build
from builder.build.workspace import Workspace
from builder.sandbox.engines import choose
from builder.sandbox.process import Mount, Process, run
from builder.store import Store

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dist/plateline-plates.yaml"
_RATIO = 1.3  # of prepare to reading and decoding alone


def inside(store: Store, built: Built, scratch: Path, *words: str) -> dict[str, Any]:
    """Return what a function of plates_prepare.py returned; exits where it fails."""
    with (scratch / "log").open("wb") as log:
        process = Process(
            image=built.image, command=("python3", "/benchmark/plates_prepare.py", *words),
            # The bare loop runs as anybody's would, with glibc's own settings.
            env={"PYTHONPATH": "/app"} | ({"GLIBC_TUNABLES": ""} if words[0] == "read" else {}),
            mounts=(Mount(ROOT / "benchmarks", "/benchmark"), Mount(scratch, "/out", True)),
        )  # fmt: skip
        ended = run(choose("bubblewrap", store), process, log)
    text = (scratch / "log").read_text()
    if ended.code:
        raise SystemExit(f"{' '.join(words)} failed:\n{text}")
    return dict(json.loads(text.splitlines()[-1]))


def package() -> dict[str, Any]:
    """Return the size of the compiled package and its tasks; nothing where it was not compiled."""
    if not PACKAGE.is_file():
        return {}
    spec = next(yaml.safe_load_all(PACKAGE.read_text()))
    dags = [spec["root"], *spec["components"].values()]
    tasks = sum(len(one.get("dag", {}).get("tasks", {})) for one in dags)
    return {"bytes": PACKAGE.stat().st_size, "tasks": tasks}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.plates", description=__doc__)
    parser.add_argument("--plates", type=int, default=200)
    parser.add_argument("--wells", type=int, default=384)
    given = parser.parse_args()
    store = Store.open()
    built = build(Workspace.load(ROOT), store, ["prepare"])["prepare"]
    if of := package():
        figures.record(
            "plates", "package of any number of plates", f"{of['bytes']:,} bytes",
            beside=f"{of['tasks']} tasks",
        )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        inside(store, built, scratch, "draw", "/out/images", str(given.plates))
        for count in (given.plates // 8, given.plates // 4, given.plates // 2, given.plates):
            cut = inside(store, built, scratch, "controls", "/out/images", "/out", str(count))
            put = inside(store, built, scratch, "gathered", "/out", str(count))
            figures.record(
                "plates", f"control tiles of {count} plates, a plate",
                f"{cut['seconds'] / count:.2f} s",
                beside=f"{cut['own_mib']:.0f} + {cut['worker_mib']:.0f} MiB a worker",
            )  # fmt: skip
            figures.record(
                "plates", f"gather and read the tiles of {count} plates", f"{put['seconds']:.1f} s",
                beside=f"{put['own_mib']:.0f} MiB, argument of {put['bytes']:,} bytes",
            )  # fmt: skip
            shutil.rmtree(scratch / f"w{count}")
        linked = inside(store, built, scratch, "link", "/out/large", str(given.wells))
        for workers in sorted({1, len(os.sched_getaffinity(0))}):
            beside(store, built, scratch, given.wells, workers, linked["files"])


def beside(store: Store, built: Built, scratch: Path, wells: int, workers: int, files: int) -> None:
    """Measure prepare beside reading and decoding alone, in so many processes each."""
    bare = inside(store, built, scratch, "read", "/out/large", str(workers))
    made = inside(store, built, scratch, "prepare", "/out/large", "/out/tiles", str(wells),
                  str(workers))  # fmt: skip
    again = inside(store, built, scratch, "read", "/out/large", str(workers))
    shutil.rmtree(scratch / "tiles")
    alone = min(bare["seconds"], again["seconds"])
    ratio = made["seconds"] / alone
    work = made["processor"] / min(bare["processor"], again["processor"])
    figures.record(
        "plates",
        f"prepare {wells} wells of 9 fields of 2160 x 2160, 16 bits, workers: {workers}",
        f"{made['seconds']:.1f} s",
        beside=f"reading {files} files: {alone:.1f} s; "
        f"{made['own_mib']:.0f} + {made['worker_mib']:.0f} MiB a worker",
        target=f"ratio at most {_RATIO} (is {ratio:.2f}; {work:.2f} of processor time)",
        missed=ratio > _RATIO,
    )


if __name__ == "__main__":
    main()
