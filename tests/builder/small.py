"""A small image made without a recipe, for tests of what stands below recipes."""

from __future__ import annotations

from builder import oci
from builder.oci import canonical, layer
from builder.oci.entry import Entry
from builder.platform import AMD64, ARM64
from builder.registry.client import Registry
from builder.registry.push import push
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


def index(store: Store, first: oci.Image) -> oci.Index:
    """Keep `first` for another processor too, with the same layers, and an index over both."""
    config = {n: v for n, v in first.config.items() if n != "rootfs"} | ARM64.oci
    other, documents = oci.assemble(config, first.layers)
    store.add_image(documents)
    entries = [
        {**made.manifest.to_json(), "platform": platform.oci}
        for platform, made in ((AMD64, first), (ARM64, other))
    ]
    data = canonical.dumps({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": entries})
    store.add(data)
    return oci.Index(manifest=oci.describe(oci.INDEX, data), images=(first, other))


def push_index(store: Store, found: oci.Index, prefix: str, name: str, registry: Registry) -> str:
    """Push an index with its images to `prefix`/name; return its pinned name."""
    for number, image in enumerate(found.images):
        push(store, {name: (f"{number:064x}", image)}, prefix, registry)
    repository = f"{prefix.partition('/')[2]}/{name}"
    registry.put_manifest(repository, found.digest, store.read(found.digest), oci.INDEX)
    return f"{prefix}/{name}@{found.digest}"
