"""A release: what it keeps in a registry, and what is said where it is not there."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from builder import oci
from builder.errors import BuilderError
from builder.registry.artifacts import announce
from builder.registry.client import Registry
from builder.registry.push import INVENTORY, push
from builder.store import Store
from builder.store.collection import collect
from builder.store.roots import kept
from pipeline.definition.pipelines import definition
from pipeline.definition.settings import Settings
from pipeline.definition.stages import TARGETS
from pipeline.errors import PipelineError
from pipeline.release.difference import compare
from pipeline.release.publish import (
    fetch,
    is_release_name,
    publish,
    releases,
    repository,
)
from pipeline.spec.compile import compile_package
from pipeline.spec.provenance import Provenance
from tests import registries
from tests.pipeline.pins import PINS
from tests.pipeline.release.parts import bill, image, package, released


def test_garbage_collection_keeps_what_a_release_names_though_its_own_tags_are_gone(
    store: Store, images: dict[str, oci.Image], tmp_path: Path
):
    with registries.serve(tmp_path / "registry") as host, Registry(host) as client:
        push(store, {n: (f"{i:064x}", m) for i, (n, m) in enumerate(images.items())},
             f"{host}/p", client)  # fmt: skip
        data = package(host, images)
        made = publish(client, "p", store, data, images, "v1")
    for name in TARGETS:  # only the release is left to name the images
        for tag in (tmp_path / "registry/data").rglob(f"p/{name}/_manifests/tags/*"):
            subprocess.run(["rm", "-r", str(tag)], check=True)
    config = tmp_path / "registry" / "registry.yml"
    subprocess.run(
        [registries.PROGRAM, "garbage-collect", str(config)], check=True, capture_output=True
    )
    with registries.serve(tmp_path / "registry") as host, Registry(host) as client:
        for found in images.values():
            assert client.head_manifest(repository("p"), found.digest)
            for part in found.layers:
                assert client.has_blob(repository("p"), part.blob.digest)
        assert fetch(client, "p", "v1") == data
        assert [release.digest for release in releases(client, "p")] == [made.digest]


def test_the_same_package_and_images_are_the_same_release(
    store: Store, images: dict[str, oci.Image], registry_host: str
):
    with Registry(registry_host) as client:
        push(store, {n: (f"{i:064x}", m) for i, (n, m) in enumerate(images.items())},
             f"{registry_host}/p", client)  # fmt: skip
        data = package(registry_host, images)
        one = publish(client, "p", store, data, images)
        assert publish(client, "p", store, data, images) == one
        assert one.images == {name: found.digest for name, found in images.items()}
        assert (one.commit, one.dirty) == ("c" * 40, False)


def test_the_store_keeps_what_a_release_runs(
    store: Store, images: dict[str, oci.Image], registry_host: str
):
    with Registry(registry_host) as client:
        data = package(registry_host, images)
        push(store, {n: (f"{i:064x}", m) for i, (n, m) in enumerate(images.items())},
             f"{registry_host}/p", client)  # fmt: skip
        publish(client, "p", store, data, images, "v1")
    other = image(store, "not released")
    late = max(path.stat().st_mtime for path in store.root.rglob("*")) + 1
    collect(store, keep_days=0, now=late)
    assert not store.path(other.digest).exists()
    for found in images.values():
        assert store.image(found.digest) == found
        for part in found.layers:
            store.verify(part.blob.digest)


def test_the_same_name_in_another_registry_is_another_release(
    store: Store, images: dict[str, oci.Image], tmp_path: Path
):
    made = {}
    for number in range(2):
        mine = {**images, "train": image(store, f"train {number}")}
        with registries.serve(tmp_path / str(number)) as host, Registry(host) as client:
            made[host] = released(client, host, store, mine), mine
    names = {name: entry.digest for name, entry in kept(store).items()}
    assert names == {f"release {host}/p/pipeline:v1": one.digest for host, (one, _) in made.items()}
    late = max(path.stat().st_mtime for path in store.root.rglob("*")) + 1
    collect(store, keep_days=0, now=late)
    for _, mine in made.values():
        for found in mine.values():
            assert store.image(found.digest) == found


def copy_with_regctl(source: str, target: str) -> None:
    hosts = [name.partition("/")[0] for name in (source, target)]
    plain = [word for host in hosts for word in ("--host", f"reg={host},tls=disabled")]
    words = ("image", "copy", "--referrers", "--digest-tags")
    subprocess.run(["regctl", *plain, *words, source, target], check=True)


def copy_with_oras(source: str, target: str) -> None:
    plain = ("--from-plain-http", "--to-plain-http")
    subprocess.run(["oras", "copy", "-r", *plain, source, target], check=True)


def copy_by_the_specification(source: str, target: str) -> None:
    """Copy an index and all it names, manifest by manifest, blob by blob: no more than any tool."""
    (one, home), (other, there) = (
        name.rpartition(":")[0].split("/", 1) for name in (source, target)
    )
    tag = source.rpartition(":")[2]
    with Registry(one) as theirs, Registry(other) as ours:

        def bring(reference: str, name: str) -> None:
            found = theirs.get_manifest(home, reference)
            assert found
            document = json.loads(found[1])
            for entry in document.get("manifests", ()):
                bring(entry["digest"], entry["digest"])
            for entry in (*document.get("layers", ()), *[document.get("config")]):
                if entry:
                    blob = oci.Descriptor.from_json(entry)
                    data = theirs.get_blob(home, blob)
                    ours.put_blob(there, blob, lambda data=data: io.BytesIO(data))
            ours.put_manifest(there, name, found[1], found[0].media_type)
            if subject := document.get("subject"):
                described = oci.describe(
                    found[0].media_type, found[1], artifact_type=document.get("artifactType", "")
                )
                announce(ours, there, subject["digest"], described)

        bring(tag, tag)


# Tools that no package of the system has: tried where they are installed.
COPIES = [copy_by_the_specification] + [
    copy for name, copy in (("oras", copy_with_oras), ("regctl", copy_with_regctl))
    if shutil.which(name)
]  # fmt: skip


@pytest.mark.parametrize("copy", COPIES)
def test_the_bills_of_materials_travel_with_a_copy_of_a_release(
    store: Store, images: dict[str, oci.Image], tmp_path: Path, copy: Callable[[str, str], None]
):
    with registries.serve(tmp_path / "one") as host, registries.serve(tmp_path / "two") as other:
        with Registry(host) as client:
            made = released(client, host, store, images)
            assert released(client, host, store, images) == made
        copy(f"{host}/p/pipeline:v1", f"{other}/q/pipeline:v1")
        with Registry(other) as client:
            (copied,) = releases(client, "q")
            assert (copied.digest, copied.images) == (made.digest, made.images)
            for name, found in images.items():
                (entry,) = client.referrers("q/pipeline", found.digest)
                assert entry.artifact_type == INVENTORY
                manifest = client.get_manifest("q/pipeline", entry.digest)
                assert manifest
                (blob,) = json.loads(manifest[1])["layers"]
                read = client.get_blob("q/pipeline", oci.Descriptor.from_json(blob))
                assert read == bill(name)


def test_what_was_not_released_is_not_found(registry_host: str):
    with Registry(registry_host) as client, pytest.raises(PipelineError, match="no release"):
        fetch(client, "p", "v9")


def test_a_package_of_others_is_not_released(
    store: Store, images: dict[str, oci.Image], registry_host: str
):
    with Registry(registry_host) as client:
        push(store, {n: (f"{i:064x}", m) for i, (n, m) in enumerate(images.items())},
             f"{registry_host}/p", client)  # fmt: skip
        with pytest.raises(PipelineError, match="invoke compile"):
            publish(client, "p", store, b"pipelineInfo: {}\n", images, "v1")
        assert client.tags(repository("p")) == []


@pytest.mark.usefixtures("impatient")
def test_a_registry_that_is_not_there_is_named():
    with Registry("127.0.0.1:1") as client, pytest.raises(BuilderError, match=r"127\.0\.0\.1:1"):
        releases(client, "p")


def test_a_package_of_these_tests_is_what_its_pins_compile_to(
    store: Store, images: dict[str, oci.Image]
):
    pins = PINS | {name: f"registry.test:5000/p/{name}@{i.digest}" for name, i in images.items()}
    documents = {name: {"digest": i.digest, "layers": {}} for name, i in images.items()}
    made = Provenance("c" * 40, dirty=False, images=documents, locks={})
    assert package("registry.test:5000", images) == (
        compile_package(definition(Settings()), pins, made, store).data
    )


def test_differences_are_named_with_old_and_new(store: Store, images: dict[str, oci.Image]):
    locks = {"stages/train/requirements.linux-amd64.lock": {"packages": {"numpy": "1.0"}}}
    newer = {"stages/train/requirements.linux-amd64.lock": {"packages": {"numpy": "2.0"}}}
    one = package("registry.test", images, locks=locks)
    other = {**images, "train": image(store, "another")}
    two = package("registry.test", other, locks=newer, dirty=True)
    found = [(c.kind, c.name, c.old, c.new) for c in compare(one, two)]
    assert ("wheel", "train: numpy", "1.0", "2.0") in found
    assert ("image", "train", images["train"].digest, other["train"].digest) in found
    assert ("commit", "", "c" * 40, f"{'c' * 40} with changes") in found
    assert len(found) == 3
    assert compare(one, one) == []


@pytest.mark.parametrize(
    ("name", "can_be"),
    [("v1.2", True), ("sha256:" + "0" * 64, True), ("latest", True), ("dist/plateline.yaml", False),
     ("plateline.yaml", False), ("/etc/passwd", False), ("", False)],
)  # fmt: skip
def test_what_can_name_a_release_is_told_from_a_file(name: str, can_be: bool):
    assert is_release_name(name) is can_be
