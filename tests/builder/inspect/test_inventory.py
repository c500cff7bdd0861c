"""The bill of materials names every deb and wheel of an image, and refers to it in a registry."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.model.bom import Bom

from builder.build.make import build, plans
from builder.build.plan import ImagePlan
from builder.build.workspace import Workspace
from builder.inspect import inventory
from builder.oci import Descriptor
from builder.registry.client import Registry
from builder.registry.push import INVENTORY, push
from builder.store import Store
from tests.builder import small
from tests.builder.conftest import Make
from tests.builder.locks import debs, wheels

BASE = "FROM scratch\nCOPY --from=debian / /\n"
SHA = "1" * 64
STAGE = (
    "FROM a\nCOPY --from=wheels / /opt/venv/\nCOPY src /src\n"
    f"ADD --checksum=sha256:{SHA} https://127.0.0.1/weights.bin /w\n"
)


@pytest.fixture
def workspace(make: Make) -> Workspace:
    root = make(BASE, **{"stages/b/Dockerfile": STAGE, "src": "x"}).root
    wheels(root, "numpy==1.0", "idna==3.4")
    debs(root, "libc6 1:2.41-1+b2", "tzdata 2025a")
    return Workspace.load(root)


def bill(workspace: Workspace, store: Store, name: str = "b") -> bytes:
    return inventory.sbom(workspace, store, plans(workspace, store, [name])[name])


def hashes(component: dict[str, Any]) -> list[str]:
    return [entry["content"] for entry in component.get("hashes", ())]


def test_debs_wheels_recipes_and_files_are_named_with_their_hashes(
    workspace: Workspace, store: Store
) -> None:
    document = json.loads(bill(workspace, store))
    found = {c["name"]: c for c in document["components"]}
    assert found["libc6"]["purl"] == ("pkg:deb/debian/libc6@1:2.41-1%2Bb2?arch=amd64&distro=trixie")
    assert hashes(found["libc6"]) == ["d" * 64]
    assert found["numpy"]["purl"] == "pkg:pypi/numpy@1.0"
    assert hashes(found["numpy"]) == ["c" * 64]
    assert hashes(found["https://127.0.0.1/weights.bin"]) == [SHA]
    assert set(found) == {
        "libc6", "tzdata", "numpy", "idna", "https://127.0.0.1/weights.bin",
        "stages/a/Dockerfile", "stages/b/Dockerfile",
    }  # fmt: skip
    assert document["metadata"]["component"]["name"] == "b"
    (root,) = [d for d in document["dependencies"] if d["ref"] == "image:b"]
    assert sorted(root["dependsOn"]) == sorted(c["bom-ref"] for c in document["components"])


def test_it_reads_back_as_cyclonedx(workspace: Workspace, store: Store) -> None:
    data = json.loads(bill(workspace, store))
    assert data["specVersion"] == "1.6"
    read = Bom.from_json(data)  # type: ignore[attr-defined]
    assert read.validate()
    assert len(read.components) == 7


def test_the_same_image_gives_the_same_bytes_in_another_checkout(
    make: Make, workspace: Workspace, store: Store, tmp_path: Path
) -> None:
    first = bill(workspace, store)
    workspace.root.rename(tmp_path / "moved")
    assert bill(Workspace.load(tmp_path / "moved"), Store.open(tmp_path / "other")) == first


def test_a_source_file_does_not_change_it_and_a_pin_does(
    workspace: Workspace, store: Store
) -> None:
    first = bill(workspace, store)
    (workspace.root / "src").write_text("changed")
    assert bill(workspace, store) == first
    wheels(workspace.root, "numpy==1.1", "idna==3.4")
    assert bill(workspace, store) != first


def test_one_image_of_many_registries_is_listed_in_one_order(
    workspace: Workspace, store: Store
) -> None:
    """A set of texts has another order in each process."""
    plan = plans(workspace, store, ["b"])["b"]
    hosts = [f"r{number}.example" for number in range(9)]
    needs = [
        ImagePlan(f"{host}/x@sha256:{SHA}", SHA, None, (), (), {}, pulled=small.image(store))
        for host in hosts
    ]
    listed = inventory.parts(workspace, replace(plan, needs=tuple(needs)))
    found = [dict(p.qualifiers)["repository_url"] for p in listed if p.kind == "image"]
    assert found == [f"{host}/x" for host in hosts]


def test_a_push_attaches_it_and_the_registry_tells_who_refers(
    make: Make, store: Store, registry_host: str
) -> None:
    workspace = make("FROM scratch\nCOPY src /\n", src="x")
    built = build(workspace, store)
    images = {name: (b.key, b.image) for name, b in built.items()}

    def contents(name: str) -> bytes:
        return inventory.sbom(workspace, store, built[name].plan)

    with Registry(registry_host) as registry:
        pushed = push(store, images, f"{registry_host}/p", registry, inventory=contents)["a"]
        (referrer,) = registry.referrers("p/a", built["a"].image.digest)
        assert referrer.artifact_type == INVENTORY
        found = registry.get_manifest("p/a", referrer.digest)
        assert found
        manifest = json.loads(found[1])
        assert manifest["subject"]["digest"] == built["a"].image.digest
        (layer,) = manifest["layers"]
        blob = Descriptor.from_json(layer)
        assert registry.get_blob("p/a", blob) == contents("a")
        assert pushed.attached == len(contents("a")) + len(b"{}") + len(found[1])
        again = push(store, images, f"{registry_host}/p", registry, tags=["x"], inventory=contents)
        assert again["a"].attached == len(found[1]), "only the manifest goes again"
        assert len(registry.referrers("p/a", built["a"].image.digest)) == 1


def test_a_push_of_what_is_there_makes_no_bill(
    make: Make, store: Store, registry_host: str
) -> None:
    built = build(make("FROM scratch\nCOPY src /\n", src="x"), store)
    images = {name: (b.key, b.image) for name, b in built.items()}

    def never(_: str) -> bytes:
        raise AssertionError("asked for")

    with Registry(registry_host) as registry:
        push(store, images, f"{registry_host}/p", registry)
        assert push(store, images, f"{registry_host}/p", registry, inventory=never)["a"].already
