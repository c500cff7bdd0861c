"""A graph -> a registry: blobs that it lacks, manifests by digest, what refers to what, tags."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, TypeVar

from builder import oci
from builder.mirror.graph import Graph
from builder.oci.reference import Reference
from builder.registry import pull
from builder.registry.artifacts import announce
from builder.registry.blobs import Blob, Moved, Transfer
from builder.registry.client import Registry, Source
from builder.signing.signatures import add_simple, simple_layers
from builder.store import Store

Result = TypeVar("Result")


def bring(
    store: Store,
    source: Source,
    repository: str,
    graph: Graph,
    *,
    jobs: int = 4,
    progress: Callable[[int], object] = lambda _: None,
) -> None:
    """Bring every blob and document of `graph` into the store; what is there is not asked for.

    `progress` is told the bytes that arrived. Raises BuilderError where one is not what its digest
    says.
    """

    def one(blob: oci.Descriptor) -> None:
        pull.fetch(store, source, repository, blob, progress)

    _each(one, list(graph.blobs.values()), jobs)
    for document in graph.documents.values():
        store.add(document.data)


def copy(
    store: Store,
    source: Source,
    repository: str,
    graph: Graph,
    registry: Registry,
    to: str,
    transfer: Transfer,
    *,
    jobs: int = 4,
    progress: Callable[[int], object] = lambda _: None,
) -> Moved:
    """Copy `graph`, of `repository` in `source`, into the repository `to` of `registry`.

    What is there is not sent again. Blobs go through the store, so that a copy that was cut short
    goes on from what arrived. Signatures under a tag are added to those that the tag has. A
    manifest goes up after all that it names. `progress` is told the bytes that went up. Raises
    RegistryError, and BuilderError where the source sends something else than the digest says.
    """

    def one(blob: oci.Descriptor) -> Moved:
        def opened() -> BinaryIO:
            pull.fetch(store, source, repository, blob)
            return store.open_blob(blob.digest)

        home = Reference(source.host, repository) if source.host == registry.host else None
        return transfer.bring(to, Blob(blob, opened, home), progress)

    moved = sum(_each(one, list(graph.blobs.values()), jobs), Moved())
    for digest, document in graph.documents.items():
        if registry.head_manifest(to, digest) is None:
            registry.put_manifest(to, digest, document.data, document.descriptor.media_type)
    for document in graph.documents.values():
        if document.subject in graph.documents:
            announce(registry, to, document.subject, document.descriptor)
    for tag, digest in graph.tags.items():
        document = graph.documents[digest]
        there = simple_layers(registry, to, tag)
        if there is None:
            registry.put_manifest(to, tag, document.data, document.descriptor.media_type)
        elif there != (own := simple_layers(source, repository, tag) or []):
            add_simple(registry, to, tag, there, own)
    return moved


def _each(
    one: Callable[[oci.Descriptor], Result], parts: list[oci.Descriptor], jobs: int
) -> list[Result]:
    """Do `one` with all parts; where one fails, or the user ends it, no further one is begun."""
    pool = ThreadPoolExecutor(jobs)
    try:
        return list(pool.map(one, parts))
    finally:
        pool.shutdown(cancel_futures=True)
