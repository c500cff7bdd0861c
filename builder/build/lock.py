"""`invoke lock`: from what a stage asks for to exactly what it gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder import oci
from builder.build import sdists
from builder.build.resolve import Chosen, bring, choose, fitting, keepable, lacking, resolve
from builder.build.workspace import Target, Workspace
from builder.errors import BuilderError
from builder.packages import debian, debian_index, lock_file, sdist, wheels
from builder.packages.download import downloads_folder
from builder.packages.lock_file import Requirements
from builder.packages.python import Python
from builder.platform import KNOWN, NATIVE, Platform
from builder.store import Store, default_root


@dataclass(frozen=True, slots=True)
class LockedVersion:
    """One line that differs between the old lock and the new: an empty version is none."""

    target: str
    package: str
    old: str
    new: str
    platform: str = NATIVE.name


def refuse_moves(moves: Sequence[LockedVersion]) -> bool:
    """Agree to no change of a stage that was not named."""
    return not moves


def lock(
    workspace: Workspace,
    names: Sequence[str] = (),
    *,
    upgrade: bool = False,
    expired: bool = False,
    platforms: Sequence[Platform] = (),
    agree: Callable[[Sequence[LockedVersion]], bool] = refuse_moves,
    say: Callable[[str], object] = lambda _: None,
) -> list[LockedVersion]:
    """Resolve the .in files of the targets `names` (all without names) and write their locks.

    A variant of a target is locked where it is named: its wheels, since Debian's are the target's.

    Without `platforms` those are locked that a target has locks for, NATIVE in any case. The
    workspace has one version of a package for a Python. Without `upgrade` every locked version
    stays that need not move, and the locks of targets that are not named stay as they are. Where
    these cannot, `agree` is asked with what would change in them; nothing of wheels is written
    where it returns False. Other platforms follow: they get the versions that NATIVE has. `expired`
    is for `debian_index.lock`; `say` is told of large downloads. Returns what changed. Raises
    BuilderError where pip finds no versions, and where `agree` refuses.
    """
    for name in names:
        workspace.target(name)
    stages = [t for n, t in workspace.every.items() if n in names or n in workspace.targets]
    chosen = [target for target in stages if not names or target.name in names]
    changes: list[LockedVersion] = []
    for target in chosen:
        if not target.variant and (target.folder / "debian.in").exists():
            folder = target.folder
            for platform in _platforms(folder, platforms, lambda p: p.debian_lock):
                old = {p.name: p.version for p in _old_debian(target.folder, platform)}
                locked = debian_index.lock(target.folder, platform, expired=expired)
                new = {p.name: p.version for p in locked}
                changes += _compare(target.name, old, new, platform)
    wanted = [target for target in stages if target.requirements.path.exists()]
    named = [target for target in chosen if target in wanted]
    if not named:
        return changes
    if not platforms or NATIVE in platforms:
        changes += _native(workspace, wanted, named, upgrade=upgrade, agree=agree, say=say)
    failures = []
    for target in named:
        for platform in _platforms(target.folder, platforms, target.requirements.lock):
            if platform != NATIVE:
                try:
                    changes += _follow(workspace, target, platform, say)
                except BuilderError as error:
                    failures.append(str(error))
    if failures:
        raise BuilderError("\n".join(failures))
    return changes


def _platforms(
    folder: Path, asked: Sequence[Platform], lock: Callable[[Platform], str]
) -> Sequence[Platform]:
    """Return for which platforms a folder is locked; `lock` names the file of one."""
    return asked or [p for p in KNOWN.values() if p == NATIVE or (folder / lock(p)).exists()]


def _native(
    workspace: Workspace,
    wanted: Sequence[Target],
    named: Sequence[Target],
    *,
    upgrade: bool,
    agree: Callable[[Sequence[LockedVersion]], bool],
    say: Callable[[str], object],
) -> list[LockedVersion]:
    """Lock the wheels of the targets `named` for NATIVE, those of one Python together."""
    pythons = {t.name: _python(workspace, t, must=t in named) for t in wanted}
    found: dict[str, list[Chosen]] = {}
    for tag in dict.fromkeys(pythons[t.name].tag for t in named):
        alike = [t for t in wanted if pythons[t.name].tag == tag]
        python = min((pythons[t.name] for t in alike), key=lambda one: one.glibc)
        own = [t for t in named if t in alike]
        for target in alike:
            _sdists(workspace, target, python, anew=target in named)
        found |= _wheels(alike, own, python, upgrade=upgrade)
    before = {t.name: {w.name: w.version for w in wheels.pinned(t.requirements)} for t in wanted}
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
    written = [target for target in wanted if target.name in found]
    brought: dict[str, list[wheels.Wheel]] = {}
    for target in written:
        asked = target.requirements
        shown = f"{target.folder.name}/{asked.wanted}"
        brought[target.name] = bring(found[target.name], pythons[target.name], say)
        wheels.check_apart(brought[target.name], downloads_folder(), shown, pythons[target.name])
    for target in written:
        _write(target.requirements, brought[target.name], pythons[target.name])
    return [change for target in written for change in moved[target.name]]


def _python(workspace: Workspace, target: Target, *, must: bool) -> Python:
    """Return the Python of a target; of one that need not be known, what its lock says."""
    from builder.build.make import python_of as asked  # costs time

    try:
        return asked(workspace, Store(default_root()), target.name, NATIVE)
    except BuilderError:
        if must:
            raise
        return wheels.locked_for(target.requirements)


def _follow(
    workspace: Workspace, target: Target, platform: Platform, say: Callable[[str], object]
) -> list[LockedVersion]:
    """Lock the wheels of a target for another platform, in the versions that NATIVE has.

    Raises BuilderError that names every package without a wheel there.
    """
    from builder.build.make import python_of as asked  # costs time

    store, own = Store(default_root()), target.requirements
    native = wheels.read_for(own, asked(workspace, store, target.name, NATIVE))
    python = asked(workspace, store, target.name, platform)
    pins = {wheel.name: wheel.version for wheel in native}
    wanted = own.path
    try:
        found = bring(choose([wanted], pins, python), python, say)
    except BuilderError as error:
        if not (names := lacking(pins, python, [wanted])):
            raise
        raise BuilderError(
            f"{target.name} was not locked for {platform.name}: {', '.join(names)} "
            f"{'has' if len(names) == 1 else 'have'} no wheel for {python}. Ask for a version that "
            f"has one for every platform, or limit it in {own.wanted}, for example "
            f'`{names[0].split()[0]}; platform_machine == "{NATIVE.machine}"`'
        ) from error
    shown = f"{target.folder.name}/{own.wanted} for {platform.name}"
    wheels.check_apart(found, downloads_folder(), shown, python)
    before = {w.name: w.version for w in wheels.pinned(own, platform)}
    _write(own, found, python)
    return _compare(target.name, before, {w.name: w.version for w in found}, platform)


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


def _sdists(workspace: Workspace, target: Target, python: Python, *, anew: bool) -> None:
    """Bring the wheels of sdists.in to the downloads; pin them `anew` for a target that is named.

    They are built in the image that the recipe begins with. Raises BuilderError.
    """
    folder = target.folder
    if not (folder / sdist.WANTED).exists():
        return
    image = python_of(workspace, target, Store(default_root()))
    if anew:
        pinned = sdists.pin(folder, image, lambda path: resolve([path], {}, python), python)
        sdist.write_lock(folder, pinned)
    else:
        sdists.make(sdist.read_lock(folder), image, python)


def _names(named: Sequence[Target], others: Sequence[LockedVersion]) -> list[str]:
    return list(dict.fromkeys([*(t.name for t in named), *(c.target for c in others)]))


def _shown(changes: Sequence[LockedVersion]) -> str:
    return "; ".join(
        f"{c.target}: {c.package} {c.old or 'none'} -> {c.new or 'none'}" for c in changes
    )


def _wheels(
    wanted: Sequence[Target], named: Sequence[Target], python: Python, *, upgrade: bool
) -> dict[str, list[Chosen]]:
    """Return the wheels of the targets `named`, and of others where theirs cannot stay."""
    own = [target.requirements.path for target in named]
    others = [target for target in wanted if target not in named]
    if upgrade:
        inputs = [target.requirements.path for target in wanted]
        return _each(wanted, choose(inputs, {}, python), python)
    theirs = _pins(others)
    pins = theirs | fitting(own, _pins(named), theirs)
    kept = keepable(own, pins, python)
    if theirs.keys() <= kept.keys():
        return _each(named, choose(own, kept, python), python)
    # A lock that is not there yet is left to its own command.
    everyone = [t for t in wanted if t in named or wheels.pinned(t.requirements)]
    inputs = [target.requirements.path for target in everyone]
    kept = keepable(inputs, fitting(inputs, pins, {}), python)
    return _each(everyone, choose(inputs, kept, python), python)


def _each(
    targets: Sequence[Target], together: Sequence[Chosen], python: Python
) -> dict[str, list[Chosen]]:
    """Resolve each of `targets` by itself to the versions they have together."""
    if len(targets) == 1:  # it is what was resolved together
        return {targets[0].name: list(together)}
    versions = {wheel.name: wheel.version for wheel in together}
    return {t.name: choose([t.requirements.path], versions, python) for t in targets}


def _pins(targets: Sequence[Target]) -> dict[str, str]:
    return {w.name: w.version for target in targets for w in wheels.pinned(target.requirements)}


def _write(asked: Requirements, found: Sequence[wheels.Wheel], python: Python) -> None:
    folder, wanted = asked.folder, asked.wanted
    lines = [
        f"# made from {wanted} {lock_file.in_hash(folder, wanted)}",
        f"# by `invoke lock`: one wheel a line, for {python.where}",
        *(f"{w.name}=={w.version} --hash=sha256:{w.sha256}  # {w.size} bytes" for w in found),
    ]
    (folder / asked.lock(python.platform)).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _old_debian(folder: Path, platform: Platform) -> list[debian.Package]:
    try:
        return debian.read_lock(folder, platform)
    except BuilderError:
        return []


def _compare(
    target: str, old: Mapping[str, str], new: Mapping[str, str], platform: Platform = NATIVE
) -> list[LockedVersion]:
    return [
        LockedVersion(target, name, old.get(name, ""), new.get(name, ""), platform.name)
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
