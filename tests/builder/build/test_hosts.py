"""The images have the same digests on every host: Pythons, user lands and users that differ.

So have the bills of materials and the package that `compile` writes.

Each host is a plain container without any right or network, made of Debian's own packages by the
builder itself. So this also holds that images build in a container that can isolate nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from builder.packages.download import downloads_folder
from builder.sandbox.docker import Docker
from tests import debian_hosts

BUILD = """
import hashlib, json, sys
from pathlib import Path
from builder.build.make import build
from builder.build.workspace import Workspace
from builder.inspect import inventory
from builder.store import Store
from pipeline.definition.pipelines import definition
from pipeline.definition.settings import Settings
from pipeline.definition.stages import TARGETS
from pipeline.release import materials
from pipeline.spec.compile import compile_package
workspace, store = Workspace.load(Path.cwd()), Store.open()
built = build(workspace, store, sys.argv[1:])
found = {name: b.image.digest for name, b in built.items()}
pins = {name: f"127.0.0.1/p/{name}@{found.get(name, 'sha256:' + '0' * 64)}" for name in TARGETS}
made_from = materials.collect(workspace, built)
made = compile_package(definition(Settings()), pins, made_from, store)
found["the package"] = made.digest
for name, b in built.items():
    bill = inventory.sbom(workspace, store, b.plan)
    found[f"the bill of materials of {name}"] = hashlib.sha256(bill).hexdigest()
print(json.dumps([sys.version, found]))
"""
CHECKOUT = ("builder", "pipeline", "stages", ".dockerignore")
# What compiling imports of these is Python alone, some of it without a wheel, and runs anywhere.
PURE = ("kfp", "kfp-kubernetes", "kfp-server-api", "kfp-pipeline-spec")


@pytest.fixture(scope="module")
def engine() -> Docker:
    return debian_hosts.docker_engine()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the digests that this host gives; its store may hold the images already."""
    code = debian_hosts.checkout(tmp_path_factory.mktemp("here"), *CHECKOUT)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, *chosen()], cwd=code, capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": str(code)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    _, found = json.loads(done.stdout)
    return dict(found)


def chosen() -> list[str]:
    """Return the targets to compare: all of them, unless PLATELINE_TEST_TARGETS names some."""
    return os.environ.get("PLATELINE_TEST_TARGETS", "").replace(",", " ").split()


def compiling() -> list[str]:
    """Return the packages besides PURE that compiling and bills of materials import."""
    lines = [line for name in PURE for line in metadata.requires(name) or ()]
    needed = {Requirement(line).name for line in lines if "extra ==" not in line}
    own = ["cryptography", "cyclonedx-python-lib", "securesystemslib"]
    return [*own, *sorted(needed - {*PURE})]


def pure(folder: Path) -> Path:
    """Copy the packages PURE as they are installed here, byte-code left out."""
    for name in PURE:
        for file in metadata.files(name) or ():
            target = folder / file
            if file.parts[0] not in ("..", "__pycache__") and file.suffix != ".pyc":
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file.locate(), target)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("suite", "version"), debian_hosts.SUITES.items(), ids=debian_hosts.SUITES)
def test_another_python_in_a_container_without_rights_gives_the_same_digests(
    engine: Docker, here: dict[str, str], tmp_path: Path, suite: str, version: str
) -> None:
    identity = debian_hosts.user_land(engine, tmp_path / "host", suite)
    code = debian_hosts.checkout(tmp_path / "code", *CHECKOUT)
    site = debian_hosts.libraries(engine.store, version, compiling())
    (tmp_path / "out").mkdir(mode=0o777)
    (tmp_path / "out").chmod(0o777)
    mounts: dict[str, Any] = {
        str(code): {"bind": "/code", "mode": "ro"},
        str(site): {"bind": "/site", "mode": "ro"},
        str(pure(tmp_path / "pure")): {"bind": "/pure", "mode": "ro"},
        str(downloads_folder()): {"bind": "/out/downloads", "mode": "ro"},
        str(tmp_path / "out"): {"bind": "/out", "mode": "rw"},
    }
    container = engine.client.containers.create(
        identity, ["-c", BUILD, *chosen()], entrypoint=[f"/usr/bin/python{version}"],
        user="1000:1000", working_dir="/code", volumes=mounts, network_mode="none",
        cap_drop=["ALL"], security_opt=["no-new-privileges"], read_only=True,
        environment={"PYTHONPATH": "/site:/pure:/code", "PLATELINE_STORE": "/out/store",
                     "TMPDIR": "/out", "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    try:
        container.start()
        code = container.wait(timeout=880)["StatusCode"]
        assert code == 0, container.logs().decode()[-2000:]
        python, found = json.loads(container.logs(stderr=False))
    finally:
        container.remove(force=True)
    assert python.startswith(version)
    assert found == here
