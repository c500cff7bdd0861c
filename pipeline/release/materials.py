"""What a package is made from: the commit, the locks and the images, read from a workspace."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from builder.build.make import Pinnable
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.inspect import checkout
from builder.oci import canonical
from builder.packages import debian, sdist, wheels
from builder.packages.lock_file import Requirements, named
from builder.platform import NATIVE
from pipeline.spec.provenance import Provenance


def collect(
    workspace: Workspace, built: Mapping[str, Pinnable], *, status: bytes | None = None
) -> Provenance:
    """Return what `built` was made from, for the platforms it is for; `status` is for `state`."""
    commit, dirty = state(workspace.root, status)
    platforms = {platform for made in built.values() for platform in made.images}
    names = {lock for p in platforms for lock in (p.debian_lock, p.wheels_lock)}
    variants = [one.requirements for name, one in workspace.variants.items() if name in built]
    own = {asked.folder / asked.lock(p) for asked in variants for p in platforms}
    locks = {
        path.relative_to(workspace.root).as_posix(): {
            "sha256": canonical.sha256(path.read_bytes()), "packages": _packages(path),
        }
        for path in sorted(workspace.root.glob("stages/**/*.lock"))
        if path.name in {*names, sdist.LOCK} or path in own
    }  # fmt: skip
    images = {name: _image(made) for name, made in sorted(built.items())}
    return Provenance(commit, dirty, images, locks)


def _image(made: Pinnable) -> dict[str, Any]:
    """Return what a package says of an image; of NATIVE's alone it is what it was before others."""
    found: dict[str, Any] = {"key": made.key, "digest": made.digest}
    if tuple(made.images) != (NATIVE,):
        found["platforms"] = {
            platform.name: {"key": b.key, "digest": b.image.digest}
            for platform, b in made.images.items()
        }
    several = len(made.images) > 1
    found["layers"] = {
        f"{layer.created_by} for {platform.name}" if several else layer.created_by:
            layer.blob.digest
        for platform, b in made.images.items() for layer in b.image.layers
    }  # fmt: skip
    return found


def package_provenance(made: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `made` (`pipeline.spec.provenance.read`) says as SLSA provenance of the package.

    Source: https://slsa.dev/spec/v1.0/provenance.
    """
    from builder.inspect.provenance import BUILDER, source  # costs time

    locks = [
        {"name": path, "digest": {"sha256": lock["sha256"].removeprefix("sha256:")}}
        for path, lock in sorted(made["locks"].items())
    ]
    images = [
        {"name": f"image {name}", "digest": {"sha256": image["digest"].removeprefix("sha256:")}}
        for name, image in sorted(made["images"].items())
    ]
    old = [
        {"name": f"{name} before its move", "digest": {"sha256": digest.removeprefix("sha256:")}}
        for name, digest in sorted((made.get("relocated") or {}).items())
    ]
    return {
        "buildDefinition": {
            "buildType": "urn:plateline:package:v1",
            "externalParameters": {"images": sorted(made["images"])},
            "internalParameters": {"dirty": made["dirty"]},
            "resolvedDependencies": [*source(made["commit"]), *locks, *images, *old],
        },
        "runDetails": {"builder": BUILDER},
    }


def _packages(lock: Path) -> dict[str, str]:
    variant, platform = named(lock.name)
    if lock.name == platform.debian_lock:
        return {p.name: p.version for p in debian.read_lock(lock.parent, platform)}
    if lock.name == (asked := Requirements(lock.parent, variant)).lock(platform):
        return {w.name: w.version for w in wheels.read_lock(asked, platform)}
    return {made.name: made.version for made in sdist.read_lock(lock.parent)}


def commit_date(root: Path, commit: str) -> str:
    """Return when `commit` was made, in UTC (RFC 3339); empty where the checkout lacks it."""
    try:
        said = checkout.git(root, "show", "-s", "--format=%ct", commit).decode()
        return datetime.fromtimestamp(int(said), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (BuilderError, ValueError, OverflowError):
        return ""


def state(root: Path, status: bytes | None = None) -> tuple[str, bool]:
    """Return the commit of `root`, and whether it has changes that no commit holds.

    `status` is what git said of it, where that is known. Without git, outside of a checkout, and
    before the first commit, the commit is empty. Format: git-status(1), "Porcelain Format Version
    2".
    """
    try:
        if status is None:
            status = checkout.git(root, "status", "--porcelain=v2", "--branch")
    except BuilderError:
        return "", True
    lines = status.splitlines()
    about = dict(line[2:].split(b" ", 1) for line in lines if line.startswith(b"# "))
    commit = about.get(b"branch.oid", b"(initial)").decode()
    if commit == "(initial)":
        return "", True
    return commit, not all(line.startswith(b"# ") for line in lines)
