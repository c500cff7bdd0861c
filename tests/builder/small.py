"""A small image made without a recipe, for tests of what stands below recipes."""

from __future__ import annotations

from builder import oci
from builder.oci import layer
from builder.oci.entry import Entry
from builder.store import Store


def image(store: Store, *contents: bytes) -> oci.Image:
    """Keep an image of one layer a content and return it."""
    layers = []
    for number, content in enumerate(contents or (b"x",)):
        with store.writing() as (stream, keep):
            made = layer.write_layer([Entry(f"app/{number}", "file", content=content)], stream)
            keep(made.blob.digest)
        layers.append(made)
    config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/app/0"]}}
    made_image, documents = oci.assemble(config, tuple(layers))
    store.add_image(documents)
    return made_image
