"""What others make of a pushed image: skopeo, umoci, Docker and podman read what was built."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from builder import oci
from builder.oci import gzip, layer
from builder.oci.entry import Entry
from builder.oci.reference import Reference
from builder.registry.client import Registry
from builder.registry.pull import pull
from builder.registry.push import push
from builder.store import Store
from tests.conftest import missing

# Compressible, and larger than what is spliced.
DATA = b"".join(number.to_bytes(4, "big") for number in range(20_000))
FILES = {"app/before": b"b", "app/spliced": DATA, "app/twin": DATA[::-1], "app/zlast": b"z" * 5000}


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        missing(name, f"apt-get install {name}")
    return str(found)


def output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def deflated(name: str, data: bytes) -> Entry:
    """Return a file as one that an archive holds compressed."""
    raw = zlib.compress(data, wbits=-15)
    return Entry(name, "file", content=data, size=len(data), deflated=lambda: io.BytesIO(raw))


@pytest.fixture
def pushed(store: Store, registry_host: str) -> tuple[oci.Image, Reference]:
    """An image whose layer has several gzip members, in the registry as p/image:latest."""
    entries = [
        deflated(name, data) if data in (DATA, DATA[::-1]) else Entry(name, "file", content=data)
        for name, data in FILES.items()
    ]
    with store.writing() as (stream, keep):
        built = layer.write_layer(entries, stream)
        keep(built.blob.digest)
    assert store.path(built.blob.digest).read_bytes().count(gzip._HEADER) == 5
    config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/app/before"]}}
    image, documents = oci.assemble(config, (built,))
    store.add_image(documents)
    with Registry(registry_host) as registry:
        images = {"image": ("1" * 64, image)}
        result = push(store, images, f"{registry_host}/p", registry, tags=["latest"])
    return image, result["image"].reference


def test_skopeo_inspects_it(pushed: tuple[oci.Image, Reference]) -> None:
    image, reference = pushed
    words = ("inspect", "--tls-verify=false", f"docker://{reference}")
    found: dict[str, Any] = json.loads(output(program("skopeo"), *words))
    assert found["Digest"] == image.digest
    assert found["Layers"] == [part.blob.digest for part in image.layers]
    assert (found["Architecture"], found["Os"]) == ("amd64", "linux")


def test_skopeo_copies_it_to_another_repository_bit_for_bit(
    pushed: tuple[oci.Image, Reference], registry_host: str, tmp_path: Path
) -> None:
    image, reference = pushed
    output(program("skopeo"), "copy", "--preserve-digests", "--src-tls-verify=false",
           "--dest-tls-verify=false", f"docker://{reference}",
           f"docker://{registry_host}/q/copy:latest")  # fmt: skip
    with Registry(registry_host) as registry:
        copied = Reference.parse(f"{registry_host}/q/copy@{image.digest}")
        assert pull(Store.open(tmp_path / "other"), registry, copied) == image


def test_umoci_unpacks_it(pushed: tuple[oci.Image, Reference], tmp_path: Path) -> None:
    _, reference = pushed
    layout = f"{tmp_path / 'layout'}:image"
    words = ("copy", "--src-tls-verify=false", f"docker://{reference}", f"oci:{layout}")
    output(program("skopeo"), *words)
    words = ("unpack", "--rootless", "--image", layout, str(tmp_path / "bundle"))
    output(program("umoci"), *words)
    root = tmp_path / "bundle/rootfs"
    assert {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()} == (
        FILES
    )


def test_a_docker_engine_pulls_it_by_digest(pushed: tuple[oci.Image, Reference]) -> None:
    import docker

    image, reference = pushed
    try:
        client = docker.from_env()
        client.ping()
    except (docker.errors.DockerException, OSError):
        missing("a Docker Engine", "apt-get install docker.io, then start dockerd")
    pulled = client.images.pull(f"{reference.host}/{reference.repository}@{image.digest}")
    try:
        assert pulled.id == image.config_blob.digest
        container = client.containers.create(pulled.id)
        try:
            stream, _ = container.get_archive("/app")
            data = io.BytesIO(b"".join(stream))
        finally:
            container.remove()
    finally:
        client.images.remove(pulled.id, force=True)
    with tarfile.open(fileobj=data) as archive:
        files = {m.name: archive.extractfile(m) for m in archive if m.isreg()}
        assert {name: stream.read() for name, stream in files.items() if stream} == FILES


def test_podman_pulls_it_by_digest(pushed: tuple[oci.Image, Reference]) -> None:
    image, reference = pushed
    with tempfile.TemporaryDirectory() as folder:  # podman wants a run root of a short name
        own = (program("podman"), "--root", f"{folder}/root", "--runroot", f"{folder}/run",
               "--storage-driver", "vfs")  # fmt: skip
        identity = output(*own, "pull", "-q", "--tls-verify=false", str(reference)).strip()
        assert f"sha256:{identity}" == image.config_blob.digest
        (found,) = json.loads(output(*own, "image", "inspect", identity))
        assert found["Digest"] == image.digest
