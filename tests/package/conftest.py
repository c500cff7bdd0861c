"""The package stage's own code, and what it takes: models, metrics, report, a pinned base."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder import oci
from builder.oci.entry import Entry
from builder.oci.layer import write_layer
from builder.oci.reference import Reference
from builder.registry.client import Registry
from builder.registry.push import push
from builder.store import Store

ROOT = Path(__file__).parents[2]
# As /app is inside the image.
sys.path[:0] = [str(ROOT / "stages"), str(ROOT / "stages" / "package")]

Run = Callable[..., dict[str, Any]]
PACKAGE = "sha256:" + "5" * 64


@pytest.fixture
def servable(tmp_path: Path) -> Path:
    """Return a folder as validate leaves it, with two files that stand for models."""
    folder = tmp_path / "servable"
    write_servable(folder, {"fold_1": b"one" * 1000, "fold_2": bytes(range(256)) * 100})
    return folder


def write_servable(folder: Path, models: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for name, data in models.items():
        (folder / f"{name}.onnx").write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        entries.append({"name": name, "file": f"{name}.onnx", "fold": name, "sha256": digest})
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "models": entries}))


def write_models_that_answer(servable: Path) -> None:
    """Put the models of the function's own tests in the place of those that only have names."""
    models = ROOT / "stages" / "package" / "function" / "tests" / "models"
    shutil.rmtree(servable)
    write_servable(servable, {n: (models / f"{n}.onnx").read_bytes() for n in ("A", "B")})
    manifest = json.loads((servable / "manifest.json").read_text())
    manifest |= {"classes": ["negative", "positive"], "threshold": 0.5, "tile": 256,
                 "layout": "bbbc013"}  # fmt: skip
    (servable / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def run(servable: Path, tmp_path: Path) -> Run:
    """Return a function that runs the stage in this process and returns its output parameters."""
    from common.stage_io import StageIO
    from package.stage import package_models

    (tmp_path / "metrics.json").write_text('{"fold_1 well weighted_f1": 1.0}')
    (tmp_path / "report.html").write_text("<!doctype html><title>Validation</title>")

    def once(**parameters: str) -> dict[str, Any]:
        def artifact(path: Path) -> dict[str, Any]:
            return {"artifacts": [{"name": path.name, "uri": str(path)}]}

        out = tmp_path / "out"
        task = StageIO(
            {
                "inputs": {
                    "parameterValues": {"workspace_name": "kensert_CNN", **parameters},
                    "artifacts": {
                        "servable": artifact(servable),
                        "metrics": artifact(tmp_path / "metrics.json"),
                        "report": artifact(tmp_path / "report.html"),
                    },
                },
                "outputs": {
                    "outputFile": str(out / "executor.json"),
                    "artifacts": {n: artifact(out / n) for n in ("stack", "digests")},
                },
            }
        )
        package_models(task)
        task.finish()
        found: dict[str, Any] = json.loads((out / "executor.json").read_text())["parameterValues"]
        return found

    return once


def base_image(store: Store) -> oci.Image:
    """Make a small function image of two layers in `store`."""
    layers = []
    for name, size in (("big", 300_000), ("small", 10)):
        with store.writing() as (stream, keep):
            entry = Entry(f"app/{name}", "file", content=hashlib.sha256().digest() * size)
            layers.append(write_layer([entry], stream, created_by=f"COPY {name} /app/"))
            keep(layers[-1].blob.digest)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2020-01-01T00:00:00Z",
        "config": {
            "Cmd": ["python3", "-m", "function"],
            "Env": ["PATH=/usr/bin", "LANG=C.UTF-8"],
            "User": "65532:65532",
            "WorkingDir": "/app",
            "ExposedPorts": {"8080/tcp": {}},
            "Labels": {"who": "base"},
        },
        "history": [{"created_by": layer.created_by} for layer in layers],
    }
    image, documents = oci.assemble(config, tuple(layers))
    store.add_image(documents)
    return image


def push_base(store: Store, host: str, repository: str = "p/function") -> Reference:
    """Push the small function image to `host` and return its pinned name."""
    image = base_image(store)
    prefix, _, name = repository.rpartition("/")
    with Registry(host) as registry:
        return push(store, {name: ("0" * 64, image)}, f"{host}/{prefix}", registry)[name].reference


@pytest.fixture
def base(store: Store, registry_host: str) -> Reference:
    return push_base(store, registry_host)
