"""Provenance has all that an image was made from, each with a digest, and the builder's version."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from builder.build.make import plans
from builder.build.workspace import Workspace
from builder.inspect.inventory import differing
from builder.inspect.provenance import NOT_REPRODUCIBLE, provenance
from builder.packages import sdist, wheels
from builder.packages.download import sha256_file
from builder.store import Store
from tests.builder import packed
from tests.builder.conftest import Make

SHA, COMMIT = "1" * 64, "e" * 40
STAGE = (
    "FROM a\nCOPY --from=wheels / /opt/venv/\n"
    f"ADD --checksum=sha256:{SHA} https://127.0.0.1/weights.bin /w\n"
    f"ADD https://127.0.0.1/r.git#{COMMIT} /r\n"
)


@pytest.fixture
def workspace(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("PLATELINE_STORE", str(tmp_path / "home/store"))
    root = make("FROM scratch\nCOPY --from=debian / /\n", **{"stages/b/Dockerfile": STAGE}).root
    packed.lock_wheels(root / "stages/b", packed.wheel("h11", "0.16", ""))
    packed.lock_debs(root / "stages/a", packed.deb("libc6", "2.41", {}, source="glibc"))
    return Workspace.load(root)


def test_all_that_an_image_was_made_from_is_a_material_with_its_digest(
    workspace: Workspace, store: Store
) -> None:
    plan = plans(workspace, store, ["b"])["b"]
    made = provenance(workspace, plan, "c" * 40, dirty=False)
    materials = {m.get("name") or m["uri"]: m["digest"] for m in
                 made["buildDefinition"]["resolvedDependencies"]}  # fmt: skip
    root = workspace.root
    files = ["stages/a/Dockerfile", "stages/a/debian.lock", "stages/b/Dockerfile",
             "stages/b/requirements.linux-amd64.lock"]  # fmt: skip
    for file in files:
        assert materials.pop(file) == {"sha256": sha256_file(root / file)}
    assert materials.pop("source") == {"gitCommit": "c" * 40}
    assert materials.pop("https://127.0.0.1/weights.bin") == {"sha256": SHA}
    assert materials.pop("https://127.0.0.1/r.git") == {"gitCommit": COMMIT}
    wheel = materials.pop("pkg:pypi/h11@0.16")
    deb = materials.pop("pkg:deb/debian/libc6@2.41?arch=amd64&distro=debian-13&upstream=glibc")
    locks = (root / files[1]).read_text() + (root / files[3]).read_text()
    assert wheel["sha256"] in locks
    assert deb["sha256"] in locks
    assert materials == {}, "nothing without a digest, and no part of it twice"
    assert made["buildDefinition"]["internalParameters"]["actionKey"] == plan.key


def test_the_builders_version_is_the_projects(workspace: Workspace, store: Store) -> None:
    plan = plans(workspace, store, ["b"])["b"]
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    details = provenance(workspace, plan, "", dirty=True)["runDetails"]
    assert details["builder"]["version"] == {"plateline": project["version"]}
    assert json.dumps(details).count("time") == 0


def test_a_wheel_that_need_not_come_out_the_same_again_says_why(
    workspace: Workspace, store: Store
) -> None:
    folder = workspace.target("b").folder
    (wheel,) = wheels.read_lock(workspace.target("b").requirements)
    (folder / "sdists.in").write_text("h11==0.16\nallow h11: it writes the time\n")
    made = sdist.Sdist("h11", "0.16", "a" * 64, "h11-0.16-py3-none-any.whl", wheel.sha256, (),
                       "it writes the time")  # fmt: skip
    sdist.write_lock(folder, [made])
    plan = plans(workspace, store, ["b"])["b"]
    assert differing(workspace, plan) == [made]
    said = provenance(workspace, plan, "", dirty=False)["buildDefinition"]["resolvedDependencies"]
    noted = {m["uri"]: m["annotations"] for m in said if "annotations" in m}
    assert noted == {"pkg:pypi/h11@0.16": {NOT_REPRODUCIBLE: "it writes the time"}}
