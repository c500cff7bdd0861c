"""Hosts that are plain Debian containers, made of Debian's own packages by the builder itself."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from builder.build.make import build
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.inspect import pythons
from builder.packages import debian_index
from builder.sandbox.docker import Docker
from builder.store import Store
from tests.conftest import missing

ROOT = Path(__file__).parents[1]
# Suite -> its Python.
SUITES = {"bookworm": "3.11", "trixie": "3.13", "forky": "3.14"}


def docker_engine() -> Docker:
    """Return the Docker Engine of this machine, or skip the test."""
    try:
        return Docker(Store.open())
    except BuilderError as error:
        missing(str(error), "apt-get install docker.io, then start dockerd")
        raise


def user_land(engine: Docker, folder: Path, suite: str, *packages: str) -> str:
    """Return the id of an image of that suite's Python and `packages`, loaded into the engine.

    `folder` is where its recipe is written.
    """
    target = folder / "stages/host"
    target.mkdir(parents=True)
    (target / "Dockerfile").write_text("FROM scratch\nCOPY --from=debian / /\n")
    version = SUITES[suite]
    roots = ["base-files", f"python{version}-minimal", f"libpython{version}-stdlib", *packages]
    (target / "debian.in").write_text("\n".join([f"suite {suite}", *roots]))
    # A mirror may be behind with a suite that is not released; this host is none of the product's.
    debian_index.lock(target, expired=True)
    return engine.load(build(Workspace.load(folder), engine.store)["host"].image)


def libraries(store: Store, version: str, more: Sequence[str] = ()) -> Path:
    """Return what a build imports, and `more` packages, as the lock pins them, for a Python 3.N."""
    other = pythons.Python(version, version, Path("/usr/bin/python"), Path("/usr/lib"))
    (folder,) = pythons.libraries(other, store, isolating=False, more=more)
    return folder


def checkout(folder: Path, *names: str) -> Path:
    """Copy the files and folders `names` of this checkout to `folder`, readable by everyone."""
    for name in names:
        source = ROOT / name
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, symlinks=True, ignore=ignore)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder)
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    return folder
