"""The bill of materials names every deb and wheel of an image, and refers to it in a registry."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.model.bom import Bom

from builder.build.make import build, plans
from builder.build.plan import ImagePlan
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.inspect import inventory
from builder.inspect.bill import cyclonedx
from builder.oci import Descriptor
from builder.registry.client import Registry
from builder.registry.push import INVENTORY, push
from builder.store import Store
from tests.builder import packed, small
from tests.builder.conftest import Make

BASE = "FROM scratch\nCOPY --from=debian / /\n"
SHA = "1" * 64
STAGE = (
    "FROM a\nCOPY --from=wheels / /opt/venv/\nCOPY src /src\n"
    f"ADD --checksum=sha256:{SHA} https://127.0.0.1/weights.bin /w\n"
)


DEP5 = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n"
GLIBC = (
    f"{DEP5}Files: *\nCopyright: x\nLicense: LGPL-2.1+\n\nFiles: m\nCopyright: x\nLicense: PCRE\n"
)


@pytest.fixture
def workspace(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace whose packages are small real ones; nothing is downloaded."""
    monkeypatch.setenv("PLATELINE_STORE", str(tmp_path / "home/store"))
    root = make(BASE, **{"stages/b/Dockerfile": STAGE, "src": "x"}).root
    lock_wheels(root, "1.0")
    copyright_file = {"./usr/share/doc/libc6/copyright": GLIBC}
    packed.lock_debs(
        root / "stages/a",
        packed.deb("libc6", "2.41-1+b2", copyright_file, source="glibc"),
        packed.deb("tzdata", "2025a", {"./usr/share/doc/tzdata/copyright": "ask us\n"}),
    )
    return Workspace.load(root)


def lock_wheels(root: Path, numpy: str) -> None:
    packed.lock_wheels(
        root / "stages/b",
        packed.wheel("Num.Py", numpy, "License-Expression: BSD-3-Clause AND 0BSD\n"),
        packed.wheel("idna", "3.4", ""),
    )


def bill(workspace: Workspace, store: Store, name: str = "b", form: str = "cyclonedx") -> bytes:
    return inventory.sbom(workspace, store, plans(workspace, store, [name])[name], form)


def hashes(component: dict[str, Any]) -> list[str]:
    return [entry["content"] for entry in component.get("hashes", ())]


def test_each_part_is_named_as_scanners_look_it_up_with_hash_and_licence(
    workspace: Workspace, store: Store
) -> None:
    document = json.loads(bill(workspace, store))
    found = {c["name"]: c for c in document["components"]}
    assert found["libc6"]["purl"] == (
        "pkg:deb/debian/libc6@2.41-1%2Bb2?arch=amd64&distro=debian-13&upstream=glibc"
    )
    assert found["tzdata"]["purl"] == "pkg:deb/debian/tzdata@2025a?arch=amd64&distro=debian-13"
    assert found["num-py"]["purl"] == "pkg:pypi/num-py@1.0"
    locks = (workspace.root / "stages/a/debian.lock").read_text()
    assert hashes(found["libc6"])[0] in locks
    assert hashes(found["https://127.0.0.1/weights.bin"]) == [SHA]
    assert set(found) == {
        "debian", "libc6", "tzdata", "num-py", "idna", "https://127.0.0.1/weights.bin",
        "stages/a/Dockerfile", "stages/b/Dockerfile",
    }  # fmt: skip
    assert (found["debian"]["type"], found["debian"]["version"]) == ("operating-system", "13")
    assert found["debian"]["cpe"] == "cpe:2.3:o:debian:debian_linux:13:*:*:*:*:*:*:*"
    said = {name: c.get("licenses") for name, c in found.items()}
    unknown = [{"license": {"name": "NOASSERTION"}}]
    assert said["libc6"] == [{"expression": "LGPL-2.1-or-later AND LicenseRef-PCRE"}]
    assert said["num-py"] == [{"expression": "BSD-3-Clause AND 0BSD"}]
    assert said["tzdata"] == said["idna"] == said["https://127.0.0.1/weights.bin"] == unknown
    assert said["stages/a/Dockerfile"] is said["debian"] is None
    assert document["metadata"]["component"]["name"] == "b"
    (root,) = [d for d in document["dependencies"] if d["ref"] == "image:b"]
    assert sorted(root["dependsOn"]) == sorted(c["bom-ref"] for c in document["components"])


def test_it_names_the_files_of_a_package_that_the_image_does_not_get(
    workspace: Workspace, store: Store
) -> None:
    """A package that another target in the image has whole is whole."""
    root = workspace.root
    (root / "stages/b/exclude.in").write_text("num_py Num.Py/a\nidna idna/b\n")
    (root / "stages/c").mkdir()
    copied = f"{STAGE}COPY --from=b /opt/venv/ /other/\n"
    (root / "stages/c/Dockerfile").write_text(copied)
    for name in ("requirements.in", "requirements.linux-amd64.lock"):
        shutil.copy(root / "stages/b" / name, root / "stages/c")
    (root / "stages/c/exclude.in").write_text("idna idna/b\nidna idna/c\n")
    found = Workspace.load(root)
    said = {part.name: part.excluded for part in cyclonedx.read(json.loads(bill(found, store)))}
    assert {name: what for name, what in said.items() if what} == {
        "num-py": ("Num.Py/a",), "idna": ("idna/b",)
    }  # fmt: skip
    both = {
        part.name: part.excluded for part in cyclonedx.read(json.loads(bill(found, store, "c")))
    }
    assert {name: what for name, what in both.items() if what} == {"idna": ("idna/b",)}
    packages = json.loads(bill(found, store, form="spdx"))["packages"]
    assert [p["name"] for p in packages if p.get("comment") == "Without the files idna/b"] == [
        "idna"
    ]
    assert Bom.from_json(json.loads(bill(found, store))).validate()  # type: ignore[attr-defined]


def test_it_reads_back_as_cyclonedx(workspace: Workspace, store: Store) -> None:
    data = json.loads(bill(workspace, store))
    assert data["specVersion"] == "1.6"
    read = Bom.from_json(data)  # type: ignore[attr-defined]
    assert read.validate()
    assert len(read.components) == 8


def test_as_spdx_it_says_the_same(workspace: Workspace, store: Store) -> None:
    """What the specification asks of a document, field by field; tools refuse one without it."""
    document = json.loads(bill(workspace, store, form="spdx"))
    assert document["spdxVersion"] == "SPDX-2.3"
    assert document["dataLicense"] == "CC0-1.0"
    assert document["documentNamespace"].startswith("urn:uuid:")
    packages = {p["name"]: p for p in document["packages"]}
    ids = [p["SPDXID"] for p in document["packages"]]
    assert len({*ids}) == len(ids) == 9
    assert all(re.fullmatch(r"SPDXRef-[A-Za-z0-9.-]+", name) for name in ids)
    related = [(r["spdxElementId"], r["relationshipType"], r["relatedSpdxElement"])
               for r in document["relationships"]]  # fmt: skip
    assert related[0] == ("SPDXRef-DOCUMENT", "DESCRIBES", packages["b"]["SPDXID"])
    assert {r[2] for r in related[1:]} == {*ids} - {packages["b"]["SPDXID"]}
    of_cyclonedx = json.loads(bill(workspace, store))["components"]
    purls = {c["purl"] for c in of_cyclonedx if "purl" in c}
    refs = [r for p in packages.values() for r in p.get("externalRefs", ())]
    assert {r["referenceLocator"] for r in refs if r["referenceType"] == "purl"} == purls
    assert packages["libc6"]["licenseDeclared"] == "LGPL-2.1-or-later AND LicenseRef-PCRE"
    assert [i["licenseId"] for i in document["hasExtractedLicensingInfos"]] == ["LicenseRef-PCRE"]
    assert packages["idna"]["licenseDeclared"] == "NOASSERTION"
    assert packages["num-py"]["checksums"][0]["checksumValue"] in json.dumps(of_cyclonedx)
    assert {p["filesAnalyzed"] for p in packages.values()} == {False}


def test_a_format_that_there_is_not_is_refused(workspace: Workspace, store: Store) -> None:
    with pytest.raises(BuilderError, match="no format 'swid'; there are cyclonedx, spdx"):
        bill(workspace, store, form="swid")


def test_a_licence_is_read_once(
    workspace: Workspace, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store remembers it by the package's hash, so that downloads may go."""
    first = bill(workspace, store)
    shutil.rmtree(tmp_path / "home/downloads")
    (workspace.root / "stages/b/Dockerfile").write_text(STAGE + "ENV A=1\n")
    assert bill(Workspace.load(workspace.root), store) != first


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
    lock_wheels(workspace.root, "1.1")
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
