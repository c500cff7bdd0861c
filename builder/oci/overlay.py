"""Layers laid over each other: which folders and links an image has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from builder.oci.entry import Entry

# The path of each folder and link.
Listing = Mapping[str, Entry]


@dataclass(frozen=True)
class Below:
    """What a layer is laid over: its folders and links, and what reads one of its files."""

    folders: Listing
    read: Callable[[str], bytes | None]


NOTHING = Below({}, lambda _: None)


def lay_over(found: dict[str, Entry], entries: Sequence[Entry]) -> None:
    """Lay a layer over `found`: what it deletes goes, then what it holds comes.

    A file or link in a folder's place takes all that was in it away. Whiteouts:
    https://github.com/opencontainers/image-spec/blob/v1.1.0/layer.md#whiteouts.
    """
    gone = [entry.path + "/" for entry in entries if entry.kind != "dir"]
    folders = {path.rpartition("/")[0] for path in found} if gone else set()
    for prefix in gone:
        if prefix[:-1] in folders:
            for path in [path for path in found if path.startswith(prefix)]:
                del found[path]
    for entry in entries:
        if entry.kind == "whiteout":
            found.pop(entry.path, None)
    found |= {entry.path: entry for entry in entries if entry.kind not in ("whiteout", "opaque")}
