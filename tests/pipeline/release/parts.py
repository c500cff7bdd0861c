"""A small image for each target, a package of them, and their release."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from builder import oci
from builder.oci import layer
from builder.oci.entry import Entry
from builder.registry.client import Registry
from builder.registry.push import push
from builder.signing.keys import SigningKey
from builder.store import Store
from pipeline.definition.pipelines import definition
from pipeline.definition.settings import Settings
from pipeline.release.publish import Release, publish
from pipeline.spec.compile import compile_package
from pipeline.spec.provenance import Provenance
from tests.pipeline.pins import PINS


def image(store: Store, content: str) -> oci.Image:
    with store.writing() as (stream, keep):
        made = layer.write_layer([Entry("a", "file", 0o644, content=content.encode())], stream)
        keep(made.blob.digest)
    config = {"architecture": "amd64", "os": "linux", "config": {}}
    found, documents = oci.assemble(config, (made,))
    store.add_image(documents)
    return found


# A registry's name where the package does not say another one.
_HOST = "localhost:1"


def package(host: str, images: Mapping[str, oci.Image | oci.Index], **changes) -> bytes:
    """Return a package of images at `host`, compiled once for the same images and changes."""
    digests = tuple((name, found.digest) for name, found in images.items())
    data = _compiled(digests, json.dumps(changes))
    return data.replace(_HOST.encode(), host.encode())


@cache
def _compiled(digests: tuple[tuple[str, str], ...], changes: str) -> bytes:
    pins = PINS | {name: f"{_HOST}/p/{name}@{digest}" for name, digest in digests}
    made = {"commit": "c" * 40, "dirty": False, "locks": {}} | json.loads(changes)
    documents = {name: {"digest": digest, "layers": {}} for name, digest in digests}
    with TemporaryDirectory() as folder:
        return compile_package(
            definition(Settings()), pins, Provenance(images=documents, **made),
            Store.open(Path(folder, "store")),
        ).data  # fmt: skip


def bill(name: str, _image: object = None) -> bytes:
    return json.dumps({"bomFormat": "CycloneDX", "name": name}).encode()


def released(
    client: Registry,
    host: str,
    store: Store,
    images: dict[str, oci.Image],
    key: SigningKey | None = None,
) -> Release:
    push(store, {n: (f"{i:064x}", m) for i, (n, m) in enumerate(images.items())},
         f"{host}/p", client)  # fmt: skip
    data = package(host, images)
    return publish(client, "p", store, data, images, "v1", inventory=bill, key=key)
