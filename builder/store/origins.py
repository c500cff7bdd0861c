"""Which repository of a registry has a layer that the store may lack.

The store remembers it beside the blobs (`origins/<hex>`), so that whoever needs the bytes - a
sandbox, a push to another registry, a COPY - can fetch them.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from builder import oci
from builder.errors import BuilderError
from builder.oci.reference import Reference
from builder.store.blobs import Store


def of(store: Store, blob: oci.Descriptor) -> Reference | None:
    """Return the repository that a layer is known to be in, pinned by the layer's digest.

    Raises BuilderError where the store's note of it is damaged.
    """
    path = _path(store, blob.digest)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    store.used.add(str(path))
    return Reference.parse(f"{text}@{blob.digest}")


def at_hand(store: Store, found: oci.Image) -> bool:
    """Tell whether every layer of an image is in the store, or can be brought there."""
    return all(store.has(layer.blob) or of(store, layer.blob) for layer in found.layers)


def _path(store: Store, digest: str) -> Path:
    return store.root / "origins" / digest.removeprefix("sha256:")


def remember(store: Store, digest: str, reference: Reference) -> None:
    """Keep that the repository of `reference` has the layer `digest`.

    Raises BuilderError where the store cannot be written.
    """
    path = _path(store, digest)
    text = f"{reference.host}/{reference.repository}"
    try:
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return
        path.parent.mkdir(exist_ok=True)
        handle, name = tempfile.mkstemp(dir=store.root / "tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(name).replace(path)
    except OSError as error:
        raise BuilderError(
            f"writing to the store {store.root} failed ({error.strerror or error}); "
            "free some space there or point PLATELINE_STORE elsewhere"
        ) from error


def forget(store: Store, digest: str) -> None:
    """Forget where the layer `digest` is."""
    _path(store, digest).unlink(missing_ok=True)
