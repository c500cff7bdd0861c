"""From source to a pinned package: whole processes, against a registry on loopback.

    .venv/bin/python -m benchmarks.pipeline [--repeats N]

Prints seconds (median, minimum, maximum) beside each bar; asserts nothing. Everything happens in a
clone of this checkout with a store of its own, filled from the downloads of this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import figures
from builder.packages.download import downloads_folder
from tests import registries

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "stages/validate/validate/stage.py"


class Bench:
    """A clone in `folder`, its store, and a registry at `host`."""

    def __init__(self, folder: Path, host: str) -> None:
        self.folder, self.prefix = folder, f"{host}/plateline"
        self.clone = folder / "clone"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(self.clone)], check=True)
        (self.clone / ".venv").symlink_to(ROOT / ".venv")
        (folder / "cache").mkdir()
        (folder / "cache" / "downloads").symlink_to(downloads_folder())

    def invoke(self, *words: str, store: str = "store") -> str:
        """Run tasks by `./invoke`, a process of its own, and return what they printed."""
        environment = {**os.environ, "PLATELINE_STORE": str(self.folder / "cache" / store)}
        done = subprocess.run(
            [str(self.clone / "invoke"), *words], cwd=self.clone, env=environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"invoke {' '.join(words)} failed: {done.stderr}")
        return done.stdout


def timed(repeats: int, work: Callable[[int], object]) -> list[float]:
    """Return the seconds of `work`, called with 0, 1, …."""
    taken = []
    for number in range(repeats):
        started = time.monotonic()
        work(number)
        taken.append(time.monotonic() - started)
    return taken


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    with (
        tempfile.TemporaryDirectory() as name,
        registries.serve(Path(name, "registry")) as host,
    ):
        bench = Bench(Path(name), host)
        print("filling a store and a registry", file=sys.stderr)
        bench.invoke("push-images", "--registry", bench.prefix)
        compile_ = ("compile", "--registry", bench.prefix)
        bench.invoke(*compile_)
        time.sleep(2)  # what is younger, the package too, is read again each time
        bench.invoke(*compile_)

        def show(what: str, times: list[float], most: float = 0) -> None:
            figures.record_times("pipeline", what, times, most=most)

        show("compile, nothing changed", timed(repeats, lambda _: bench.invoke(*compile_)),
             0.2)  # fmt: skip

        def afresh(number: int) -> None:
            bench.invoke("compile", "--registry", bench.prefix, "--plates-at-once", str(number + 9))

        show("compile, a setting changed", timed(repeats, afresh), 0.8)
        show("of it loading KFP's compiler", timed(repeats, lambda _: subprocess.run(
            [sys.executable, "-c", "from pipeline.spec.sdk import compiler; compiler()"],
            cwd=bench.clone, check=True)))  # fmt: skip

        def clone(number: int) -> None:
            made = json.loads(bench.invoke(*compile_, "--json", store=f"fresh-{number}/store"))
            assert made["digest"]
            shutil.rmtree(bench.folder / "cache" / f"fresh-{number}")

        show("fresh clone + filled registry -> package", timed(repeats, clone), 3)

        def change(number: int) -> None:
            with (bench.clone / SOURCE).open("a") as file:
                file.write(f"# {number}\n")
            bench.invoke("push-images", "--registry", bench.prefix, *compile_)

        show("one source line -> pushed and pinned package", timed(repeats, change), 2)


if __name__ == "__main__":
    main()
