"""A small image out of the host's busybox, and packages compiled around it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from kfp import compiler

from builder import oci
from builder.oci import layer
from builder.oci.entry import Entry
from builder.store import Store
from pipeline.run import runner


def busybox(store: Store) -> oci.Image:
    found = shutil.which("busybox")
    if found is None:
        pytest.skip("busybox is missing; apt-get install busybox-static")
    entries = [
        Entry("bin/busybox", "file", 0o755, content=Path(found)),
        *(
            Entry(f"bin/{name}", "symlink", 0o777, target="busybox")
            for name in ("sh", "cat", "echo", "sleep", "kill", "mkdir", "id", "dd", "test", "ls")
        ),
        *(Entry(name, "dir", 0o755) for name in ("proc", "dev", "tmp")),
    ]
    with store.writing() as (stream, keep):
        made = layer.write_layer(entries, stream)
        keep(made.blob.digest)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"User": "65532:65532", "Env": ["PATH=/bin"], "WorkingDir": "/"},
    }
    image, documents = oci.assemble(config, (made,))
    store.add_image(documents)
    return image


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(tmp_path_factory.mktemp("cache") / "store")


@pytest.fixture(scope="session")
def image(store: Store) -> str:
    return f"localhost/test/busybox@{busybox(store).digest}"


@pytest.fixture
def execute(store, tmp_path):
    """Compile a pipeline function and run it."""

    def do(function, *, volumes=None, secrets=None, engine="bubblewrap", cache=False, **parameters):
        path = tmp_path / "package.yaml"
        compiler.Compiler().compile(function, str(path))
        return runner.run(
            runner.load(path), store, parameters=parameters, volumes=volumes or {},
            secrets=secrets or {}, runs=tmp_path / "runs", engine=engine, use_cache=cache,
        )  # fmt: skip

    return do
