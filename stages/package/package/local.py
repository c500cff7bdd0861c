"""Lays the models over the pinned function image, in an OCI image layout."""

from __future__ import annotations

from pathlib import Path

from builder import oci
from builder.layer import EPOCH, write_layer
from builder.reference import Reference
from builder.store import Store
from builder.tree import Entry


def append(
    store: Store, base: Reference, servable: Path, created: str = "2020-01-01T00:00:00Z"
) -> oci.Image:
    """Return the image of `base` with the folder `servable` at /models, kept in `store`.

    Raises BuilderError where the store lacks the base.
    """
    image = store.image(base.digest)
    entries = [Entry(path="models", kind="dir", mode=0o755)]
    for path in sorted(servable.rglob("*")):
        name = f"models/{path.relative_to(servable).as_posix()}"
        if path.is_dir():
            entries.append(Entry(path=name, kind="dir", mode=0o755))
        else:
            entries.append(Entry(path=name, kind="file", mode=0o644, content=path))
    with store.writing() as (stream, keep):
        layer = write_layer(entries, stream, created_by="COPY servable/ /models/", mtime=EPOCH)
        keep(layer.blob.digest)
    names = {
        "org.opencontainers.image.base.name": str(base),
        "org.opencontainers.image.base.digest": base.digest,
    }
    config = {key: value for key, value in image.config.items() if key != "rootfs"}
    settings = dict(config.get("config") or {})
    settings["Labels"] = {**(settings.get("Labels") or {}), **names}
    history = [
        *(config.get("history") or []),
        {"created": created, "created_by": layer.created_by},
    ]
    result, documents = oci.assemble(
        {**config, "config": settings, "history": history}, (*image.layers, layer), names
    )
    store.add_image(documents)
    return result
