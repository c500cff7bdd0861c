"""What COPY and ADD take from where to where.

Meaning: https://docs.docker.com/reference/dockerfile/#copy; what that leaves open is done as
BuildKit does it, which tests/builder/dockerfile/test_docker_same.py compares.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from builder.dockerfile import accounts
from builder.dockerfile.dockerignore import composed, glob_pattern
from builder.errors import BuilderError
from builder.oci.entry import Entry
from builder.oci.overlay import Below

_MOST_LINKS = 40


class Tree(Protocol):
    """What is copied from."""

    def link(self, path: str) -> str | None:
        """Return what `path` points at where it is a link, otherwise None."""

    def entries(self, start: str) -> Iterable[Entry]:
        """Return `start` itself and all below it; nothing where it is not there."""


class Listed:
    """A tree of entries that are at hand."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self._by_path = {entry.path: entry for entry in entries}

    def link(self, path: str) -> str | None:
        """Return what `path` points at where it is a link, otherwise None."""
        found = self._by_path.get(path)
        return found.target if found and found.kind == "symlink" else None

    def entries(self, start: str) -> Iterator[Entry]:
        """Return `start` itself and all below it."""
        for entry in self._entries:
            if not start or f"{entry.path}/".startswith(start + "/"):
                yield entry


@dataclass(frozen=True)
class Taken:
    """What one source gave: its own entry first, then what is below it, and the path of it all.

    `name` is what the source is called, which is not the last part of `top` where it is a link.
    """

    name: str
    top: str
    entries: tuple[Entry, ...]

    @property
    def folder(self) -> bool:
        """Whether its content is what is copied."""
        return self.entries[0].kind == "dir"


@dataclass(frozen=True)
class Copy:
    """A COPY or ADD: its words, the folder it starts from, --chown and --chmod.

    `link` is Docker's --link: the layer is made as if the image were empty.
    """

    sources: tuple[str, ...]
    destination: str
    workdir: str
    owner: str = ""
    mode: int | None = None
    link: bool = False

    def inputs(self) -> dict[str, Any]:
        """Return all of it, for a key."""
        return {"sources": list(self.sources), "destination": self.destination, "link": self.link,
                "workdir": self.workdir, "owner": self.owner, "mode": self.mode}  # fmt: skip


def normal(path: str) -> str:
    """Return `path` relative to its root, without `.`, `..` above the root resolved as Docker does.

    >>> normal("/a/./b/"), normal("../a"), normal("/")
    ('a/b', 'a', '')
    """
    return posixpath.normpath("/" + path).strip("/")


def follow(path: str, link: Callable[[str], str | None]) -> str:
    """Return where `path` leads when every link on the way is followed, within the root.

    Raises BuilderError for links in a circle.

    >>> follow("lib/x", {"lib": "usr/lib", "usr/lib/x": "/y"}.get)
    'y'
    """
    done: list[str] = []
    rest = normal(path).split("/")[::-1]
    links = 0
    while rest:
        part = rest.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = done[:-1]
            continue
        target = link("/".join([*done, part]))
        if target is None:
            done.append(part)
            continue
        links += 1
        if links > _MOST_LINKS:
            raise BuilderError(f"{path!r} leads through links in a circle")
        if target.startswith("/"):
            done = []
        rest += target.split("/")[::-1]
    return "/".join(done)


def take(sources: Sequence[str], tree: Tree) -> list[Taken]:
    """Return what `sources` name in `tree`; a source that is a link is followed.

    Raises BuilderError where a source is not there.
    """
    found = []
    for source in sources:
        for path in _match(source, tree):
            top = follow(path, tree.link)
            entries = tuple(tree.entries(top))
            if not top:
                entries = (Entry("", "dir", 0o755), *entries)
            if not entries:
                what = f"{source!r} is not there (or .dockerignore hides it)"
                raise _missing(what, re.compile(re.escape(composed(path))), tree)
            _check_names(entries)
            found.append(Taken(posixpath.basename(path), top, entries))
    return found


def _check_names(entries: Iterable[Entry]) -> None:
    """Refuse names that are not UTF-8: keys and listings are JSON, which cannot hold them."""
    for entry in entries:
        for name in (entry.path, entry.target):
            try:
                name.encode()
            except UnicodeEncodeError:
                raise BuilderError(
                    f"the name {os.fsencode(name)!r} is not UTF-8; rename the file"
                ) from None


def _match(source: str, tree: Tree) -> list[str]:
    """Return the paths a source names: itself, or what its pattern matches, sorted."""
    path = normal(source)
    if not any(char in path for char in "*?["):
        return [path]
    start = posixpath.dirname(path.split("*")[0].split("?")[0].split("[")[0])
    top = follow(start, tree.link)
    pattern = glob_pattern(path[len(start) :].strip("/"), deep=False)
    below = (entry.path[len(top) :].strip("/") for entry in tree.entries(top))
    found = [posixpath.join(top, inner) for inner in below if inner and pattern.fullmatch(inner)]
    if not found:
        what = f"nothing matches {source!r} (or .dockerignore hides it)"
        raise _missing(what, glob_pattern(composed(path), deep=False), tree)
    return found


def _missing(what: str, pattern: re.Pattern[str], tree: Tree) -> BuilderError:
    """Return the error for a source that is not there; one that looks alike may be."""
    for entry in tree.entries(""):
        if pattern.fullmatch(composed(entry.path)):
            return BuilderError(
                f"{what}; {entry.path!a} looks alike, but its letters are composed in another "
                "Unicode form than the recipe's; write the source in the form of the file's name, "
                "or rename the file"
            )
    return BuilderError(what)


def place(copy: Copy, taken: Sequence[Taken], under: Below) -> list[Entry]:
    """Return the entries that `copy` adds to an image that is `under` it.

    A folder's content is merged into the destination; a file goes to the destination, or into it
    where that ends with `/`, is a folder, or there are several files. Folders on the way keep what
    they are; those that are missing get 0755 and the owner of --chown. Raises BuilderError where a
    file and a folder would have the same name, for several files that go to what is no folder, and
    for owners that the image does not know.
    """
    below = under.folders
    owner = accounts.numbers(copy.owner, under.read) if copy.owner else None
    into = follow(posixpath.join("/" + copy.workdir, copy.destination), _targets(below))
    known = below.get(into)
    folder = copy.destination.endswith(("/", "/.")) or copy.destination == "."
    if len(taken) > 1 and not folder:
        raise BuilderError(f"several files go to {copy.destination!r}, which must end with / then")
    folder = folder or not into or (known is not None and known.kind == "dir")
    placed: dict[str, Entry] = {}
    for source in taken:
        for entry in source.entries:
            path = posixpath.join(into, source.name) if folder else into
            if source.folder:
                inner = entry.path[len(source.top) :].strip("/")
                path = f"{into}/{inner}" if into and inner else into or inner
                if not inner:
                    _folders(path, below, placed, owner)
                    continue
            _folders(path.rpartition("/")[0], below, placed, owner)
            _check(entry, placed.get(path) or below.get(path))
            placed[path] = _changed(entry, path, copy.mode, owner)
    return list(placed.values())


def folder(path: str, owner: str, under: Below) -> list[Entry]:
    """Return the entries that make the folder `path` in the image `under` it, as WORKDIR does."""
    placed: dict[str, Entry] = {}
    where = follow(path, _targets(under.folders))
    _folders(where, under.folders, placed, accounts.numbers(owner, under.read))
    return list(placed.values())


def _folders(
    path: str,
    below: Mapping[str, Entry],
    placed: dict[str, Entry],
    owner: tuple[int, int] | None = None,
) -> None:
    """Put the folder `path` and those it is in into `placed`: as they are below, or new ones."""
    if not path or ((known := placed.get(path)) and known.kind == "dir"):
        return  # and so are those it is in
    parts = path.split("/")
    for depth in range(1, len(parts) + 1):
        parent = "/".join(parts[:depth])
        found = placed.get(parent) or below.get(parent)
        if found is None:
            found = Entry(parent, "dir", 0o755, *(owner or (0, 0)))
        if found.kind != "dir":
            raise BuilderError(
                f"/{parent} is a {found.kind} already, where a folder must be; "
                "copy to another place"
            )
        placed[parent] = found


def _targets(below: Mapping[str, Entry]) -> Callable[[str], str | None]:
    def target(path: str) -> str | None:
        found = below.get(path)
        return found.target if found and found.kind == "symlink" else None

    return target


def _check(entry: Entry, found: Entry | None) -> None:
    """Refuse a file in a folder's place and a folder in a link's, as BuildKit does."""
    if found and (found.kind == "dir") != (entry.kind == "dir"):
        raise BuilderError(
            f"/{found.path} is a {found.kind} already, where a {entry.kind} would go; "
            "copy to another place"
        )


def _changed(entry: Entry, path: str, mode: int | None, owner: tuple[int, int] | None) -> Entry:
    uid, gid = owner or (entry.uid, entry.gid)
    if mode is None or entry.kind == "symlink":
        mode = entry.mode
    # What `replace` does, four times as fast: a context may have thousands of files.
    return Entry(
        path, entry.kind, mode, uid, gid, entry.content, entry.target, entry.size, entry.deflated,
        entry.sha256,
    )  # fmt: skip
