"""What the lock files of wheels and of Debian packages share: they say what they were made from."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from builder.errors import BuilderError
from builder.platform import KNOWN, NATIVE

# https://pip.pypa.io/en/stable/reference/requirements-file-format/#supported-options
_INCLUDE = re.compile(r"(?:-r|-c|--requirement|--constraint)(?:\s+|=|(?<=-[rc]))(\S.*)")


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


def lock_command(folder: Path, lock: str = "") -> str:
    """Return what to type to make the locks in a target's folder anew, or `lock` with them."""
    others = [p for p in KNOWN.values() if lock in (p.wheels_lock, p.debian_lock) and p != NATIVE]
    return f"invoke lock --targets {folder.name}" + "".join(f" --platform {p.name}" for p in others)


def check_fresh(folder: Path, wanted: str, lock: str, text: str) -> None:
    """Raise BuilderError where `text` of the lock was not made from the .in file as it is now."""
    match = re.search(r"^# made from \S+ ([0-9a-f]{64})$", text, re.MULTILINE)
    if not match or match[1] != in_hash(folder, wanted):
        raise BuilderError(
            f"{folder / lock} does not fit {wanted} any more; run `{lock_command(folder, lock)}`"
        )
