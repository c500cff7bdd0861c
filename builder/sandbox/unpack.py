"""Layers as folders, each unpacked once for all images that have it."""

from __future__ import annotations

import os
import posixpath
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

from isal import igzip

from builder import oci
from builder.errors import BuilderError
from builder.oci import canonical
from builder.oci.entry import Entry, arrange, check_path
from builder.oci.overlay import lay_over
from builder.store import Store

# https://github.com/opencontainers/image-spec/blob/v1.1.0/layer.md#whiteouts
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_DELETES = ("whiteout", "opaque")


class _DeletesError(BuilderError):
    """A layer deletes what layers below it have, which a folder of its own cannot say."""


def folders(store: Store, image: oci.Image) -> list[Path]:
    """Return the folders that make the image's root, laid over each other in this order.

    That is one a layer, shared by all images that have it; or, for an image of others with a layer
    that deletes something, a single one for the whole image.
    """
    chain = canonical.sha256("\n".join(layer.diff_id for layer in image.layers).encode())
    whole = store.root / "unpacked" / chain.removeprefix("sha256:")[:24]
    if whole.exists():
        return [whole]
    try:
        return [unpacked(store, layer) for layer in image.layers]
    except _DeletesError:
        return [_fill(store, whole, image_entries(store, image))]


def unpacked(store: Store, layer: oci.Layer) -> Path:
    """Return the folder with the layer's files, unpacking it at first use.

    The blob is checked before; the folder gets its name when it is whole. Owners are not kept: the
    files are the user's own. Raises BuilderError for a damaged blob, for entries that leave the
    folder, for devices, and for whiteouts, which a folder cannot hold.
    """
    return _unpacked(store, layer, "")


def _unpacked(store: Store, layer: oci.Layer, suffix: str) -> Path:
    # Short names: an overlay's options must fit a page of memory.
    name = layer.diff_id.removeprefix("sha256:")[:24]
    folder = store.root / "unpacked" / (name + suffix)
    if folder.exists():
        return folder
    _bring(store, layer)
    store.verify(layer.blob.digest)
    return _fill(store, folder, _holding(read(store, layer), layer, bool(suffix)))


def _bring(store: Store, layer: oci.Layer) -> None:
    from builder.registry import pull  # httpx costs time, and most layers are here

    pull.bring(store, layer.blob)


def _holding(entries: Iterable[Entry], layer: oci.Layer, deletes: bool) -> Iterator[Entry]:
    """Yield what a layer's folder holds; raise where it deletes something and may not."""
    for entry in entries:
        if entry.kind not in _DELETES:
            yield entry
        elif not deletes:
            raise _DeletesError(
                f"layer {layer.blob.digest[:19]} deletes {entry.path} of the layers below it"
            )


def _fill(store: Store, folder: Path, entries: Iterable[Entry]) -> Path:
    """Write `entries` to a folder that gets its name when it is whole."""
    temporary = Path(tempfile.mkdtemp(dir=store.root / "tmp"))
    try:
        for entry in entries:
            _place(temporary, entry)
        temporary.chmod(0o755)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.exists():  # another process was faster otherwise
                raise
    except OSError as error:
        raise BuilderError(f"unpacking to {folder} failed ({error.strerror})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def filled(store: Store, key: str, entries: Callable[[], Iterable[Entry]]) -> Path:
    """Return the folder of what `entries` gives, unpacked at first use; `key` is what it is of."""
    folder = store.root / "unpacked" / key[:24]
    return folder if folder.exists() else _fill(store, folder, arrange(entries()))


def read(store: Store, layer: oci.Layer) -> Iterator[Entry]:
    """Yield the entries of a layer in the order of its tar; contents must be read at once."""
    source = f"layer {layer.blob.digest[:19]}"
    _bring(store, layer)
    try:
        with (
            igzip.open(  # type: ignore[no-untyped-call]
                store.path(layer.blob.digest), "rb"
            ) as stream,
            tarfile.open(fileobj=stream, mode="r|") as archive,
        ):
            for member in archive:
                if member.name in (".", "./", "/"):
                    continue
                yield _entry(archive, member, source)
    except FileNotFoundError:
        raise BuilderError(
            f"the store {store.root} has no blob {layer.blob.digest}; run `invoke build-images`"
        ) from None
    except (tarfile.TarError, OSError, EOFError) as error:
        raise BuilderError(f"{source} cannot be unpacked ({error})") from error


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo, source: str) -> Entry:
    name = check_path(member.name.removeprefix("./"), source)
    owner = (member.uid, member.gid)
    mode = member.mode & 0o7777
    folder, last = posixpath.split(name)
    if last == _OPAQUE:
        return Entry(folder, "opaque")
    if last.startswith(_WHITEOUT):
        return Entry(posixpath.join(folder, last.removeprefix(_WHITEOUT)), "whiteout")
    if member.isdir():
        return Entry(name, "dir", mode, *owner)
    if member.issym():
        return Entry(name, "symlink", 0o777, *owner, target=member.linkname)
    if member.islnk():
        return Entry(name, "hardlink", mode, *owner, target=check_path(member.linkname, source))
    if not member.isreg():
        raise BuilderError(f"{source}: refused the entry {name}: a device or other special file")
    stream = archive.extractfile(member)
    assert stream is not None
    return Entry(
        name, "file", mode, *owner, content=lambda: cast("BinaryIO", stream), size=member.size
    )


def _place(root: Path, entry: Entry) -> None:
    path = root / entry.path
    parent = path.parent
    parent.mkdir(parents=True, exist_ok=True)
    if not parent.resolve().is_relative_to(root.resolve()):
        raise BuilderError(f"refused the entry {entry.path}: it is behind a link that leaves")
    if entry.kind == "dir":
        path.mkdir(exist_ok=True)
        path.chmod(entry.mode | 0o700)
        return
    path.unlink(missing_ok=True)
    if entry.kind == "symlink":
        path.symlink_to(entry.target)
    elif entry.kind == "hardlink":
        os.link(root / entry.target, path, follow_symlinks=False)
    else:
        with path.open("wb") as sink, entry.open() as stream:
            shutil.copyfileobj(stream, sink, 1 << 20)
        path.chmod(entry.mode & 0o1777)


def image_entries(store: Store, image: oci.Image) -> list[Entry]:
    """Return all of an image's entries, upper layers over lower ones, contents on disk.

    A hard link is the file that it is, since a layer above may delete its other name.
    """
    merged: dict[str, Entry] = {}
    for layer in image.layers:
        entries = list(read(store, layer))
        deletes = any(entry.kind in _DELETES for entry in entries)
        folder = _unpacked(store, layer, ".deletes" if deletes else "")
        found = [
            replace(entry, kind="file", target="", content=folder / entry.path)
            if entry.kind in ("file", "hardlink")
            else entry
            for entry in entries
        ]
        lay_over(merged, found)
    return sorted(merged.values(), key=lambda entry: entry.path.split("/"))
