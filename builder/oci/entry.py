"""File trees as data: what a layer holds before it is a tar."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from builder.errors import BuilderError


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, directory, symbolic link or hard link of a layer; or that a layer deletes something.

    A `whiteout` deletes `path` of the layers below, `opaque` all that was in the folder `path`;
    both are read from layers of others only.

    `path` is relative to the image's root, with `/` between parts, none at either end. `mode` holds
    permission bits only. `content` is the bytes of a file, the path on disk that has them, or what
    opens them (then `size` is known beforehand); `target` is what a link points at (for a hard
    link, a `path` of the same layer). `deflated` opens the content as a raw DEFLATE stream
    (RFC 1951) where an archive has it so already; `size` is known then. `sha256` is the digest that
    an archive promises for the content: it is compared when the layer is written.
    """

    path: str
    kind: Literal["file", "dir", "symlink", "hardlink", "whiteout", "opaque"]
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    content: bytes | Path | Callable[[], BinaryIO] | None = None
    target: str = ""
    size: int | None = None
    deflated: Callable[[], BinaryIO] | None = None
    sha256: bytes = b""

    def open(self) -> BinaryIO:
        """Open a file's content for reading."""
        if isinstance(self.content, bytes):
            return io.BytesIO(self.content)
        if self.content is None:
            raise BuilderError(f"{self.path}: a {self.kind} has no content")
        if not isinstance(self.content, Path):
            return self.content()
        return self.content.open("rb")


def check_path(path: str, source: str) -> str:
    """Return `path` normalised, refusing what would leave the tree.

    `source` names the wheel, deb or layer for the message. Raises BuilderError for absolute paths,
    `..`, empty names and NUL.
    """
    if path.startswith("/") or "\0" in path:
        raise BuilderError(f"{source}: refused the entry {path!r}: not a relative path")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise BuilderError(f"{source}: refused the entry {path!r}: it leaves the tree")
    return "/".join(parts)


def arrange(entries: Iterable[Entry]) -> list[Entry]:
    """Sort `entries` by path, parents first, and add the parents that are missing.

    A later entry replaces an earlier one of the same path. Added parents are directories of mode
    0755 that belong to root.
    """
    by_path: dict[str, Entry] = {}
    for entry in entries:
        by_path[entry.path] = entry
    for path in list(by_path):
        parent = path.rpartition("/")[0]
        while parent and parent not in by_path:
            by_path[parent] = Entry(path=parent, kind="dir", mode=0o755)
            parent = parent.rpartition("/")[0]
    return sorted(by_path.values(), key=lambda entry: entry.path.split("/"))
