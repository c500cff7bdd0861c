"""The images have the same digests on every host: Pythons, user lands and users that differ.

Each host is a plain container without any right or network, made of Debian's own packages by the
builder itself. So this also holds that images build in a container that can isolate nothing.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from builder.build.make import build
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.inspect import pythons
from builder.packages import debian_index
from builder.packages.download import downloads_folder
from builder.sandbox.docker import Docker
from builder.store import Store
from tests.conftest import missing

ROOT = Path(__file__).parents[3]
HOSTS = {"bookworm": "3.11", "trixie": "3.13", "forky": "3.14"}
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
    try:
        return Docker(Store.open())
    except BuilderError as error:
        missing(str(error), "apt-get install docker.io, then start dockerd")
        raise


@pytest.fixture(scope="module")
def here() -> dict[str, str]:
    """Return the digests that this host gives."""
    built = build(Workspace.load(ROOT), Store.open(), chosen())
    return {name: b.image.digest for name, b in built.items()}


def chosen() -> list[str]:
    """Return the targets to compare: all of them, unless PLATELINE_TEST_TARGETS names some."""
    return os.environ.get("PLATELINE_TEST_TARGETS", "").replace(",", " ").split()


def user_land(engine: Docker, folder: Path, suite: str, version: str) -> str:
    """Return the id of an image of that suite's Python, loaded into the engine."""
    target = folder / "stages/host"
    target.mkdir(parents=True)
    (target / "Dockerfile").write_text("FROM scratch\nCOPY --from=debian / /\n")
    roots = ["base-files", f"python{version}-minimal", f"libpython{version}-stdlib"]
    (target / "debian.in").write_text("\n".join([f"suite {suite}", *roots]))
    debian_index.lock(target)
    image = build(Workspace.load(folder), engine.store)["host"].image
    return engine.load(image)


def libraries(store: Store, version: str) -> Path:
    """Return what a build imports, as requirements.lock pins it, for another Python."""
    other = pythons.Python(version, version, Path("/usr/bin/python"), Path("/usr/lib"))
    return pythons.libraries(other, store, isolating=False)


def checkout(folder: Path) -> Path:
    for name in ("builder", "stages"):
        shutil.copytree(ROOT / name, folder / "code" / name, symlinks=True)
    shutil.copy(ROOT / ".dockerignore", folder / "code")
    for path in (folder / "code").rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    return folder / "code"


@pytest.mark.slow
@pytest.mark.parametrize(("suite", "version"), HOSTS.items(), ids=HOSTS)
def test_another_python_in_a_container_without_rights_gives_the_same_digests(
    engine: Docker, here: dict[str, str], tmp_path: Path, suite: str, version: str
) -> None:
    identity = user_land(engine, tmp_path / "host", suite, version)
    (tmp_path / "out").mkdir(mode=0o777)
    (tmp_path / "out").chmod(0o777)
    mounts: dict[str, Any] = {
        str(checkout(tmp_path)): {"bind": "/code", "mode": "ro"},
        str(libraries(engine.store, version)): {"bind": "/site", "mode": "ro"},
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
