"""What COPY takes from where to where.

Meaning: https://docs.docker.com/reference/dockerfile/#copy.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from builder.dockerignore import glob_pattern
from builder.errors import BuilderError
from builder.tree import Entry

# Lists a source tree below a path (the path itself first); nothing where it is not there.
Lister = Callable[[str], Iterable[Entry]]


def normal(path: str) -> str:
    """Return `path` relative to its root, without `.`, `..` above the root resolved as Docker does.

    >>> normal("/a/./b/"), normal("../a"), normal("/")
    ('a/b', 'a', '')
    """
    return posixpath.normpath("/" + path).strip("/")


def copy(
    sources: Sequence[str],
    destination: str,
    lister: Lister,
    *,
    workdir: str,
    is_folder: Callable[[str], bool],
    owner: tuple[int, int] | None = None,
    mode: int | None = None,
) -> list[Entry]:
    """Return the entries that `COPY sources destination` adds to an image.

    `is_folder` tells whether a path of the image is a folder already. A source folder's content is
    merged into the destination; a file goes to `destination`, or into it where that ends with `/`,
    is a folder, or there are several sources. `owner` and `mode` are --chown and --chmod.
    Raises BuilderError where a source is not there, or several go to what is no folder.
    """
    into = normal(posixpath.join("/" + workdir, destination))
    folder = destination.endswith(("/", "/.")) or destination == "." or is_folder(into)
    found = [(source, match) for source in sources for match in _match(source, lister)]
    if len(found) > 1 and not folder:
        raise BuilderError(f"several files go to {destination!r}, which must end with / then")
    copied: dict[str, Entry] = {}
    for source, top in found:
        entries = list(lister(top))
        if not entries and top:
            raise BuilderError(f"{source!r} is not there (or .dockerignore hides it)")
        whole = not top or entries[0].kind == "dir"
        if whole and into:
            copied.setdefault(into, Entry(path=into, kind="dir", mode=0o755))
        for entry in entries:
            if whole:
                inner = entry.path[len(top) :].strip("/")
                path = posixpath.join(into, inner).strip("/")
            else:
                path = posixpath.join(into, posixpath.basename(top)) if folder else into
            if path and (inner if whole else path):
                copied[path] = replace(entry, path=path)
    return [_change(entry, owner, mode) for entry in copied.values()]


def _change(entry: Entry, owner: tuple[int, int] | None, mode: int | None) -> Entry:
    if owner is not None:
        entry = replace(entry, uid=owner[0], gid=owner[1])
    if mode is not None and entry.kind != "symlink":
        entry = replace(entry, mode=mode)
    return entry


def _match(source: str, lister: Lister) -> list[str]:
    """Return the paths a source names: itself, or what its pattern matches, sorted."""
    path = normal(source)
    if not any(char in path for char in "*?["):
        return [path]
    fixed = posixpath.dirname(path.split("*")[0].split("?")[0].split("[")[0])
    pattern = glob_pattern(path)
    found = [entry.path for entry in lister(fixed) if pattern.fullmatch(entry.path)]
    if not found:
        raise BuilderError(f"nothing matches {source!r} (or .dockerignore hides it)")
    return found
