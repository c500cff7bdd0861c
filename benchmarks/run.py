"""Overhead of a step: the bare command, the sandbox, a whole step of `run`, and one of kfp.local.

    .venv/bin/python -m benchmarks.run [--steps N]

A chain of steps that do nothing, in an image of the host's busybox. Keeps milliseconds a step;
asserts nothing. What needs a Docker Engine is left out where none answers.
"""

import argparse
import contextlib
import io
import logging
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kfp import compiler, components, dsl, local

from benchmarks import figures
from builder.errors import BuilderError
from builder.registry.client import Registry
from builder.registry.push import push
from builder.sandbox.engines import choose
from builder.sandbox.process import Process
from builder.sandbox.process import run as run_process
from builder.store import Store
from pipeline.run import runner
from tests import registries
from tests.pipeline.run.conftest import busybox

COMMAND = ("sh", "-c", "exit 0")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    steps = parser.parse_args().steps
    with (
        tempfile.TemporaryDirectory() as name,
        registries.serve(Path(name, "registry")) as host,
    ):
        folder = Path(name)
        store = Store.open(folder / "store")
        image = busybox(store)
        with Registry(host) as client:
            push(store, {"busybox": ("0" * 64, image)}, f"{host}/t", client)
        package = chain(folder / "package.yaml", f"{host}/t/busybox@{image.digest}", steps)

        def whole(engine: str) -> None:
            result = runner.run(
                runner.load(package), store, parameters={}, volumes={}, secrets={},
                runs=folder / "runs", engine=engine, use_cache=False,
            )  # fmt: skip
            assert result.state == "succeeded", result.error

        show("bare command", steps, lambda: repeat(steps, lambda: subprocess.run(
            ["busybox", *COMMAND], check=True)))  # fmt: skip
        for engine in ("bubblewrap", "docker"):
            try:
                sandbox = choose(engine, store)
            except BuilderError as error:
                print(f"{engine} is left out: {error}")
                continue
            process = Process(image=image, command=COMMAND)
            run_process(sandbox, process)  # the image is unpacked, or loaded, once
            show(f"sandbox, {engine}", steps,
                 lambda s=sandbox, p=process: repeat(steps, lambda: run_process(s, p)))  # fmt: skip
            show(f"invoke run, {engine}", steps, lambda e=engine: whole(e))
            if engine == "docker":
                kfp_local(package, folder / "warm")  # pulls the image
                show("kfp.local, DockerRunner", steps, lambda: kfp_local(package, folder / "root"))


def chain(path: Path, image: str, steps: int, command: Sequence[str] = COMMAND) -> Path:
    """Compile a chain of steps that run a command, which does nothing without one."""

    @dsl.container_component
    def nothing():
        return dsl.ContainerSpec(image, list(command))

    @dsl.pipeline(name="chain")
    def pipeline():
        last = nothing()
        for _ in range(steps - 1):
            last = nothing().after(last)

    compiler.Compiler().compile(pipeline, str(path))
    return path


def kfp_local(package: Path, root: Path) -> None:
    """Run `package` by kfp.local, silently."""
    root.mkdir()
    local.init(local.DockerRunner(user="0:0"), str(root), raise_on_error=True)
    logging.disable(logging.CRITICAL)
    with contextlib.redirect_stdout(io.StringIO()):
        components.load_component_from_file(str(package))()


def repeat(count: int, work: Callable[[], object]) -> None:
    """Do `work` so many times."""
    for _ in range(count):
        work()


def show(label: str, steps: int, work: Callable[[], object]) -> None:
    """Print how long `work` takes, a step."""
    began = time.perf_counter()
    work()
    each = (time.perf_counter() - began) / steps * 1000
    figures.record("run", f"a step: {label}", f"{each:.1f} ms")


if __name__ == "__main__":
    main()
