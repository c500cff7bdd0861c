"""The first thing in which two images of one recipe differ: layer, file and field."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from builder import oci
from builder.sandbox.layer_tar import opened
from builder.store import Store

_CHUNK = 1 << 20
# What a tar header says of an entry, in the order in which it is compared.
_FIELDS = ("type", "mode", "uid", "gid", "size", "mtime", "linkname", "uname", "gname",
           "pax_headers")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two images differ first: `layer` is what made it, `path` and `field` are inside it.

    An empty `layer` stands for the image's config, an empty `path` for the layer as a whole.
    """

    image: str
    layer: str
    path: str
    field: str
    one: str
    other: str

    def sentence(self) -> str:
        """Return the difference as one line."""
        where = f"layer `{self.layer}`" if self.layer else "config"
        inside = f", /{self.path}" if self.path else ""
        return f"{self.image}, {where}{inside}: {self.field} is {self.one} and {self.other}"


def difference(
    name: str, one: tuple[Store, oci.Image], other: tuple[Store, oci.Image]
) -> Difference:
    """Return the first difference between two images whose digests differ."""
    for ours, theirs in zip_longest(one[1].layers, other[1].layers):
        if ours is None or theirs is None:
            there = (ours or theirs).created_by
            shown = ["there" if layer else "missing" for layer in (ours, theirs)]
            return Difference(name, there, "", "the layer", *shown)
        if ours.diff_id != theirs.diff_id:
            path, field, was, found = _in_layers((one[0], ours), (other[0], theirs))
            return Difference(name, ours.created_by, path, field, was, found)
        if ours.blob != theirs.blob:
            digests = (layer.blob.digest for layer in (ours, theirs))
            return Difference(name, ours.created_by, "", "the compressed layer", *digests)
    field, was, found = _in_json("", one[1].config, other[1].config) or (
        "the manifest", one[1].digest, other[1].digest,
    )  # fmt: skip
    return Difference(name, "", "", field, was, found)


def _in_layers(
    one: tuple[Store, oci.Layer], other: tuple[Store, oci.Layer]
) -> tuple[str, str, str, str]:
    """Return path, field and both values of the first entry that differs."""
    with _archive(*one) as ours, _archive(*other) as theirs:
        for a, b in zip_longest(ours, theirs):
            # Entries are sorted, so the smaller name is the one that the other tar lacks.
            if a is None or (b is not None and b.name.split("/") < a.name.split("/")):
                return b.name, "the entry", "missing", "there"
            if b is None or a.name != b.name:
                return a.name, "the entry", "there", "missing"
            for field in _FIELDS:
                was, found = getattr(a, field), getattr(b, field)
                if was != found:
                    return a.name, field, _shown(field, was), _shown(field, found)
            if a.isreg() and (offset := _in_content(ours.extractfile(a), theirs.extractfile(b))):
                return a.name, f"content from byte {offset[0]}", offset[1].hex(), offset[2].hex()
    return "", "the tar between its entries", one[1].diff_id, other[1].diff_id


def _shown(field: str, value: object) -> str:
    if field == "mode":
        return f"{value:04o}"
    return value.decode() if isinstance(value, bytes) else str(value)


def _in_content(one: Any, other: Any) -> tuple[int, bytes, bytes] | None:
    """Return offset and up to 8 bytes of each side from where two streams differ, or None."""
    position = 0
    while (ours := one.read(_CHUNK)) + (theirs := other.read(_CHUNK)):
        if ours != theirs:
            pairs = enumerate(zip_longest(ours, theirs))
            index = next(i for i, (a, b) in pairs if a != b)
            return position + index, ours[index : index + 8], theirs[index : index + 8]
        position += len(ours)
    return None


@contextmanager
def _archive(store: Store, layer: oci.Layer) -> Iterator[tarfile.TarFile]:
    with (
        store.open_blob(layer.blob.digest) as raw,
        opened(raw, layer.blob) as stream,
        tarfile.open(fileobj=stream, mode="r|") as archive,
    ):
        yield archive


def _in_json(path: str, one: Any, other: Any) -> tuple[str, str, str] | None:
    """Return the path of the first member that differs, and both values.

    >>> _in_json("", {"config": {"Env": ["a=1"]}}, {"config": {"Env": ["a=2"]}})
    ('config.Env[0]', "'a=1'", "'a=2'")
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        names = sorted(one.keys() | other.keys())
        pairs = [(f"{path}.{n}".lstrip("."), one.get(n), other.get(n)) for n in names]
    elif isinstance(one, list) and isinstance(other, list):
        pairs = [(f"{path}[{i}]", a, b) for i, (a, b) in enumerate(zip_longest(one, other))]
    else:
        return None if one == other else (path, repr(one), repr(other))
    return next((found for pair in pairs if (found := _in_json(*pair))), None)
