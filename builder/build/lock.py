"""`invoke lock`: from what a stage asks for to exactly what it gets."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from builder import oci
from builder.build import sdists
from builder.build.workspace import Target, Workspace
from builder.errors import BuilderError
from builder.packages import debian, debian_index, lock_file, pip, python, sdist, wheels
from builder.packages.download import downloads_folder
from builder.store import Store, default_root


@dataclass(frozen=True, slots=True)
class LockedVersion:
    """One line that differs between the old lock and the new: an empty version is none."""

    target: str
    package: str
    old: str
    new: str


def refuse_moves(moves: Sequence[LockedVersion]) -> bool:
    """Agree to no change of a stage that was not named."""
    return not moves


def lock(
    workspace: Workspace,
    names: Sequence[str] = (),
    *,
    upgrade: bool = False,
    expired: bool = False,
    agree: Callable[[Sequence[LockedVersion]], bool] = refuse_moves,
) -> list[LockedVersion]:
    """Resolve the .in files of the targets `names` (all without names) and write their locks.

    The workspace has one version of a package. Without `upgrade` every locked version stays that
    need not move, and the locks of targets that are not named stay as they are. Where these cannot,
    `agree` is asked with what would change in them; nothing of wheels is written where it returns
    False. `expired` is for `debian_index.lock`. Returns what changed. Raises BuilderError where pip
    finds no versions, and where `agree` refuses.
    """
    for name in names:
        workspace.target(name)
    chosen = [t for t in workspace.targets.values() if not names or t.name in names]
    changes: list[LockedVersion] = []
    for target in chosen:
        if (target.folder / "debian.in").exists():
            old = {p.name: p.version for p in _old_debian(target.folder)}
            new = {p.name: p.version for p in debian_index.lock(target.folder, expired=expired)}
            changes += _compare(target.name, old, new)
    wanted = [t for t in workspace.targets.values() if (t.folder / "requirements.in").exists()]
    named = [target for target in chosen if target in wanted]
    if not named:
        return changes
    for target in wanted:
        _sdists(workspace, target, anew=target in named)
    found = _wheels(wanted, named, upgrade=upgrade)
    before = {t.name: {w.name: w.version for w in wheels.pinned(t.folder)} for t in wanted}
    moved = {
        name: _compare(name, before[name], {wheel.name: wheel.version for wheel in locked})
        for name, locked in found.items()
    }
    others = [c for t in wanted if t not in named for c in moved.get(t.name, ())]
    if not upgrade and not agree(others):
        raise BuilderError(
            f"locking {', '.join(t.name for t in named)} needs other versions in stages that were "
            f"not named: {_shown(others)}; no {wheels.LOCK} was written. To change them too, "
            f"name them (invoke lock --targets {','.join(_names(named, others))}) or give --upgrade"
        )
    for target in wanted:
        if target.name in found:
            shown = f"{target.name}/requirements.in"
            wheels.check_apart(found[target.name], downloads_folder(), shown)
    for target in wanted:
        if target.name in found:
            _write(target.folder, found[target.name])
            changes += moved[target.name]
    return changes


def python_of(workspace: Workspace, target: Target, store: Store) -> sdists.ImageOf:
    """Return a way to the image that sdists.in names, or the recipe begins with.

    It raises BuilderError where that is no target, or has not the base of this recipe.
    """

    def image() -> tuple[Store, oci.Image]:
        from builder.build.make import build  # costs time

        below = target.recipe.stages[0].base
        if below not in workspace.targets:
            raise BuilderError(
                f"{target.path}: {sdist.WANTED} needs the Python of a target, and the recipe "
                f"begins with FROM {below}; begin it with `FROM base`"
            )
        named = sdist.asked(target.folder).image or below
        chosen = workspace.target(named)
        if named != below and chosen.recipe.stages[-1].base != below:
            raise BuilderError(
                f"{target.folder / sdist.WANTED}: `image {named}` does not stand on {below}, so "
                f"its Python may be another; begin {chosen.path} with `FROM {below}`"
            )
        return store, build(workspace, store, [named])[named].image

    return image


def _sdists(workspace: Workspace, target: Target, *, anew: bool) -> None:
    """Bring the wheels of sdists.in to the downloads; pin them `anew` for a target that is named.

    They are built in the image that the recipe begins with. Raises BuilderError.
    """
    folder = target.folder
    if not (folder / sdist.WANTED).exists():
        return
    image = python_of(workspace, target, Store(default_root()))
    if anew:
        sdist.write_lock(folder, sdists.pin(folder, image, lambda path: _resolve([path], {})))
    else:
        sdists.make(sdist.read_lock(folder), image)


def _names(named: Sequence[Target], others: Sequence[LockedVersion]) -> list[str]:
    return list(dict.fromkeys([*(t.name for t in named), *(c.target for c in others)]))


def _shown(changes: Sequence[LockedVersion]) -> str:
    return "; ".join(
        f"{c.target}: {c.package} {c.old or 'none'} -> {c.new or 'none'}" for c in changes
    )


def _wheels(
    wanted: Sequence[Target], named: Sequence[Target], *, upgrade: bool
) -> dict[str, list[wheels.Wheel]]:
    """Return the wheels of the targets `named`, and of others where theirs cannot stay."""
    own = [target.folder / "requirements.in" for target in named]
    others = [target for target in wanted if target not in named]
    if upgrade:
        return _each(wanted, _resolve([t.folder / "requirements.in" for t in wanted], {}))
    theirs = _pins(others)
    pins = theirs | _fitting(own, _pins(named), theirs)
    kept = _keepable(own, pins)
    if theirs.keys() <= kept.keys():
        return _each(named, _resolve(own, kept))
    # A lock that is not there yet is left to its own command.
    everyone = [t for t in wanted if t in named or wheels.pinned(t.folder)]
    inputs = [target.folder / "requirements.in" for target in everyone]
    return _each(everyone, _resolve(inputs, _keepable(inputs, _fitting(inputs, pins, {}))))


def _each(
    targets: Sequence[Target], together: Sequence[wheels.Wheel]
) -> dict[str, list[wheels.Wheel]]:
    """Resolve each of `targets` by itself to the versions they have together."""
    versions = {wheel.name: wheel.version for wheel in together}
    return {t.name: _resolve([t.folder / "requirements.in"], versions) for t in targets}


def _pins(targets: Sequence[Target]) -> dict[str, str]:
    return {w.name: w.version for target in targets for w in wheels.pinned(target.folder)}


def _fitting(
    inputs: Sequence[Path], pins: Mapping[str, str], without: Mapping[str, str]
) -> dict[str, str]:
    """Return those of `pins` that no line of `inputs` excludes, and that are not in `without`."""
    asked = [requirement for path in inputs for requirement in _requirements(path)]
    excluded = {
        r.name
        for r in asked
        if r.name in pins and not r.specifier.contains(pins[r.name], prereleases=True)
    }
    return {n: v for n, v in pins.items() if n not in excluded and n not in without}


def _keepable(inputs: Sequence[Path], pins: Mapping[str, str]) -> dict[str, str]:
    """Return as many of `pins` as `inputs` can have at once, earlier ones first.

    A version that has gone, or that something new excludes, stands in the way; halving finds each
    in about 2 * log2(len(pins)) calls of pip. Raises BuilderError where none would help.
    """
    if _resolved(inputs, dict(pins)) is not None:
        return dict(pins)
    _resolve(inputs, {})  # where this fails, the pins are not what stands in the way
    kept: dict[str, str] = {}
    waiting = [list(pins.items())] if pins else []
    while waiting:
        group = waiting.pop()
        if _resolved(inputs, {**kept, **dict(group)}) is not None:
            kept |= dict(group)
        elif len(group) > 1:
            middle = len(group) // 2
            waiting += [group[middle:], group[:middle]]
    return kept


def _resolved(inputs: Sequence[Path], pins: dict[str, str]) -> list[wheels.Wheel] | None:
    """Resolve `inputs` with exactly `pins`, or return None where that cannot be."""
    try:
        return _resolve(inputs, pins)
    except BuilderError:
        return None


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
             *pip.platform(), *_made(inputs), "-c", str(path), *(f"-r{i}" for i in inputs)],
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


def _made(inputs: Sequence[Path]) -> list[str]:
    """Return pip's options for the wheels that were made here of sdists."""
    made = [item for path in inputs for item in sdist.read_lock(path.parent)]
    return [f"--find-links={downloads_folder() / i.wheel_sha256 / i.wheel}" for i in made]


def _size(name: str, version: str, sha256: str) -> int:
    """Return a wheel's size in bytes, which pip does not report: fetch it, it is needed anyway."""
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


def _compare(target: str, old: dict[str, str], new: dict[str, str]) -> list[LockedVersion]:
    return [
        LockedVersion(target, name, old.get(name, ""), new.get(name, ""))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
