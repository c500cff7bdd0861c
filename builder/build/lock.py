"""`invoke lock`: from what a stage asks for to exactly what it gets."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.packages import debian, debian_index, lock_file, pip, python, wheels


@dataclass(frozen=True, slots=True)
class Change:
    """One line that differs between the old lock and the new: an empty version is none."""

    target: str
    package: str
    old: str
    new: str


def lock(workspace: Workspace, names: Sequence[str] = (), *, upgrade: bool = False) -> list[Change]:
    """Resolve the .in files of the targets `names` (all without names) and write their locks.

    Wheels are resolved for all targets together, so that the workspace has one version of a
    package; without `upgrade` the versions that are locked stay where they fit. Returns what
    changed.
    """
    for name in names:
        workspace.target(name)
    chosen = [t for t in workspace.targets.values() if not names or t.name in names]
    changes: list[Change] = []
    for target in chosen:
        if (target.folder / "debian.in").exists():
            old = {p.name: p.version for p in _old_debian(target.folder)}
            new = {p.name: p.version for p in debian_index.lock(target.folder)}
            changes += _compare(target.name, old, new)
    wanted = [t for t in workspace.targets.values() if (t.folder / "requirements.in").exists()]
    if not any(target in wanted for target in chosen):
        return changes
    preferred: dict[str, str] = {}
    for target in wanted:
        preferred |= {} if upgrade else {w.name: w.version for w in wheels.pinned(target.folder)}
    inputs = [target.folder / "requirements.in" for target in wanted]
    together = _near(inputs, preferred)
    versions = {wheel.name: wheel.version for wheel in together}
    for target in wanted:
        before = {wheel.name: wheel.version for wheel in wheels.pinned(target.folder)}
        found = _resolve([target.folder / "requirements.in"], versions)
        _write(target.folder, found)
        changes += _compare(target.name, before, {wheel.name: wheel.version for wheel in found})
    return changes


def _near(inputs: Sequence[Path], preferred: dict[str, str]) -> list[wheels.Wheel]:
    """Resolve `inputs`, the versions `preferred` kept where that is possible."""
    asked = {r.name: r for path in inputs for r in _requirements(path)}
    fitting = {
        name: version
        for name, version in preferred.items()
        if name not in asked or asked[name].specifier.contains(version, prereleases=True)
    }
    try:
        return _resolve(inputs, fitting)
    except BuilderError:
        # A version that has gone, or that something new excludes, would stand in the way.
        return _resolve(inputs, {})


def _requirements(path: Path) -> Iterator[Requirement]:
    """Yield what a requirements file asks for, one version specifier a package."""
    for raw in path.read_text(encoding="utf-8").splitlines():
        line = raw.partition(" #")[0].strip()
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue  # a comment, an option, an address: pip's to read
        requirement.name = canonicalize_name(requirement.name)
        yield requirement


def _resolve(inputs: Sequence[Path], constraints: dict[str, str]) -> list[wheels.Wheel]:
    """Ask pip which wheels `inputs` need on the image's platform."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "constraints.txt")
        path.write_text("".join(f"{name}=={version}\n" for name, version in constraints.items()))
        shown = " and ".join(f"{i.parent.name}/{i.name}" for i in inputs)
        report = pip.run(
            ["install", "--dry-run", "--ignore-installed", "--report", "-", "--target", folder,
             *pip.platform(), "-c", str(path), *(f"-r{i}" for i in inputs)],
            f"resolving {shown} for {python.TAG} on linux-amd64",
        )  # fmt: skip
    found = []
    for item in json.loads(report)["install"]:
        name, version = canonicalize_name(item["metadata"]["name"]), item["metadata"]["version"]
        sha256 = item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
        if not sha256:
            raise BuilderError(f"pip gave no sha256 for {name} {version}; is it from a folder?")
        found.append(wheels.Wheel(name, version, sha256, _size(name, version, sha256)))
    return sorted(found, key=lambda wheel: wheel.name)


def _size(name: str, version: str, sha256: str) -> int:
    """Return a wheel's size in bytes, which pip does not report: fetch it, it is needed anyway."""
    from builder.packages.download import downloads_folder

    (path,) = pip.fetch([wheels.Wheel(name, version, sha256, 0)], downloads_folder(), name)
    return path.stat().st_size


def _write(folder: Path, found: Sequence[wheels.Wheel]) -> None:
    lines = [
        f"# made from requirements.in {lock_file.in_hash(folder, 'requirements.in')}",
        f"# by `invoke lock`: one wheel a line, for {python.TAG} on linux-amd64",
        *(f"{w.name}=={w.version} --hash=sha256:{w.sha256}  # {w.size} bytes" for w in found),
    ]
    (folder / wheels.LOCK).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _old_debian(folder: Path) -> list[debian.Package]:
    try:
        return debian.read_lock(folder)
    except BuilderError:
        return []


def _compare(target: str, old: dict[str, str], new: dict[str, str]) -> list[Change]:
    return [
        Change(target, name, old.get(name, ""), new.get(name, ""))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
