"""Inside the image: a packaged model comes out again as it went in; nothing else is taken."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
from common import digest
from common.errors import StageError
from common.stage_io import StageIO
from package import fetch as fetching
from package.stage import package_models

from builder import oci
from builder.oci.entry import Entry
from builder.oci.layer import write_layer
from builder.store import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("PLATELINE_STORE", str(tmp_path / "store"))
    return Store.open()


def task(folder: Path, parameters: dict[str, str], *outputs: str) -> StageIO:
    def artifact(name: str) -> dict[str, object]:
        return {"artifacts": [{"name": name, "uri": str(folder / name)}]}

    inputs = {name: artifact(name) for name in ("servable", "metrics", "report")}
    return StageIO(
        {
            "inputs": {"parameterValues": parameters, "artifacts": inputs},
            "outputs": {"artifacts": {name: artifact(name) for name in outputs}},
        }
    )


@pytest.fixture
def packaged(store: Store, tmp_path: Path) -> dict[str, str]:
    """Return the pinned image and artifact of a small model."""
    with store.writing() as (stream, keep):
        layer = write_layer([Entry("app/x", "file", content=b"x")], stream)
        keep(layer.blob.digest)
    config = {"architecture": "amd64", "os": "linux", "history": [{"created_by": "COPY x /app/"}]}
    image, documents = oci.assemble(config, (layer,))
    store.add_image(documents)
    servable = tmp_path / "in/servable"
    servable.mkdir(parents=True)
    for name in ("metrics", "report"):
        (tmp_path / "in" / name).write_text("{}")
    (servable / "a.onnx").write_bytes(b"model" * 1000)
    entry = {"file": "a.onnx", "sha256": digest.file_sha256(servable / "a.onnx")}
    (servable / "manifest.json").write_text(json.dumps({"models": [entry]}))
    parameters = {
        "function_image": f"localhost/function@{image.digest}",
        "model_repo": "localhost/model", "artifact_repo": "localhost/shelf",
    }  # fmt: skip
    made = task(tmp_path / "in", parameters, "stack", "digests")
    package_models(made)
    found = made.output_parameters()
    return {"image": found["image"], "artifact": found["artifact"], "base": str(image.digest)}


def fetched(folder: Path, model: str) -> tuple[Path, StageIO]:
    one = task(folder / "out", {"model": model}, "servable")
    fetching.fetch(one)
    return folder / "out/servable", one


@pytest.mark.parametrize("kind", ["image", "artifact"])
def test_the_model_comes_out_as_it_went_in(
    packaged: dict[str, str], tmp_path: Path, kind: str
) -> None:
    servable, one = fetched(tmp_path, packaged[kind])
    assert digest.file_hashes(servable) == digest.file_hashes(tmp_path / "in/servable")
    assert one.output_parameters()["digest"] == digest.folder_digest(tmp_path / "in/servable")


def test_a_model_without_a_digest_is_refused(packaged: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(StageError, match="localhost/model is not pinned by a digest"):
        fetched(tmp_path, "localhost/model")


def test_a_model_that_is_nowhere_is_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"cannot fetch the model .*has no blob sha256:0000"):
        fetched(tmp_path, "localhost/model@sha256:" + "0" * 64)
    assert not (tmp_path / "out/servable").exists()


def test_an_image_without_a_model_and_an_index_are_refused(
    packaged: dict[str, str], store: Store, tmp_path: Path
) -> None:
    with pytest.raises(StageError, match=r"has 'app.*' where a model's files should be"):
        fetched(tmp_path, f"localhost/function@{packaged['base']}")
    index = store.add(json.dumps({"schemaVersion": 2, "manifests": []}).encode())
    with pytest.raises(StageError, match="is an index"):
        fetched(tmp_path, f"localhost/model@{index.digest}")


def test_a_damaged_layer_is_not_taken(
    packaged: dict[str, str], store: Store, tmp_path: Path
) -> None:
    manifest = json.loads(store.read(packaged["image"].partition("@")[2]))
    path = store.path(manifest["layers"][-1]["digest"])
    path.chmod(0o644)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(StageError, match="cannot fetch the model"):
        fetched(tmp_path, packaged["image"])
    assert not (tmp_path / "out/servable").exists()


def layer_of(*members: tuple[str, bytes, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(content), "/etc/passwd"
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(data.getvalue())


HOSTILE = {
    "a path upwards": ("models/../../x", tarfile.REGTYPE),
    "an absolute path": ("/models/x", tarfile.REGTYPE),
    "another folder": ("etc/x", tarfile.REGTYPE),
    "a folder below": ("models/a/x", tarfile.REGTYPE),
    "a symbolic link": ("models/x", tarfile.SYMTYPE),
    "a hard link": ("models/x", tarfile.LNKTYPE),
    "a device": ("models/x", tarfile.CHRTYPE),
    "a hidden file": ("models/.layer", tarfile.REGTYPE),
    "a folder for a file": ("models/x", tarfile.DIRTYPE),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_layer_of_somebody_else_writes_nothing(tmp_path: Path, case: str) -> None:
    name, kind = HOSTILE[case]
    inside = tmp_path / "servable"
    inside.mkdir()
    data = layer_of((name, kind, b""))
    reference = fetching.Reference.parse("localhost/model@sha256:" + "0" * 64)
    with pytest.raises(StageError, match="where a model's files should be"):
        fetching.unpack(io.BytesIO(data), inside, reference)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["servable"]


def test_a_layer_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "MOST_BYTES", 1000)
    data = layer_of(("models/x", tarfile.REGTYPE, b"\0" * 2000))
    assert len(data) < 1000
    reference = fetching.Reference.parse("localhost/model@sha256:" + hashlib.sha256().hexdigest())
    with pytest.raises(StageError, match="unpacks to more than"):
        fetching.unpack(io.BytesIO(data), tmp_path, reference)
    assert not (tmp_path / "x").exists()
