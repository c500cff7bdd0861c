"""First use: from a clone to the first line that the demo says, and to its end.

    .venv/bin/python -m benchmarks.first_use [--plate FOLDER] [--rounds N]

Each round has a clone and an empty home of its own, so that .venv is made again; pip's cache and
the store's wheels and images are this machine's, and no step's result is used again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks import bbbc013, figures
from benchmarks.figures import ROOT
from builder.store import default_root

_FIRST = "building the images"


def demo(folder: Path, words: Sequence[str]) -> tuple[float, float]:
    """Return the seconds from `git clone` to the demo's first line and to its end.

    Raises SystemExit with what it said where it breaks, or where it never says that line.
    """
    clone, home = folder / "clone", folder / "home"
    home.mkdir()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("XDG_")
    } | {"HOME": str(home), "PIP_CACHE_DIR": _pip_cache(), "PLATELINE_STORE": str(default_root())}
    began = time.monotonic()
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    process = subprocess.Popen(
        ["./invoke", "demo", "--no-cache", *words], cwd=clone, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    first, said = 0.0, []
    for line in process.stdout:
        said.append(line)
        if not first and _FIRST in line:
            first = time.monotonic() - began
    if process.wait() or not first:
        raise SystemExit("the demo failed:\n" + "".join(said[-30:]))
    return first, time.monotonic() - began


def _pip_cache() -> str:
    found = subprocess.run(
        [sys.executable, "-m", "pip", "cache", "dir"], check=True, capture_output=True, text=True
    )
    return found.stdout.strip()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    bbbc013.option(parser)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    words = ("--plate", str(given.plate), "--layout", "bbbc013") if given.plate.is_dir() else ()
    plate = "the real plate BBBC013" if words else "a simulated plate"
    rounds = []
    for number in range(given.rounds):
        print(f"round {number + 1} of {given.rounds}", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=default_root().parent) as folder:
            rounds.append(demo(Path(folder), words))
    first, end = zip(*rounds, strict=True)
    show = partial(figures.record_times, "first use", digits=1)
    show("fresh clone to the demo's first line", first, most=20)
    show(f"fresh clone to the demo's end, {plate}", end, most=100)


if __name__ == "__main__":
    main()
