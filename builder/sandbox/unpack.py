"""Layers as folders, each unpacked once for all images that have it."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from builder import oci
from builder.errors import BuilderError
from builder.oci import canonical
from builder.oci.entry import Entry, arrange
from builder.oci.overlay import lay_over
from builder.oci.tree import Bounds
from builder.sandbox.extract import extract, open_below
from builder.sandbox.layer_tar import bring, read
from builder.store import Store

_DELETES = ("whiteout", "opaque")
# So much of a diff_id names a folder: no two contents can be found that agree in 160 bits, and the
# paths of forty layers fit the page of memory that an overlay's options have.
_NAME = 40
_OPTIONS = 3800
# Layers that are fetched at the same time, while one that has come is unpacked: a registry is
# waited for most, but of threads that write files one waits for the other (Python's lock).
_TOGETHER = 4
# Bytes that are written before the room on the disk is looked at again.
_LOOK = 64 << 20
# Two steps that start together share layers: each is unpacked once.
_turns: dict[Path, threading.Lock] = {}


class _DeletesError(BuilderError):
    """A layer deletes what layers below it have, which a folder of its own cannot say."""


def folders(store: Store, image: oci.Image) -> list[Path]:
    """Return the folders that make the image's root, laid over each other in this order.

    That is one a layer, shared by all images that have it; or a single one for the whole image,
    where a layer deletes something or the layers are too many for an overlay. Raises as `unpacked`.
    """
    chain = canonical.sha256("\n".join(layer.diff_id for layer in image.layers).encode())
    if _folder(store, chain, "").exists():
        return [_folder(store, chain, "")]
    names = [_folder(store, layer.diff_id, "") for layer in image.layers]
    if sum(len(os.fsencode(name)) + 1 for name in names) > _OPTIONS:
        return [whole(store, image)]
    if all(name.exists() for name in names):
        return names
    missing = {name: layer for name, layer in zip(names, image.layers, strict=True)
               if not name.exists()}  # fmt: skip
    with ThreadPoolExecutor(_TOGETHER) as pool:
        coming = {pool.submit(bring, store, layer): layer for layer in missing.values()}
        try:
            for come in as_completed(coming):
                come.result()
                unpacked(store, coming[come])
        except _DeletesError:
            return [whole(store, image)]
        finally:
            pool.shutdown(cancel_futures=True)
    return names


def whole(store: Store, image: oci.Image) -> Path:
    """Return one folder with all of the image's files, made at first use; raises as `unpacked`."""
    chain = canonical.sha256("\n".join(layer.diff_id for layer in image.layers).encode())
    folder = _folder(store, chain, "")
    if not folder.exists():
        entries = image_entries(store, image)
        _fill(store, folder, _fitting(store, entries, f"image {image.digest[:19]}"))
    return folder


def unpacked(store: Store, layer: oci.Layer) -> Path:
    """Return the folder with the layer's files, unpacking it at first use.

    One pass: each entry is checked before it is written, and the folder gets its name when the
    whole content was hashed and is what the diff_id says; before that, it is removed. Owners are
    not kept: the files are the user's own. Raises BuilderError for a damaged blob, for content that
    is not what its diff_id says, for what `Tree.add` refuses, for devices, for a full disk, and for
    whiteouts, which a folder cannot hold.
    """
    return _unpacked(store, layer, "")


def _unpacked(store: Store, layer: oci.Layer, suffix: str) -> Path:
    folder = _folder(store, layer.diff_id, suffix)
    if folder.exists():
        return folder
    with _turns.setdefault(folder, threading.Lock()):
        return folder if folder.exists() else _written(store, layer, folder, suffix)


def _written(store: Store, layer: oci.Layer, folder: Path, suffix: str) -> Path:
    with closing(read(store, layer)) as entries:
        held = _holding(entries, layer, bool(suffix))
        return _fill(store, folder, _fitting(store, held, f"layer {layer.blob.digest[:19]}"))


def _folder(store: Store, digest: str, suffix: str) -> Path:
    if not oci.is_digest(digest):
        raise BuilderError(f"not a sha256 digest: {digest!r}")
    return store.root / "unpacked" / (digest.removeprefix("sha256:")[:_NAME] + suffix)


def _holding(entries: Iterable[Entry], layer: oci.Layer, deletes: bool) -> Iterator[Entry]:
    """Yield what a layer's folder holds; raise where it deletes something and may not."""
    for entry in entries:
        if entry.kind not in _DELETES:
            yield entry
        elif not deletes:
            raise _DeletesError(
                f"layer {layer.blob.digest[:19]} deletes {entry.path} of the layers below it"
            )


def _fitting(store: Store, entries: Iterable[Entry], what: str) -> Iterator[Entry]:
    """Yield `entries` as long as the store's disk has room for the next one; raise BuilderError."""
    kept, written, allowed = Bounds.read().free, 0, -1
    for entry in entries:
        size = entry.size or 0
        allowed -= size
        if allowed < 0:
            free = shutil.disk_usage(store.root).free
            if size > free - kept:
                raise BuilderError(
                    f"{what} does not fit: {written / 1e6:.0f} MB of it were unpacked, "
                    f"{entry.path[-60:]!r} has {size / 1e6:.0f} MB, but {store.root} has "
                    f"{free / 1e6:.0f} MB free, of which {kept / 1e6:.0f} stay free "
                    "(PLATELINE_UNPACK_FREE); run `invoke gc`, or point PLATELINE_STORE at a "
                    "larger disk"
                )
            allowed = min(free - kept - size, _LOOK)
        written += size
        yield entry


def _fill(store: Store, folder: Path, entries: Iterable[Entry]) -> Path:
    """Write `entries` to a folder that gets its name when it is whole."""
    temporary = Path(tempfile.mkdtemp(dir=store.root / "tmp"))
    try:
        extract(temporary, entries)
        temporary.chmod(0o755)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.exists():  # another process was faster otherwise
                raise
    except OSError as error:
        raise BuilderError(
            f"unpacking to {folder} failed ({error.strerror or error}); free some space there, or "
            "point PLATELINE_STORE elsewhere"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def filled(store: Store, key: str, entries: Callable[[], Iterable[Entry]]) -> Path:
    """Return the folder of what `entries` gives, unpacked at first use; `key` is what it is of.

    Raises BuilderError where it cannot be written.
    """
    folder = store.root / "unpacked" / key[:_NAME]
    return folder if folder.exists() else _fill(store, folder, arrange(entries()))


def image_entries(store: Store, image: oci.Image) -> list[Entry]:
    """Return all of an image's entries, upper layers over lower ones, contents on disk.

    A hard link is the file that it is, since a layer above may delete its other name. A folder
    that an upper layer needs replaces a link of its name below, as in an overlay. Raises as
    `unpacked`.
    """
    merged: dict[str, Entry] = {}
    for layer in image.layers:
        entries = list(read(store, layer))
        deletes = any(entry.kind in _DELETES for entry in entries)
        folder = _unpacked(store, layer, ".deletes" if deletes else "")
        found = [
            _on_disk(entry, folder) if entry.kind in ("file", "hardlink") else entry
            for entry in entries
        ]
        _make_parents(merged, found)
        lay_over(merged, found)
    return sorted(merged.values(), key=lambda entry: entry.path.split("/"))


def _on_disk(entry: Entry, folder: Path) -> Entry:
    size = entry.size
    if entry.kind == "hardlink":
        size = (folder / entry.path).lstat().st_size
    content = partial(open_below, folder, entry.path)
    return replace(entry, kind="file", target="", content=content, size=size)


def _make_parents(merged: dict[str, Entry], entries: list[Entry]) -> None:
    """Let the folders that `entries` are in take the place of files and links of lower layers."""
    seen = set()
    for entry in entries:
        parent = entry.path.rpartition("/")[0]
        while parent and parent not in seen and entry.kind not in _DELETES:
            seen.add(parent)
            if parent in merged and merged[parent].kind != "dir":
                merged[parent] = Entry(parent, "dir", 0o755)
            parent = parent.rpartition("/")[0]
