"""The context `wheels`: what its lock pins, and the layers that the wheels make."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.errors import BuilderError
from builder.oci.entry import Entry
from builder.oci.layer_plan import LayerPlan
from builder.packages import bytecode, lock_file, pip

LOCK = "requirements.linux-amd64.lock"
# A wheel of this many bytes or more is a layer of its own; the others of a recipe share one.
OWN_LAYER = 1 << 20
FORMAT = "wheels-4"
LINE = re.compile(r"([A-Za-z0-9._-]+)==(\S+) --hash=sha256:([0-9a-f]{64})  # ([0-9]{1,15}) bytes")


@dataclass(frozen=True, slots=True)
class Wheel:
    """One pinned wheel; `size` in bytes."""

    name: str
    version: str
    sha256: str
    size: int


def read_lock(folder: Path) -> list[Wheel]:
    """Read the lock in `folder`; raises BuilderError where it is missing, stale or bad.

    It is a pip requirements file with exactly one sha256 a line.
    """
    path = folder / LOCK
    text = lock_file.read(path)
    lock_file.check_fresh(folder, "requirements.in", LOCK, text)
    wheels = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if not match:
            raise BuilderError(
                f"{path}:{number}: not `name==version --hash=sha256:<hex>  # N bytes`: {line!r}; "
                f"run `{lock_file.lock_command(folder)}`"
            )
        wheels.append(Wheel(match[1], match[2], match[3], int(match[4])))
    return wheels


def pinned(folder: Path) -> list[Wheel]:
    """Return the wheels of a lock even where it is stale; none where it cannot be read."""
    path = folder / LOCK
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    matches = [LINE.fullmatch(line) for line in text.splitlines()]
    return [Wheel(m[1], m[2], m[3], int(m[4])) for m in matches if m]


def check_one_version(folders: Iterable[Path]) -> None:
    """Raise BuilderError where the locks in `folders` pin two wheels of one package."""
    seen: dict[str, tuple[Wheel, Path]] = {}
    for folder in folders:
        for wheel in pinned(folder):
            other, where = seen.setdefault(wheel.name, (wheel, folder))
            if other.sha256 != wheel.sha256:
                versions = [f"{w.version} (sha256:{w.sha256[:12]})" for w in (other, wheel)]
                raise BuilderError(
                    f"{wheel.name} is locked as {versions[0]} for {where.name} and as "
                    f"{versions[1]} for {folder.name}; a workspace has one version of a package: "
                    f"run `invoke lock`"
                )


def plan(
    folder: Path,
    cache: Path,
    destination: str,
    interpreter: bytecode.Interpreter,
    make: Callable[[], None] = lambda: None,
) -> list[LayerPlan]:
    """Plan the layers of the wheels in `folder`'s lock, unpacked under `destination`.

    `make` brings to `cache` the wheels that no index has.
    """
    wheels = read_lock(folder)
    prefix = destination.strip("/")
    apart = _Apart(wheels, cache, prefix, f"{folder.name}/{LOCK}")
    small = [wheel for wheel in wheels if wheel.size < OWN_LAYER]
    groups = [(f"{w.name} {w.version}", [w]) for w in wheels if w.size >= OWN_LAYER]
    if small:
        groups.insert(0, (f"{len(small)} small wheels", small))

    def layer(name: str, group: list[Wheel]) -> LayerPlan:
        def entries() -> Iterator[Entry]:
            from builder.packages import wheel_layout  # installer costs time

            make()
            paths = pip.fetch(group, cache, f"{folder.name}/{LOCK}")
            apart.check()
            for path in paths:
                yield from wheel_layout.unpack(path, prefix, interpreter)

        inputs = {
            "wheels": [[wheel.name, wheel.version, wheel.sha256] for wheel in group],
            "destination": destination,
            "bytecode": interpreter.key,
            "format": FORMAT,
        }
        return LayerPlan(name=name, inputs=inputs, entries=entries)

    return [layer(name, group) for name, group in groups]


def check_apart(wheels: Sequence[Wheel], cache: Path, lock: str) -> None:
    """Raise BuilderError where two of `wheels` write one file with different content."""
    from builder.packages import wheel_layout  # installer costs time

    paths = pip.fetch(wheels, cache, lock)
    wheel_layout.check_apart({path.name: wheel_layout.layout(path, "") for path in paths}, lock)


class _Apart:
    """The check that no two wheels of a lock write one file.

    `invoke lock` makes it over the whole lock. A build makes it over the wheels that are at hand,
    which are all but those whose layers came from elsewhere.
    """

    def __init__(self, wheels: Sequence[Wheel], cache: Path, prefix: str, lock: str) -> None:
        self._wheels, self._cache, self._prefix, self._lock = wheels, cache, prefix, lock
        self._turn = threading.Lock()
        self._layouts: dict[str, Mapping[str, str]] = {}

    def check(self) -> None:
        """Check the wheels that are at hand; raises BuilderError."""
        from builder.packages import wheel_layout  # installer costs time

        with self._turn:
            found = [p for w in self._wheels for p in (self._cache / w.sha256).glob("*.whl")]
            new = [path for path in found if path.name not in self._layouts]
            self._layouts |= {path.name: wheel_layout.layout(path, self._prefix) for path in new}
            if new:
                wheel_layout.check_apart(self._layouts, self._lock)
