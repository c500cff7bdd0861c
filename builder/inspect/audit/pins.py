"""What the locks pin, as advisories name it, and how old each file is."""

from __future__ import annotations

import datetime
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.packages import debian, exclude, lock_file, wheels
from builder.platform import KNOWN, NATIVE, Platform

_FIRST_YEAR = 2008  # what is older is a constant: neither wheels nor these packages are
# What each lock at the root is for.
_HOST_LOCKS = {"requirements.lock": "the tasks", "requirements-dev.lock": "development"}
_HOST_LINE = re.compile(r"([A-Za-z0-9._-]+)==(\S+)(?: ; .*)?(?: \\)?")
_BINARY_ONLY = re.compile(r"\+b[0-9]+$")


@dataclass(frozen=True, slots=True, order=True)
class Pin:
    """A locked package as an ecosystem of OSV names it, and the targets that have it.

    `package` is its name in the lock, and `name` that of its source at Debian. `sha256` is empty
    where a lock allows several files.
    """

    ecosystem: str
    package: str
    name: str
    version: str
    sha256: str
    targets: tuple[str, ...] = ()


def canonical_name(name: str) -> str:
    """Return the one spelling of a name on PyPI (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(workspace: Workspace, variants: Sequence[str] = ()) -> list[Pin]:
    """Return what the locks of all targets and of the tasks themselves pin, each once, sorted.

    So do those of the `variants` that are named. Raises BuilderError for a lock that is missing,
    stale or bad, and for a suite of Debian whose release is not known here.
    """
    found: dict[Pin, list[str]] = {}
    for target in (*workspace.targets.values(), *map(workspace.target, variants)):
        seen: set[tuple[str, str, str]] = set()
        for platform in KNOWN.values():
            for pin in _locked(target.requirements, platform):
                # What every platform has in one version is one pin.
                if (what := (pin.ecosystem, pin.name, pin.version)) not in seen:
                    seen.add(what)
                    found.setdefault(pin, []).append(target.name)
    for lock, use in _HOST_LOCKS.items():
        for pin in _host(workspace.root / lock):
            found.setdefault(pin, []).append(use)
    return sorted(replace(pin, targets=tuple(targets)) for pin, targets in found.items())


@dataclass(frozen=True, slots=True, order=True)
class Excluded:
    """A pattern of files that a target does not get of a package: an advisory may be about them."""

    target: str
    package: str
    pattern: str


def excluded(workspace: Workspace, variants: Sequence[str] = ()) -> list[Excluded]:
    """Return what each exclude.in leaves out, sorted; raises BuilderError where one is bad."""
    found = []
    for target in (*workspace.targets.values(), *map(workspace.target, variants)):
        names = [wheel.name for wheel in wheels.pinned(target.requirements)]
        for package, patterns in exclude.read(target.requirements, names).items():
            found += [
                Excluded(target.name, canonical_name(package), pattern) for pattern in patterns
            ]
    return sorted(found)


def _locked(asked: lock_file.Requirements, platform: Platform) -> Iterator[Pin]:
    """Yield what the locks of a target pin; only those of NATIVE must be there."""
    folder, must = asked.folder, platform == NATIVE
    if (folder / (asked.wanted if must else asked.lock(platform))).exists():
        for wheel in wheels.read_lock(asked, platform):
            name = canonical_name(wheel.name)
            yield Pin("PyPI", name, name, wheel.version, wheel.sha256)
    if (folder / ("debian.in" if must else platform.debian_lock)).exists():
        suite = debian.suite(folder)
        if suite not in debian.RELEASES:
            raise BuilderError(
                f"{folder}/debian.in: the suite {suite} has no release number in advisories; "
                f"there are {', '.join(debian.RELEASES)}"
            )
        for package in debian.read_lock(folder, platform):
            release = int(debian.RELEASES[suite])
            yield deb(package.name, package.source, package.version, release, package.sha256)


def deb(name: str, source: str, version: str, release: int, sha256: str) -> Pin:
    """Return the pin of a Debian package of the release of this number; raises ValueError."""
    from debian.debian_support import Version

    # A rebuild of the same source counts on with +b1.
    version = str(Version(_BINARY_ONLY.sub("", version)))
    return Pin(f"Debian:{release}", name, source, version, sha256)


def _host(path: Path) -> Iterator[Pin]:
    if not path.exists():
        return
    for number, line in enumerate(lock_file.read(path).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(("#", "--hash=sha256:")):
            continue
        match = _HOST_LINE.fullmatch(line.strip())
        if match is None:
            raise BuilderError(f"{path}:{number}: not `name==version` and its hashes: {line!r}")
        name = canonical_name(match[1])
        yield Pin("PyPI", name, name, match[2], "")


def made(pin: Pin, downloads: Path) -> datetime.date | None:
    """Return the newest date in a pinned file, None where it is not here or has none.

    A lock has no dates. A wheel's files have the time they were packed with, unless what built it
    sets a constant; a .deb's parts have that of the package's last change.
    """
    folder = downloads / pin.sha256
    newest = None
    for path in sorted(folder.iterdir()) if pin.sha256 and folder.is_dir() else ():
        newest = _newest_in_wheel(path) if path.suffix == ".whl" else _newest_in_deb(path)
    return (
        newest if newest and newest.year >= _FIRST_YEAR else None
    )  # the year of the oldest wheel's format


def _newest_in_wheel(path: Path) -> datetime.date | None:
    try:
        with zipfile.ZipFile(path) as archive:
            newest = max((info.date_time for info in archive.infolist()), default=None)
        # Midnight is a constant of what built it: 2016-01-01 poetry's, 2020-02-02 hatchling's.
        return datetime.date(*newest[:3]) if newest and newest[3:] != (0, 0, 0) else None
    except (zipfile.BadZipFile, ValueError, OSError):
        return None  # whoever builds with it says more


def _newest_in_deb(path: Path) -> datetime.date | None:
    from debian.arfile import ArError, ArFile

    try:
        newest = max((member.mtime for member in ArFile(str(path)).getmembers()), default=0)
        return datetime.datetime.fromtimestamp(newest, datetime.UTC).date()
    except (ArError, ValueError, OverflowError, OSError):
        return None
