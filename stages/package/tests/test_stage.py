"""Inside the image: the stage packages from the store into the store, without network."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest
from common import digest
from common.errors import StageError
from common.stage_io import StageIO
from package.stage import credentials_file, package_models

from builder import oci
from builder.oci.entry import Entry
from builder.oci.layer import write_layer
from builder.store import Store


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StageIO:
    monkeypatch.setenv("PLATELINE_STORE", str(tmp_path / "store"))
    store = Store.open()
    with store.writing() as (stream, keep):
        layer = write_layer([Entry("app/x", "file", content=b"x")], stream)
        keep(layer.blob.digest)
    config = {"architecture": "amd64", "os": "linux", "history": [{"created_by": "COPY x /app/"}]}
    image, documents = oci.assemble(config, (layer,))
    store.add_image(documents)
    servable = tmp_path / "servable"
    servable.mkdir()
    (servable / "a.onnx").write_bytes(b"model")
    entry = {"file": "a.onnx", "sha256": hashlib.sha256(b"model").hexdigest()}
    (servable / "manifest.json").write_text(json.dumps({"models": [entry]}))

    def artifact(name: str) -> dict[str, object]:
        return {"artifacts": [{"name": name, "uri": str(tmp_path / name)}]}

    return StageIO(
        {
            "inputs": {
                "parameterValues": {
                    "function_image": f"localhost/function@{image.digest}",
                    "model_repo": "localhost/my_model.v2",
                },
                "artifacts": {"servable": artifact("servable")},
            },
            "outputs": {
                "outputFile": str(tmp_path / "executor.json"),
                "artifacts": {name: artifact(name) for name in ("stack", "digests")},
            },
        }
    )


def test_the_image_is_in_the_store_under_the_name_that_is_put_out(
    task: StageIO, tmp_path: Path
) -> None:
    package_models(task)
    image = task.output_parameters()["image"]
    assert task.output_parameters()["artifact"] == ""
    packaged = Store.open().image(image.partition("@")[2])
    made_by = [layer.created_by for layer in packaged.layers]
    assert made_by == ["COPY x /app/", "COPY servable/ /models/"]
    stack = (tmp_path / "stack").read_text()
    assert f"  my-model-v2:\n    image: {image}\n" in stack


def test_models_that_are_not_those_that_validate_handed_on_are_refused(
    task: StageIO, tmp_path: Path
) -> None:
    given = task.document["inputs"]["parameterValues"]
    given["servable_digest"] = digest.folder_digest(tmp_path / "servable")
    package_models(task)
    (tmp_path / "servable" / "notes").write_text("added since")
    with pytest.raises(StageError, match=r"servable_digest is .*the parameter fresh"):
        package_models(task)


def test_a_base_that_is_nowhere_is_named(task: StageIO) -> None:
    name = "localhost/function@sha256:" + "0" * 64
    task.document["inputs"]["parameterValues"]["function_image"] = name
    with pytest.raises(StageError, match="has no blob sha256:0000"):
        package_models(task)


def test_a_servable_without_models_is_refused(task: StageIO, tmp_path: Path) -> None:
    (tmp_path / "servable" / "manifest.json").write_text('{"models": []}')
    with pytest.raises(StageError, match="names no model; validate again"):
        package_models(task)


def test_credentials_come_from_docker_config_or_the_mounted_secret_or_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret" / "config.json"
    monkeypatch.setattr("package.stage.SECRET", secret)
    assert credentials_file({}) == Path.home() / ".docker" / "config.json"
    secret.parent.mkdir()
    secret.write_text("{}")
    assert credentials_file({}) == secret
    assert credentials_file({"DOCKER_CONFIG": "/d"}) == Path("/d/config.json")


def test_it_needs_nothing_outside_its_image() -> None:
    import docker
    import httpcore

    assert docker.__file__.startswith("/opt/venv")
    assert httpcore.__file__.startswith("/opt/venv")
    assert sys.version_info[:2] == (3, 13)
    assert os.getuid() != 0
