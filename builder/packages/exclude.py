"""What exclude.in says: which files of its wheels an image does not get.

Those of a variant V are in exclude.V.in, as its wheels are in requirements.V.in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from builder.errors import BuilderError
from builder.packages import lock_file
from builder.platform import KNOWN


def wanted(asked: lock_file.Requirements) -> str:
    """Return the name of the file that says it for a target."""
    return asked.wanted.replace("requirements", "exclude", 1)


def read(asked: lock_file.Requirements, names: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Return the patterns of exclude.in by the package's name as the lock has it, one of `names`.

    A line is `PACKAGE PATTERN`; what follows a # is a comment. There is none where the file is not
    there. A line for a package that only another platform's lock has means nothing here. Raises
    BuilderError for another line, for one that is there twice, and for a package that no lock has.
    """
    path = asked.folder / wanted(asked)
    if not path.exists():
        return {}
    locked = {lock_file.normalized(name): name for name in names}
    known = locked.keys() | {lock_file.normalized(name) for name in _locked_for_any(asked)}
    found: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lock_file.read(path).splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2:
            raise BuilderError(
                f"{path}:{number}: not `PACKAGE PATTERN`: {line.strip()!r}; write for example "
                "`numpy numpy/*/tests/*`"
            )
        package, pattern = lock_file.normalized(words[0]), words[1]
        if package not in known:
            raise BuilderError(
                f"{path}:{number}: {words[0]} is not among the wheels that are locked; take the "
                "line out"
            )
        if pattern in found.get(package, ()):
            raise BuilderError(f"{path}:{number}: this is there twice; take one of the lines out")
        found[package] = (*found.get(package, ()), pattern)
    return {name: found[package] for package, name in locked.items() if package in found}


def _locked_for_any(asked: lock_file.Requirements) -> Iterator[str]:
    """Yield the packages in the target's locks for all platforms, those that it has."""
    for platform in KNOWN.values():
        lock = asked.folder / asked.lock(platform)
        if lock.exists():
            lines = lock_file.read(lock).splitlines()
            yield from (line.partition("==")[0] for line in lines if not line.startswith("#"))


def taken(files: Collection[str], patterns: Iterable[str], wheel: str) -> set[str]:
    """Return which of a wheel's `files`, paths as RECORD has them, `patterns` leave out.

    Raises BuilderError, naming the `wheel`, for a pattern that no file has, since that may be an
    older version's, and for one that takes the package's metadata: its licence, and the list of
    its files, are read there.

    >>> sorted(taken(["p/a.py", "p/tests/b.py"], ["p/tests/*"], "p-1.0-py3-none-any.whl"))
    ['p/tests/b.py']
    """
    found: set[str] = set()
    for pattern in patterns:
        some = {file for file in files if fnmatchcase(file, pattern)}
        if not some:
            raise BuilderError(
                f"{wheel} has no file of the path {pattern}, which is to be left out; take "
                "that line out of exclude.in, or write the path that this version has"
            )
        if about := sorted(file for file in some if file.partition("/")[0].endswith(".dist-info")):
            raise BuilderError(
                f"exclude.in leaves out {about[0]} of {wheel}, by the line {pattern}; the metadata "
                "of a package stays: write a narrower line"
            )
        found |= some
    return found
