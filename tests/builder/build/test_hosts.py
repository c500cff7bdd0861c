"""The images have the same digests on every host: Pythons, user lands and users that differ.

Each host is a plain container without any right or network, made of Debian's own packages by the
builder itself. So this also holds that images build in a container that can isolate nothing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from builder.build.make import build
from builder.build.workspace import Workspace
from builder.packages.download import downloads_folder
from builder.sandbox.docker import Docker
from builder.store import Store
from tests import debian_hosts

ROOT = Path(__file__).parents[3]
BUILD = """
import json, sys
from pathlib import Path
from builder.build.make import build
from builder.build.workspace import Workspace
from builder.store import Store
built = build(Workspace.load(Path("/code")), Store.open(), sys.argv[1:])
print(json.dumps([sys.version, {name: b.image.digest for name, b in built.items()}]))
"""


@pytest.fixture(scope="module")
def engine() -> Docker:
    return debian_hosts.docker_engine()


@pytest.fixture(scope="module")
def here() -> dict[str, str]:
    """Return the digests that this host gives."""
    built = build(Workspace.load(ROOT), Store.open(), chosen())
    return {name: b.image.digest for name, b in built.items()}


def chosen() -> list[str]:
    """Return the targets to compare: all of them, unless PLATELINE_TEST_TARGETS names some."""
    return os.environ.get("PLATELINE_TEST_TARGETS", "").replace(",", " ").split()


@pytest.mark.slow
@pytest.mark.parametrize(("suite", "version"), debian_hosts.SUITES.items(), ids=debian_hosts.SUITES)
def test_another_python_in_a_container_without_rights_gives_the_same_digests(
    engine: Docker, here: dict[str, str], tmp_path: Path, suite: str, version: str
) -> None:
    identity = debian_hosts.user_land(engine, tmp_path / "host", suite)
    code = debian_hosts.checkout(tmp_path / "code", "builder", "stages", ".dockerignore")
    site = debian_hosts.libraries(engine.store, version)
    (tmp_path / "out").mkdir(mode=0o777)
    (tmp_path / "out").chmod(0o777)
    mounts: dict[str, Any] = {
        str(code): {"bind": "/code", "mode": "ro"},
        str(site): {"bind": "/site", "mode": "ro"},
        str(downloads_folder()): {"bind": "/out/downloads", "mode": "ro"},
        str(tmp_path / "out"): {"bind": "/out", "mode": "rw"},
    }
    container = engine.client.containers.create(
        identity, ["-c", BUILD, *chosen()], entrypoint=[f"/usr/bin/python{version}"],
        user="1000:1000", working_dir="/code", volumes=mounts, network_mode="none",
        cap_drop=["ALL"], security_opt=["no-new-privileges"], read_only=True,
        environment={"PYTHONPATH": "/site:/code", "PLATELINE_STORE": "/out/store",
                     "TMPDIR": "/out", "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    try:
        container.start()
        code = container.wait(timeout=880)["StatusCode"]
        assert code == 0, container.logs().decode()[-2000:]
        python, digests = json.loads(container.logs(stderr=False))
    finally:
        container.remove(force=True)
    assert python.startswith(version)
    assert digests == here
