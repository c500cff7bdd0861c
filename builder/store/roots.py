"""What a store keeps by name for good: releases, and whatever else someone asked to keep.

The names are in the layout's own `index.json`, so that other tools find them too
(https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md#indexjson-file).
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from builder import oci
from builder.errors import BuilderError
from builder.oci import canonical
from builder.store import Store

_NAME = "org.opencontainers.image.ref.name"


def kept(store: Store) -> dict[str, oci.Descriptor]:
    """Return what is kept, by name; raises BuilderError where the list is damaged."""
    path = store.root / "index.json"
    try:
        found = [oci.Descriptor.from_json(e) for e in json.loads(path.read_bytes())["manifests"]]
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, BuilderError):
        raise BuilderError(
            f"{path} is damaged; without it nobody knows what to keep: mend it or remove it"
        ) from None
    return {entry.annotations.get(_NAME, entry.digest): entry for entry in found}


def keep(store: Store, name: str, descriptor: oci.Descriptor) -> None:
    """Keep a manifest or index, and all it reaches, under `name` instead of an earlier one.

    Raises BuilderError where the list of names is damaged or cannot be written.
    """
    with _changing(store) as names:
        names[name] = replace(descriptor, annotations={**descriptor.annotations, _NAME: name})


def forget(store: Store, name: str) -> None:
    """Take a name away; raises BuilderError that lists the names there are."""
    with _changing(store) as names:
        if name not in names:
            raise BuilderError(
                f"nothing is kept as {name!r}; there are {', '.join(sorted(names)) or 'no names'}"
            )
        del names[name]


@contextmanager
def _changing(store: Store) -> Iterator[dict[str, oci.Descriptor]]:
    with (store.root / "index.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        names = kept(store)
        yield names
        _write(store, names)


def _write(store: Store, names: Mapping[str, oci.Descriptor]) -> None:
    entries = [names[name].to_json() for name in sorted(names)]
    document = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": entries}
    try:
        handle, temporary = tempfile.mkstemp(dir=store.root / "tmp")
        with os.fdopen(handle, "wb") as stream:
            stream.write(canonical.dumps(document))
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(store.root / "index.json")
    except OSError as error:
        raise BuilderError(
            f"writing to the store {store.root} failed ({error.strerror or error}); "
            "free some space there or point PLATELINE_STORE elsewhere"
        ) from error
