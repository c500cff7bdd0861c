"""What made a package: the commit, each image's key and digest, the lock files and their packages.

It stands as one line of JSON in a comment at the head of the package, where Kubeflow Pipelines
ignores it, and is part of the package's digest.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from builder.build.make import Built
from builder.build.workspace import Workspace
from builder.oci import canonical
from builder.packages import debian, wheels
from pipeline.errors import PipelineError

_MARK = "# made from: "


@dataclass(frozen=True)
class Provenance:
    """`commit` is empty outside of a git checkout; `images` has name -> key, digest, layers (what
    made one -> its digest); `locks` has path -> sha256, packages (name -> version)."""

    commit: str
    dirty: bool
    images: Mapping[str, Mapping[str, Any]]
    locks: Mapping[str, Mapping[str, Any]]

    def line(self) -> str:
        """Return the comment that carries it."""
        return _MARK + canonical.dumps(asdict(self)).decode()


def collect(workspace: Workspace, built: Mapping[str, Built]) -> Provenance:
    """Return what `built` was made from."""
    commit, dirty = _git(workspace.root)
    locks = {
        path.relative_to(workspace.root).as_posix(): {
            "sha256": canonical.sha256(path.read_bytes()), "packages": _packages(path),
        }
        for path in sorted(workspace.root.glob("stages/**/*.lock"))
    }  # fmt: skip
    images = {
        name: {
            "key": b.key, "digest": b.image.digest,
            "layers": {layer.created_by: layer.blob.digest for layer in b.image.layers},
        }
        for name, b in sorted(built.items())
    }  # fmt: skip
    return Provenance(commit, dirty, images, locks)


def _packages(lock: Path) -> dict[str, str]:
    read = debian.read_lock if lock.name == "debian.lock" else wheels.read_lock
    return {package.name: package.version for package in read(lock.parent)}


def is_dirty(root: Path) -> bool:
    """Tell whether `root` has changes that no commit holds, or is no git checkout at all."""
    return _git(root)[1]


def _git(root: Path) -> tuple[str, bool]:
    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, check=False)
        return done.stdout.decode().strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "HEAD")
        return commit, bool(git("status", "--porcelain")) if commit else True
    except FileNotFoundError:
        return "", True


def read(package: bytes) -> dict[str, Any]:
    """Return what a package says of its making; raises PipelineError where it says nothing."""
    first = package.split(b"\n", 1)[0].decode(errors="replace")
    if not first.startswith(_MARK):
        raise PipelineError(
            "the package does not say what it was made from; it was not made by `invoke compile`"
        )
    return dict(json.loads(first.removeprefix(_MARK)))
