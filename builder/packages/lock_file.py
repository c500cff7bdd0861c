"""What the lock files of wheels and of Debian packages share: they say what they were made from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from builder.errors import BuilderError
from builder.platform import KNOWN, NATIVE, Platform

# https://pip.pypa.io/en/stable/reference/requirements-file-format/#supported-options
_INCLUDE = re.compile(r"(?:-r|-c|--requirement|--constraint)(?:\s+|=|(?<=-[rc]))(\S.*)")

# What a file beside requirements.in is called that asks for the wheels of a variant.
_VARIANT = re.compile(r"requirements\.(.+)\.in")
_NAME = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Requirements:
    """The wheels that a target asks for: in its folder `requirements.in`, and the locks of that.

    Those of a `variant` V are in `requirements.V.in`, with locks of its own.
    """

    folder: Path
    variant: str = ""

    @property
    def target(self) -> str:
        """The name of the target: `train`, or `train-cuda12`."""
        return "-".join(filter(None, (self.folder.name, self.variant)))

    @property
    def wanted(self) -> str:
        """The name of the file that asks."""
        return f"{self._stem}.in"

    @property
    def path(self) -> Path:
        """The file that asks."""
        return self.folder / self.wanted

    def lock(self, platform: Platform = NATIVE) -> str:
        """Return the name of the lock for `platform`."""
        return platform.wheels_lock.replace("requirements", self._stem, 1)

    @property
    def _stem(self) -> str:
        return ".".join(filter(None, ("requirements", self.variant)))


def normalized(name: str) -> str:
    """Return the form of a Python package's name by which names are compared; pure.

    Source: https://packaging.python.org/en/latest/specifications/name-normalization/. The library
    that has it imports what takes as long as a small build.

    >>> normalized("Ruamel.YAML_clib")
    'ruamel-yaml-clib'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def variants(names: Iterable[str]) -> list[str]:
    """Return the variants that a folder with files of these `names` declares, sorted; pure.

    Raises BuilderError for a name that cannot be part of a target's.
    """
    found = sorted(match[1] for name in names if (match := _VARIANT.fullmatch(name)))
    for name in found:
        if not _NAME.fullmatch(name):
            raise BuilderError(
                f"requirements.{name}.in would be the variant {name!r}; a variant's name is of "
                "small letters and digits, so rename the file"
            )
    return found


def in_hash(folder: Path, name: str) -> str:
    """Return the hash a lock carries of the .in file it was made from.

    Comments, empty lines and order do not count. What the file includes by `-r` or `-c` does, each
    file once; a line of debian.in that begins with a dash leaves a package out. Raises BuilderError
    where an included file cannot be read.
    """
    lines: list[str] = []
    seen: set[Path] = set()
    # A line counts with the one that includes its file: a pin of -r is not a pin of -c.
    waiting = [(folder / name, "")]
    while waiting:
        path, included_by = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for line in _lines(path):
            lines.append(included_by + line)
            included = _INCLUDE.fullmatch(line) if path.name != "debian.in" else None
            if included and "://" not in included[1]:
                inside = path.parent / included[1].strip("\"'")
                waiting.append((inside, f"{included_by}{line}: "))
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _lines(path: Path) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in read(path).splitlines())
    return [line for line in lines if line]


def read(path: Path) -> str:
    """Return the text of a lock or an .in file; raises BuilderError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # a name may have a NUL
        missing = isinstance(error, FileNotFoundError)
        why = error.strerror if isinstance(error, OSError) else error
        way = (
            f"run `{lock_command(path.parent, path.name)}`"
            if path.suffix == ".lock"
            else "write it anew"
        )
        raise BuilderError(
            f"{path} {'is not there' if missing else f'cannot be read ({why})'}; {way}"
        ) from None


def named(lock: str) -> tuple[str, Platform]:
    """Return the variant and the platform in the name of a lock or an .in file; pure.

    >>> named("requirements.cuda12.linux-amd64.lock")[0]
    'cuda12'
    """
    words = lock.split(".")[1:-1]
    tags = {platform.tag: platform for platform in KNOWN.values()}
    platforms = [tags[word] for word in words if word in tags]
    return "".join(w for w in words if w not in tags), platforms[0] if platforms else NATIVE


def lock_command(folder: Path, lock: str = "") -> str:
    """Return what to type to make the locks in a target's folder anew, or `lock` with them."""
    variant, platform = named(lock)
    other = f" --platform {platform.name}" if platform != NATIVE else ""
    return f"invoke lock --targets {Requirements(folder, variant).target}{other}"


def check_fresh(folder: Path, wanted: str, lock: str, text: str) -> None:
    """Raise BuilderError where `text` of the lock was not made from the .in file as it is now."""
    match = re.search(r"^# made from \S+ ([0-9a-f]{64})$", text, re.MULTILINE)
    if not match or match[1] != in_hash(folder, wanted):
        raise BuilderError(
            f"{folder / lock} does not fit {wanted} any more; run `{lock_command(folder, lock)}`"
        )
