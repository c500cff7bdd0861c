"""The context `wheels`: what its lock pins, and the layers that the wheels make."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import BuilderError
from builder.oci.entry import Entry
from builder.oci.layer_plan import LayerPlan
from builder.packages import bytecode, exclude, lock_file, pip
from builder.packages.lock_file import Requirements
from builder.packages.python import DEFAULT, Python
from builder.platform import NATIVE, Platform

if TYPE_CHECKING:
    from builder.packages.wheel_layout import LayerDestination

LOCK = NATIVE.wheels_lock
# A wheel of this many bytes or more is a layer of its own; the others of a recipe share one.
OWN_LAYER = 1 << 20
FORMAT = "wheels-5"
_TAG = re.compile(r"(?m)^# .* for (cp[0-9]+) on ")
LINE = re.compile(r"([A-Za-z0-9._-]+)==(\S+) --hash=sha256:([0-9a-f]{64})  # ([0-9]{1,15}) bytes")


@dataclass(frozen=True, slots=True)
class Wheel:
    """One pinned wheel; `size` in bytes."""

    name: str
    version: str
    sha256: str
    size: int


def read_lock(asked: Requirements, platform: Platform = NATIVE) -> list[Wheel]:
    """Read the lock for `platform` of a target, a pip requirements file with one sha256 a line.

    Raises BuilderError where it is missing, stale or bad.
    """
    folder, lock = asked.folder, asked.lock(platform)
    path = folder / lock
    text = lock_file.read(path)
    lock_file.check_fresh(folder, asked.wanted, lock, text)
    wheels = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if not match:
            raise BuilderError(
                f"{path}:{number}: not `name==version --hash=sha256:<hex>  # N bytes`: {line!r}; "
                f"run `{lock_file.lock_command(folder, lock)}`"
            )
        wheels.append(Wheel(match[1], match[2], match[3], int(match[4])))
    return wheels


def pinned(asked: Requirements, platform: Platform = NATIVE) -> list[Wheel]:
    """Return the wheels of a lock even where it is stale; none where it cannot be read."""
    return _pinned(asked, platform)[1]


def locked_for(asked: Requirements, platform: Platform = NATIVE) -> Python:
    """Return the Python that a lock is for; the default where it does not say."""
    digits = _pinned(asked, platform)[0].removeprefix("cp")
    return Python(f"{digits[0]}.{digits[1:]}", platform)


def read_for(asked: Requirements, python: Python) -> list[Wheel]:
    """Read the lock of a target that must be for `python`; raises BuilderError as `read_lock`."""
    wheels = read_lock(asked, python.platform)
    if (locked := locked_for(asked, python.platform)).tag != python.tag:
        folder, lock = asked.folder, asked.lock(python.platform)
        raise BuilderError(
            f"{folder / lock} is for Python {locked.version}, and the recipe's base has "
            f"{python.version}; run `{lock_file.lock_command(folder, lock)}`"
        )
    return wheels


def fetch(
    asked: Requirements, wheels: Sequence[Wheel], cache: Path, platform: Platform = NATIVE
) -> list[Path]:
    """Return where some wheels of a target's lock are, downloaded where they are missing."""
    lock = f"{asked.folder.name}/{asked.lock(platform)}"
    return pip.fetch(wheels, cache, lock, locked_for(asked, platform))


def _pinned(asked: Requirements, platform: Platform) -> tuple[str, list[Wheel]]:
    path = asked.folder / asked.lock(platform)
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    tag = _TAG.search(text)
    matches = [LINE.fullmatch(line) for line in text.splitlines()]
    wheels = [Wheel(m[1], m[2], m[3], int(m[4])) for m in matches if m]
    return tag[1] if tag else DEFAULT.tag, wheels


def check_one_version(stages: Iterable[Requirements], platform: Platform = NATIVE) -> None:
    """Raise BuilderError where the locks of `stages` pin two wheels of one package.

    Of another `platform` than the first the files differ, and the versions do not. Stages with
    another Python have versions of their own.
    """
    seen: dict[tuple[str, Platform, str], tuple[Wheel, Requirements]] = {}
    versions: dict[tuple[str, str], tuple[str, Platform]] = {}
    for asked in stages:
        for each in dict.fromkeys((NATIVE, platform)):
            tag, wheels = _pinned(asked, each)
            for wheel in wheels:
                other, where = seen.setdefault((tag, each, wheel.name), (wheel, asked))
                if other.sha256 != wheel.sha256:
                    both = [f"{w.version} (sha256:{w.sha256[:12]})" for w in (other, wheel)]
                    raise BuilderError(
                        f"{wheel.name} is locked as {both[0]} for {where.target} and as "
                        f"{both[1]} for {asked.target}; a workspace has one version of a "
                        f"package: run `{_again(asked, each)}`"
                    )
                version, first = versions.setdefault((tag, wheel.name), (wheel.version, each))
                if version != wheel.version:
                    raise BuilderError(
                        f"{wheel.name} is locked as {version} for {first.name} and as "
                        f"{wheel.version} for {each.name}; a workspace has one version of a "
                        f"package: run `{_again(asked, platform)}`"
                    )


def _again(asked: Requirements, platform: Platform) -> str:
    if asked.variant:  # it follows the others
        return lock_file.lock_command(asked.folder, asked.lock(platform))
    return "invoke lock" + (f" --platform {platform.name}" if platform != NATIVE else "")


def plan(
    asked: Requirements,
    cache: Path,
    destination: str,
    interpreter: bytecode.Interpreter,
    make: Callable[[], None] = lambda: None,
) -> list[LayerPlan]:
    """Plan the layers of the wheels in a target's lock, unpacked under `destination`.

    `make` brings to `cache` the wheels that no index has. What exclude.in leaves out is not there.
    """
    python = interpreter.python
    wheels = read_for(asked, python)
    prefix = destination.strip("/")
    lock = f"{asked.folder.name}/{asked.lock(python.platform)}"
    apart = _Apart(wheels, cache, prefix, lock, python)
    excluded = exclude.read(asked, [wheel.name for wheel in wheels])
    small = [wheel for wheel in wheels if wheel.size < OWN_LAYER]
    groups = [(f"{w.name} {w.version}", [w]) for w in wheels if w.size >= OWN_LAYER]
    if small:
        groups.insert(0, (f"{len(small)} small wheels", small))

    def layer(name: str, group: list[Wheel]) -> LayerPlan:
        less = {wheel.name: excluded[wheel.name] for wheel in group if wheel.name in excluded}

        def entries() -> Iterator[Entry]:
            from builder.packages import wheel_layout  # installer costs time

            make()
            paths = pip.fetch(group, cache, lock, python)
            laid = apart.checked(paths)
            for number, wheel in enumerate(group):
                if wheel.name in less:
                    laid[number] = laid[number].less(less[wheel.name])
            yield from wheel_layout.unpack(laid, interpreter)

        inputs: dict[str, Any] = {
            "wheels": [[wheel.name, wheel.version, wheel.sha256] for wheel in group],
            "destination": destination,
            "bytecode": interpreter.key,
            "format": FORMAT,
        }
        if less:
            inputs["exclude"] = {wheel: list(patterns) for wheel, patterns in less.items()}
            name += f" less {exclude.wanted(asked)}"
        return LayerPlan(name=name, inputs=inputs, entries=entries)

    return [layer(name, group) for name, group in groups]


def check_apart(wheels: Sequence[Wheel], cache: Path, lock: str, python: Python = DEFAULT) -> None:
    """Raise BuilderError where two of `wheels` write one file with different content."""
    from builder.packages import wheel_layout  # installer costs time

    paths = pip.fetch(wheels, cache, lock, python)
    layouts = {path.name: wheel_layout.installed(path, "", python).digests for path in paths}
    wheel_layout.check_apart(layouts, lock)


class _Apart:
    """The check that no two wheels of a lock write one file.

    `invoke lock` makes it over the whole lock. A build makes it over the wheels that are at hand,
    which are all but those whose layers came from elsewhere.
    """

    def __init__(
        self, wheels: Sequence[Wheel], cache: Path, prefix: str, lock: str, python: Python
    ) -> None:
        self._wheels, self._cache, self._prefix, self._lock = wheels, cache, prefix, lock
        self._python = python
        self._turn = threading.Lock()
        self._digests: dict[str, Mapping[str, str]] = {}
        self._installed: dict[str, LayerDestination] = {}

    def checked(self, paths: Iterable[Path]) -> list[LayerDestination]:
        """Check the wheels that are at hand, and return what those of `paths` write.

        Raises BuilderError where a check fails.
        """
        from builder.packages import wheel_layout  # installer costs time

        with self._turn:
            found = [p for w in self._wheels for p in (self._cache / w.sha256).glob("*.whl")]
            new = [path for path in found if path.name not in self._digests]
            for path in new:
                laid = wheel_layout.installed(path, self._prefix, self._python)
                self._digests[path.name], self._installed[path.name] = laid.digests, laid
            if new:
                wheel_layout.check_apart(self._digests, self._lock)
            # Each is asked for once, by its layer; the archive is open until that is written.
            return [
                self._installed.pop(path.name)
                if path.name in self._installed
                else wheel_layout.installed(path, self._prefix, self._python)
                for path in paths
            ]
