"""What a tree of strangers may hold: a layer's or a Debian package's, entry by entry.

Pure: nothing is read or written here. Whoever reads an archive passes each entry through `Tree.add`
before anything is done with it, so an entry is refused before it is written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from builder.errors import BuilderError
from builder.oci.entry import Entry
from builder.oci.numbers import from_environment

# Linux: limits.h (NAME_MAX, PATH_MAX); the depth is what the standard library removes again.
_NAME_MAX, _PATH_MAX, _DEPTH = 255, 4095, 128
# Below this many bytes a ratio says nothing: a tar of one short file compresses 80-fold.
RATIO_FROM = 64 << 20
_VARIABLES = {
    "total": "PLATELINE_UNPACK_TOTAL",
    "ratio": "PLATELINE_UNPACK_RATIO",
    "entries": "PLATELINE_UNPACK_ENTRIES",
    "free": "PLATELINE_UNPACK_FREE",
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much one archive may unpack to.

    `total` bytes, `ratio` of plain to compressed bytes (looked at above 64 MiB), `entries`, and the
    bytes of the disk that stay `free`.
    """

    total: int = 32 << 30
    ratio: int = 200
    entries: int = 1_000_000
    free: int = 256 << 20

    @staticmethod
    def read(environ: Mapping[str, str] = os.environ) -> Bounds:
        """Return the bounds that the environment sets (docs/environment.md).

        Raises BuilderError for what is not a number.
        """
        return from_environment(Bounds(), _VARIABLES, environ)


def beyond(source: str, what: str, bound: str) -> BuilderError:
    """Return the error for an archive that unpacks to more than its `bound`."""
    return BuilderError(
        f"{source} unpacks to more than {what}, so it was refused; if you trust it, set "
        f"{_VARIABLES[bound]} higher"
    )


class Tree:
    """The entries of one archive so far; `source` names the archive in messages.

    With the size of what is `compressed`, the ratio is held against what the entries say of theirs.
    """

    def __init__(self, source: str, bounds: Bounds, compressed: int | None = None) -> None:
        self.bytes = 0
        self.count = 0
        self._source = source
        self._bounds = bounds
        self._expanded = bounds.total
        if compressed is not None:
            self._expanded = max(RATIO_FROM, bounds.ratio * compressed)
        self._kinds: dict[str, str] = {}
        self._links: dict[str, str] = {}

    def add(self, entry: Entry) -> Entry:
        """Return `entry`, which may follow those before it; a hard link to a link is that link.

        Raises BuilderError for an entry behind a link or a file, for a path that is a folder and
        something else, for a hard link to what is not a file of the archive, for a name that no
        disk takes, and where the archive goes beyond its bounds.
        """
        self._measure(entry)
        self._name(entry.path)
        if entry.kind in ("whiteout", "opaque"):
            return entry
        self._parents(entry.path)
        if entry.kind == "hardlink":
            entry = self._linked(entry)
        known = self._kinds.get(entry.path)
        if known is not None and (known == "dir") != (entry.kind == "dir"):
            raise self._refused(entry.path, f"it was a {_WORDS[known]} before")
        self._kinds[entry.path] = "file" if entry.kind == "hardlink" else entry.kind
        if entry.kind == "symlink":
            self._links[entry.path] = entry.target
        return entry

    def _measure(self, entry: Entry) -> None:
        self.count += 1
        self.bytes += entry.size or 0
        if self.count > self._bounds.entries:
            raise beyond(self._source, f"{self._bounds.entries} entries", "entries")
        if self.bytes > self._bounds.total:
            raise beyond(self._source, f"{self._bounds.total} bytes", "total")
        if self.bytes > self._expanded:
            raise beyond(self._source, f"{self._bounds.ratio} times its size", "ratio")

    def _name(self, path: str) -> None:
        parts = path.split("/")
        if path.isascii() and len(path) <= _NAME_MAX and len(parts) <= _DEPTH:
            return  # nothing in it can be too long
        try:
            longest, whole = max(len(part.encode()) for part in parts), len(path.encode())
        except UnicodeEncodeError:
            raise self._refused(path, "its name is not UTF-8") from None
        if longest > _NAME_MAX or whole > _PATH_MAX or len(parts) > _DEPTH:
            raise self._refused(
                path[:60] + "…",
                f"its name is too long (a name has at most {_NAME_MAX} bytes, a path {_PATH_MAX} "
                f"bytes and {_DEPTH} folders)",
            )

    def _parents(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        while parent and (kind := self._kinds.get(parent)) != "dir":
            if kind is not None:
                raise self._refused(path, f"it is behind {parent}, which is a {_WORDS[kind]}")
            self._kinds[parent] = "dir"
            parent = parent.rpartition("/")[0]

    def _linked(self, entry: Entry) -> Entry:
        kind = self._kinds.get(entry.target)
        if kind == "symlink":
            return replace(entry, kind="symlink", mode=0o777, target=self._links[entry.target])
        if kind != "file" or entry.target == entry.path:
            raise self._refused(
                entry.path, f"a hard link to {entry.target}, which is not an earlier file of it"
            )
        return entry

    def _refused(self, path: str, why: str) -> BuilderError:
        return BuilderError(f"{self._source}: refused the entry {path!r}: {why}")


_WORDS = {"dir": "folder", "file": "file", "symlink": "link"}
