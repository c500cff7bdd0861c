"""What a store holds, how much it is, and removing what nothing reaches any more.

Everything there is named by a SHA-256: blobs, results (by action key), unpacked layers, downloads.
A document reaches every hash it names - a manifest its config and layers, an index its manifests, a
result its image, the record of a build its layers' results and downloads - and a subject reaches
what refers to it. Over-wide, since a hash named for another reason keeps a thing too; never too
narrow.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from builder.errors import BuilderError
from builder.store import Store
from builder.store.roots import kept

DAY = 86400.0
_HASH = re.compile(rb"[0-9a-f]{64}")
# The name of an unpacked layer's folder begins with this much of its diff_id.
_SHORT = 24


@dataclass(frozen=True, slots=True)
class Item:
    """One thing of the store: its kind, its hash, where it is, its bytes, its age in seconds.

    `names` are the hashes that it names, `subject` the one that it refers to. `last` is the folder
    of the checkout whose last build it is, if it is one.
    """

    kind: str
    hash: str
    path: Path
    size: int
    age: float
    names: frozenset[str] = frozenset()
    subject: str = ""
    last: str = ""


def garbage(
    items: Collection[Item],
    *,
    keep_seconds: float,
    kept_hashes: Iterable[str] = (),
    is_there: Callable[[str], bool] = lambda _: True,
) -> list[Item]:
    """Return the items that may go; pure but for `is_there`, which tells of a checkout's folder.

    What stays: what is not older than `keep_seconds`, what the last build of a checkout that is
    still there made, `kept_hashes`, and everything that these reach.
    """
    roots = set(kept_hashes)
    for item in items:
        # What a killed process left unfinished is of no use to anyone.
        young = DAY if item.kind == "unfinished" else keep_seconds
        if item.age <= min(young, keep_seconds) or (item.last and is_there(item.last)):
            roots.add(item.hash)
    reached = reach(items, roots)
    # Two things of one name, a blob and its origin, stay or go together.
    return [item for item in items if item.hash not in reached]


def reach(items: Iterable[Item], roots: Collection[str]) -> set[str]:
    """Return `roots` and every hash that they reach, in any number of steps."""
    edges: dict[str, set[str]] = defaultdict(set)
    for item in items:
        edges[item.hash] |= item.names
        if item.subject:
            edges[item.subject].add(item.hash)
    reached: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += [*edges[name], name[:_SHORT]]
    return reached


def survey(store: Store, now: float) -> list[Item]:
    """Return everything the store and the caches beside it hold; `now` is seconds since 1970."""
    root, beside = store.root, store.root.parent
    items = [_document("result", path, now) for path in _inside(root / "results")]
    items += [_blob(path, now) for path in _inside(root / "blobs/sha256")]
    items += [_plain("origin", path, now) for path in _inside(root / "origins")]
    items += [_plain("unpacked layer", path, now) for path in _inside(root / "unpacked")]
    items += [_plain("answer", path, now) for path in _inside(root / "answers")]
    items += [_plain("unfinished", path, now) for path in _inside(root / "tmp")]
    items += [_plain("download", path, now) for path in _inside(beside / "downloads")]
    items += [_plain("step", path, now) for path in _inside(beside / "steps")]
    items += [_plain("plate", path, now) for path in _inside(beside / "plates")]
    # Whole or not at all: its metadata names its objects, which a cached step would miss.
    items += [_plain("engine kfp", path, now) for path in _inside(beside) if path.name == "kfp"]
    return items


def usage(items: Iterable[Item]) -> dict[str, tuple[int, int]]:
    """Return kind -> how many items of it, and their bytes; the largest kind first."""
    found: dict[str, tuple[int, int]] = {}
    for item in items:
        count, size = found.get(item.kind, (0, 0))
        found[item.kind] = count + 1, size + item.size
    return dict(sorted(found.items(), key=lambda entry: -entry[1][1]))


@dataclass(frozen=True, slots=True)
class Collected:
    """What went (or would go), and what stays."""

    gone: tuple[Item, ...]
    left: tuple[Item, ...]


def collect(store: Store, *, keep_days: float, now: float, dry_run: bool = False) -> Collected:
    """Remove what nothing reaches and what is older than `keep_days`.

    Raises BuilderError where a build or run is using the store, and for a negative number.
    """
    if keep_days < 0:
        raise BuilderError(f"--keep-days={keep_days} must not be negative")
    with store.alone():
        items = survey(store, now)
        gone = garbage(
            items, keep_seconds=keep_days * DAY, is_there=lambda folder: Path(folder).is_dir(),
            kept_hashes=[d.digest.removeprefix("sha256:") for d in kept(store).values()],
        )  # fmt: skip
        if not dry_run:
            # Results first: none must be left that points at a blob which has gone.
            for item in sorted(gone, key=lambda item: item.kind != "result"):
                _remove(store, item)
    left = set(gone)
    return Collected(tuple(gone), tuple(item for item in items if item not in left))


def _remove(store: Store, item: Item) -> None:
    try:
        if item.path.is_dir() and not item.path.is_symlink():
            # A folder that has its name is whole, so it loses the name first.
            going = Path(tempfile.mkdtemp(dir=store.root / "tmp")) / "going"
            item.path.rename(going)
            shutil.rmtree(going.parent)
        else:
            item.path.unlink(missing_ok=True)
    except OSError as error:
        raise BuilderError(f"removing {item.path} failed ({error.strerror or error})") from error


def _inside(folder: Path) -> Iterator[Path]:
    return iter(sorted(folder.iterdir())) if folder.is_dir() else iter(())


def _plain(kind: str, path: Path, now: float) -> Item:
    size, used = _measure(path)
    name = path.name[:_SHORT] if kind == "unpacked layer" else path.name
    return Item(kind, name, path, size, now - used)


def _blob(path: Path, now: float) -> Item:
    with path.open("rb") as stream:
        is_document = stream.read(1) == b"{"
    return _document("document", path, now) if is_document else _plain("layer", path, now)


def _document(kind: str, path: Path, now: float) -> Item:
    data = path.read_bytes()
    subject = last = ""
    try:
        content = json.loads(data)
        subject = str((content.get("subject") or {}).get("digest", "")).removeprefix("sha256:")
        last = str(((content.get("result") or {}).get("last") or {}).get("root", ""))
    except (ValueError, AttributeError):
        pass  # no document of ours: what it names is all there is to know
    status = path.stat()
    return Item(
        kind, path.name.removesuffix(".json"), path, status.st_size, now - status.st_mtime,
        frozenset(found.decode() for found in _HASH.findall(data)), subject, last,
    )  # fmt: skip


def _measure(path: Path) -> tuple[int, float]:
    """Return the bytes of a file or folder, and when it was last written or used."""
    status = path.lstat()
    size, used = (0 if path.is_dir() else status.st_size), status.st_mtime
    if path.is_dir() and not path.is_symlink():
        seen: set[int] = set()
        for found in path.rglob("*"):
            inner = found.lstat()
            if inner.st_ino not in seen and not found.is_dir():
                seen.add(inner.st_ino)
                size += inner.st_size
    return size, used
