"""Which folders and links an image has: where a COPY lands depends on them, and on nothing else.

A layer's listing is remembered by its diff_id when the layer is made, or taken from its tar once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import partial

from builder import oci
from builder.oci import canonical
from builder.oci.entry import Entry
from builder.oci.overlay import Below, lay_over
from builder.sandbox.layer_tar import read
from builder.store import Store

_FORMAT = "listing-1"
_KINDS = ("dir", "symlink", "whiteout", "opaque")


def key(diff_id: str) -> str:
    """Return the key under which a layer's listing is remembered."""
    return hashlib.sha256(canonical.dumps([_FORMAT, diff_id])).hexdigest()


def remember(store: Store, diff_id: str, entries: Iterable[Entry]) -> str:
    """Remember the listing of a layer that holds `entries`, and return its key."""
    rows = [
        [entry.path, entry.kind, entry.mode, entry.uid, entry.gid, entry.target]
        for entry in entries
        if entry.kind in _KINDS
    ]
    store.put_result(key(diff_id), {"listing": rows})
    return key(diff_id)


def below(store: Store, layers: Sequence[oci.Layer]) -> Below:
    """Return the folders and links of `layers` laid over each other, and what reads their files.

    A layer that nobody has listed yet is read, and fetched for that where it must be.
    """
    found: dict[str, Entry] = {}
    for layer in layers:
        lay_over(found, _entries(store, layer))
    return Below(found, partial(_file, store, layers))


def _file(store: Store, layers: Sequence[oci.Layer], path: str) -> bytes | None:
    """Return the content of the uppermost file `path`, or None."""
    for layer in reversed(layers):
        for entry in read(store, layer):
            if entry.path == path:
                if entry.kind != "file":
                    return None
                with entry.open() as stream:
                    return stream.read()
    return None


def _entries(store: Store, layer: oci.Layer) -> list[Entry]:
    result = store.get_result(key(layer.diff_id))
    if result is None:
        remember(store, layer.diff_id, read(store, layer))
        result = store.get_result(key(layer.diff_id)) or {"listing": []}
    return [
        Entry(path, kind, mode, uid, gid, target=target)
        for path, kind, mode, uid, gid, target in result["listing"]
    ]
