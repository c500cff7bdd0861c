"""Overhead of a step: the bare command, the sandbox, and a whole step of `run`.

    .venv/bin/python -m benchmarks.run [--engine bubblewrap|docker] [--steps N]

Prints seconds a step; asserts nothing. Uses the host's busybox as the image.
"""

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

from kfp import compiler, dsl

from builder.sandbox import choose
from builder.sandbox.process import Process
from builder.sandbox.process import run as run_process
from builder.store import Store
from pipeline import run as runner
from tests.pipeline.run.conftest import busybox


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", default="bubblewrap")
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        store = Store.open(Path(name, "store"))
        image = busybox(store)
        reference = f"localhost/x@{image.digest}"

        @dsl.container_component
        def nothing():
            return dsl.ContainerSpec(reference, ["sh", "-c", "exit 0"])

        @dsl.pipeline(name="chain")
        def chain():
            last = nothing()
            for _ in range(given.steps - 1):
                task = nothing()
                last = task.after(last)

        path = Path(name, "package.yaml")
        compiler.Compiler().compile(chain, str(path))
        sandbox = choose(given.engine, store)
        process = Process(image=image, command=("sh", "-c", "exit 0"))
        run_process(sandbox, process)
        began = time.perf_counter()
        for _ in range(given.steps):
            subprocess.run(["busybox", "sh", "-c", "exit 0"], check=True)
        bare = time.perf_counter()
        for _ in range(given.steps):
            run_process(sandbox, process)
        boxed = time.perf_counter()
        result = runner.run(
            runner.load(path), store, parameters={}, volumes={}, secrets={},
            runs=Path(name, "runs"), engine=given.engine, use_cache=False,
        )  # fmt: skip
        whole = time.perf_counter()
        assert result.state == "succeeded", result.error
    for label, seconds in (
        ("bare command", bare - began),
        (f"sandbox ({given.engine})", boxed - bare),
        ("step of a run", whole - boxed),
    ):
        print(f"{label:24} {seconds / given.steps * 1000:8.1f} ms")


if __name__ == "__main__":
    main()
