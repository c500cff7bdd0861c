"""Packaging a large model in the package stage's own image, by both builders, beside each other.

    .venv/bin/python -m benchmarks.package_stage [--megabytes 2000] [--no-docker]

A registry on loopback holds the function image; a relay before it counts bytes. Memory is the
step's own peak (ru_maxrss). Prints a table; asserts nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import figures
from builder.build.make import build
from builder.build.workspace import Workspace
from builder.oci.reference import Reference
from builder.registry.client import Registry
from builder.registry.push import push
from builder.sandbox.engines import choose
from builder.sandbox.process import Mount, Process, run
from builder.store import Store
from tests import registries
from tests.package.reading import meaning, read, remove

ROOT = Path(__file__).resolve().parent.parent
MEASURED = """
import json, resource, sys
from common.stage_io import run_stage
from package.stage import package_models
run_stage("package", package_models, ["--executor-input", open("/task/input.json").read()])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


class Relay:
    """Passes TCP connections on and counts the bytes to and from the registry."""

    def __init__(self, registry: str) -> None:
        host, _, port = registry.partition(":")
        self._to = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.up = self.down = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                registry = socket.create_connection(self._to)
                for source, sink, way in ((client, registry, "up"), (registry, client, "down")):
                    threading.Thread(
                        target=self._pass, args=(source, sink, way), daemon=True
                    ).start()

    def _pass(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 20):
                setattr(self, way, getattr(self, way) + len(data))
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listener.close()


@contextlib.contextmanager
def model(folder: Path, megabytes: int) -> Iterator[Path]:
    """Yield a servable folder whose one model is random bytes, which do not compress."""
    servable = folder / f"servable-{megabytes}"
    servable.mkdir()
    seen = hashlib.sha256()
    with (servable / "model.onnx").open("wb") as file:
        for _ in range(megabytes):
            chunk = os.urandom(1_000_000)
            seen.update(chunk)
            file.write(chunk)
    entry = {"name": "model", "file": "model.onnx", "sha256": seen.hexdigest()}
    (servable / "manifest.json").write_text(json.dumps({"format": 1, "models": [entry]}))
    yield servable
    (servable / "model.onnx").unlink()


def package(
    store: Store, image: object, folder: Path, servable: Path, parameters: dict[str, str]
) -> tuple[str, int, float]:
    """Run the stage in its image; return the packaged image, its peak in MB and the seconds."""
    task = folder / "task"
    task.mkdir(exist_ok=True)
    artifacts = {"servable": {"artifacts": [{"name": "servable", "uri": "/servable"}]}}
    names = {name: {"artifacts": [{"name": name, "uri": f"/out/{name}"}]}
             for name in ("stack", "digests")}  # fmt: skip
    (task / "input.json").write_text(
        json.dumps(
            {
                "inputs": {"parameterValues": parameters, "artifacts": artifacts},
                "outputs": {"outputFile": "/out/executor.json", "artifacts": names},
            }
        )
    )
    out = folder / "out"
    out.mkdir(exist_ok=True)
    out.chmod(0o777)
    mounts = [Mount(task, "/task"), Mount(servable, "/servable"), Mount(out, "/out", writable=True)]
    env = {}
    if parameters["builder"] == "docker":
        mounts.append(Mount(Path("/var/run/docker.sock"), "/task/docker.sock"))
        env["DOCKER_HOST"] = "unix:///task/docker.sock"
        (task / "docker.sock").touch()
    process = Process(
        image=image, command=("python3", "-c", MEASURED), mounts=tuple(mounts), env=env,
        network=True,
    )  # type: ignore[arg-type]  # fmt: skip
    began = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        ended = run(choose("bubblewrap", store), process, output)
        output.seek(0)
        text = output.read().decode()
    seconds = time.perf_counter() - began
    if ended.code:
        raise SystemExit(text)
    found = json.loads((out / "executor.json").read_text())["parameterValues"]["image"]
    return found, int(re.findall(r"peak (\d+)", text)[-1]), seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--no-docker", action="store_true")
    given = parser.parse_args()
    builders = ["registry"] if given.no_docker else ["registry", "docker"]
    store = Store.open()
    built = build(Workspace.load(ROOT), store, ["package", "function"])
    print(f"function image: {built['function'].image.size / 1e6:.1f} MB in "
          f"{len(built['function'].image.layers)} layers")  # fmt: skip
    rows: list[tuple[str, ...]] = []
    made: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name, registries.serve(Path(name, "registry")) as host:
        folder = Path(name)
        with Registry(host) as registry:
            images = {"function": (built["function"].key, built["function"].image)}
            base = push(store, images, f"{host}/p", registry)["function"].reference
        for megabytes in sorted({10, given.megabytes}):
            with model(folder, megabytes) as servable:
                for builder in builders:
                    relay = Relay(host)
                    parameters = {
                        "function_image": f"{relay.address}/{base.repository}@{base.digest}",
                        "model_repo": f"{relay.address}/served/{builder}-{megabytes}",
                        "workspace_name": "benchmark",
                        "builder": builder,
                    }
                    image, peak, seconds = package(
                        store, built["package"].image, folder, servable, parameters
                    )
                    relay.close()
                    if builder == "docker":
                        remove(relay.address)
                    rows.append((builder, str(megabytes), f"{seconds:.1f}", str(peak),
                                 f"{relay.up / 1e6:.2f}", f"{relay.down / 1e6:.2f}"))  # fmt: skip
                    if megabytes == 10:
                        made[builder] = image.replace(relay.address, host)
        for builder, megabytes, seconds, peak, up, down in rows:
            figures.record(
                "package", f"a model of {megabytes} MB, builder={builder}",
                f"{seconds} s, peak {peak} MB",
                beside=f"{up} MB to the registry, {down} MB from it",
            )  # fmt: skip
        if len(made) == 2:
            (_, config, files), (_, other, others) = (
                read(Reference.parse(made[builder])) for builder in builders
            )
            print("same files, modes and owners:", files == others)
            base_names = ("org.opencontainers.image.base.name",)
            for one in (config, other):
                for label in base_names:  # holds the relay's port
                    one["config"]["Labels"].pop(label)
            print("same config apart from history:", meaning(config) == meaning(other))


if __name__ == "__main__":
    main()
