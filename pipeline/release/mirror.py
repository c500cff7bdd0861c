"""A release moved whole: into another registry, into a tar, and out of one.

It is the repository of releases with all that it reaches, and each image under the name that the
package pulls, with what refers to it there: signatures, provenance, bills of materials.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from builder import oci
from builder.errors import BuilderError
from builder.mirror.copy import bring, copy
from builder.mirror.graph import Graph, reach
from builder.mirror.layout import Layout, Part, names, write
from builder.oci.reference import Reference
from builder.registry.blobs import Moved, Transfer
from builder.registry.client import Registry, Source
from builder.registry.http import shown
from builder.registry.pull import pull
from builder.store import Store, roots
from pipeline.errors import PipelineError
from pipeline.release.publish import (
    RELEASE,
    fetch,
    find,
    named_images,
    package_of,
    repository,
    tag_of,
)


@dataclass(frozen=True, slots=True)
class Cargo:
    """All of a release: its digest, its package's, its tags, its images, and what holds them.

    `parts` has for each repository below the prefix, images first, where it was read and its graph.
    """

    digest: str
    package: str
    tags: Mapping[str, str]
    images: Mapping[str, str]
    parts: Mapping[str, tuple[str, Graph]]

    @property
    def size(self) -> int:
        """Return the bytes of all blobs, each counted once."""
        blobs = {d: b.size for _, graph in self.parts.values() for d, b in graph.blobs.items()}
        return sum(blobs.values())

    @property
    def lacking(self) -> list[str]:
        """Return what is listed in the source and is not there."""
        return [said for _, graph in self.parts.values() for said in graph.lacking]


def survey(source: Source, path: str, which: str) -> Cargo:
    """Return all that belongs to a release of `path` in `source`; no layer is read.

    `which` and errors are those of `find`; raises BuilderError where a part is not there.
    """
    home = repository(path)
    digest, entries = find(source, path, which)
    package = package_of(source, home, entries).digest
    images = named_images(entries)
    parts: dict[str, tuple[str, Graph]] = {}
    for title, image in images.items():
        if "/" in title or title == repository(""):
            raise PipelineError(f"the release has an image of the name {shown(title, 80)!r}")
        Reference.parse(f"localhost/{title}")
        own = f"{path}/{title}" if path else title
        where = own if source.get_manifest(own, image) else home
        parts[title] = where, reach(source, where, [image])
    parts[repository("")] = home, reach(source, home, [digest])
    tags = {tag_of(package): digest}
    if not oci.is_digest(which):
        tags[which] = digest
    return Cargo(digest, package, tags, images, parts)


def to_registry(
    cargo: Cargo,
    store: Store,
    source: Source,
    registry: Registry,
    path: str,
    *,
    jobs: int = 4,
    progress: Callable[[int], object] = lambda _: None,
) -> Moved:
    """Copy a release to `path` of `registry`, by digest; its tags come last.

    What is there is not sent again. Raises BuilderError where a registry refuses or sends something
    else.
    """
    transfer, moved = Transfer(registry), Moved()
    with store.in_use():
        for title, (where, graph) in cargo.parts.items():
            to = f"{path}/{title}" if path else title
            moved += copy(
                store, source, where, graph, registry, to, transfer, jobs=jobs, progress=progress
            )
        home = cargo.parts[repository("")][1]
        for tag in cargo.tags:
            index = home.documents[cargo.digest]
            registry.put_manifest(repository(path), tag, index.data, oci.INDEX)
    return moved


def to_file(
    cargo: Cargo,
    store: Store,
    source: Source,
    file: Path,
    *,
    jobs: int = 4,
    progress: Callable[[int], object] = lambda _: None,
) -> int:
    """Write a release as an OCI image layout in one tar, and return its bytes.

    Raises BuilderError where the source sends something else, or the file cannot be written.
    """
    with store.in_use():
        for where, graph in cargo.parts.values():
            bring(store, source, where, graph, jobs=jobs, progress=progress)
        parts = [
            Part(graph, cargo.tags if title == repository("") else {},
                 "" if title == repository("") else f"{title}/")
            for title, (_, graph) in cargo.parts.items()
        ]  # fmt: skip
        return write(file, store, parts)


@contextmanager
def opened(file: Path) -> Iterator[tuple[Layout, str]]:
    """Yield the layout in a tar and the name of the release in it.

    Raises PipelineError where it holds none or several, and BuilderError where it cannot be read.
    """
    layout = Layout(file)
    try:
        found = names(layout, RELEASE)
        if len(found) != 1:
            raise PipelineError(
                f"{file} holds {len(found) or 'no'} releases; `invoke mirror-release WHICH --to "
                "FILE.tar` writes one"
            )
        ((digest, name),) = found.items()
        tags = [tag for tag, entry in layout.named.items() if entry.digest == digest]
        yield layout, next((tag for tag in tags if not tag.startswith("sha256-")), name)
    finally:
        layout.close()


def load(layout: Layout, which: str, store: Store, *, jobs: int = 4) -> tuple[bytes, str]:
    """Bring the images of a release into the store; return its package, and its digest.

    The store keeps them under the name `release` and the digest. Raises BuilderError that names the
    digest of what is damaged or not there.
    """
    with store.in_use():
        digest, entries = find(layout, "", which)
        for name, image in named_images(entries).items():
            try:
                pull(store, layout, Reference("localhost", name, digest=image), jobs=jobs)
            except BuilderError as error:
                raise BuilderError(f"the image {shown(name, 80)}: {error}") from None
        package = fetch(layout, "", which)
        index = layout.get_manifest("", digest)
        assert index
        roots.keep(store, f"release {digest}", store.add(index[1], oci.INDEX))
    return package, digest
