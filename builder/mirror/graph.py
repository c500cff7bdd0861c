"""What a manifest reaches: children, blobs, what refers to any of these, and tags of signatures.

Sources: https://github.com/opencontainers/image-spec/blob/v1.1.0/manifest.md for subjects, and
https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md for the tags.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

from builder import oci
from builder.errors import BuilderError
from builder.registry.client import Source
from builder.registry.http import parse, shown

# A release has some fifty; strangers may attach more to what they do not own.
_MOST = 10_000
_JOBS = 8
# Signatures and attestations beside an image, as tags: `sha256-<hex>.sig`.
_BESIDE = re.compile(r"sha256-([0-9a-f]{64})\.(?:sig|att)")


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or index: what describes it to whom it refers to, its bytes, its subject."""

    descriptor: oci.Descriptor
    data: bytes
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Graph:
    """What manifests of one repository reach.

    `documents` are in the order in which a registry takes them: children first. `blobs` are
    configs, layers and files, by digest. `tags` are those of signatures, with their digests.
    `lacking` says what is listed as referring to one of them and is not there.
    """

    documents: Mapping[str, Document]
    blobs: Mapping[str, oci.Descriptor]
    tags: Mapping[str, str]
    lacking: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Return the bytes of all blobs."""
        return sum(blob.size for blob in self.blobs.values())


@dataclass(frozen=True, slots=True)
class _Read:
    document: Document
    children: tuple[str, ...]
    blobs: tuple[oci.Descriptor, ...]
    referrers: tuple[str, ...]


def reach(source: Source, repository: str, digests: Iterable[str]) -> Graph:
    """Return what the manifests `digests` of a repository reach; nothing but documents is read.

    Raises RegistryError, and BuilderError where one of them, or what it is made of, is not there.
    """
    roots = tuple(digests)
    found: dict[str, _Read] = {}
    lacking: list[str] = []
    with ThreadPoolExecutor(_JOBS) as pool:
        _follow(source, repository, dict.fromkeys(roots, ""), found, lacking, pool)
        tags: dict[str, str] = {}
        for tag in source.tags(repository):
            named = _BESIDE.fullmatch(tag)
            if named and f"sha256:{named[1]}" in found:
                manifest = source.get_manifest(repository, tag)
                if manifest:
                    tags[tag] = manifest[0].digest
        _follow(source, repository, dict.fromkeys(tags.values(), ""), found, lacking, pool)
    order = TopologicalSorter({digest: read.children for digest, read in found.items()})
    return Graph(
        documents={digest: found[digest].document for digest in order.static_order()},
        blobs={blob.digest: blob for read in found.values() for blob in read.blobs},
        tags=tags,
        lacking=tuple(lacking),
    )


def _follow(
    source: Source,
    repository: str,
    level: Mapping[str, str],
    found: dict[str, _Read],
    lacking: list[str],
    pool: ThreadPoolExecutor,
) -> None:
    """Read `level` (digest -> what it refers to, or nothing) and all that it reaches."""
    while level := {digest: subject for digest, subject in level.items() if digest not in found}:
        if len(found) + len(level) > _MOST:
            raise BuilderError(
                f"{source.host}/{repository} has more than {_MOST} manifests that belong together; "
                "find out who attached them"
            )
        following: dict[str, str] = {}
        for digest, read in zip(
            level, pool.map(lambda name: _read(source, repository, name), level), strict=True
        ):
            if read:
                found[digest] = read
                following |= dict.fromkeys(read.children, "")
                following |= dict.fromkeys(read.referrers, digest) if read.referrers else {}
            elif level[digest]:
                lacking.append(f"{digest}, which refers to {level[digest]}")
            else:
                raise BuilderError(
                    f"{source.host}/{repository} does not have the manifest {digest}; it is "
                    "damaged or was cut short, so publish or copy it again"
                )
        level = following


def _read(source: Source, repository: str, digest: str) -> _Read | None:
    manifest = source.get_manifest(repository, digest)
    if manifest is None:
        return None
    described, data = manifest
    where = f"{source.host}/{repository}@{digest}"
    document = parse(data, where)
    config = document.get("config")
    parts = [config] if config else []
    subject = document.get("subject")
    notes = document.get("annotations") or {}
    kind = document.get("artifactType") or (config or {}).get("mediaType")
    return _Read(
        Document(
            oci.Descriptor(
                media_type=described.media_type, digest=digest, size=len(data),
                annotations={n: v for n, v in notes.items() if isinstance(v, str)},
                artifact_type=str(kind or "") if subject else "",
            ),
            data,
            oci.Descriptor.from_json(subject, where).digest if subject else "",
        ),
        tuple(entry.digest for entry in _entries(document.get("manifests"), where)),
        tuple(_entries([*parts, *(document.get("layers") or ())], where)),
        tuple(entry.digest for entry in source.referrers(repository, digest)),
    )  # fmt: skip


def _entries(listed: Any, where: str) -> list[oci.Descriptor]:
    if not isinstance(listed or [], list):
        raise BuilderError(f"{where} has something else than a list: {shown(listed, 80)}")
    return [oci.Descriptor.from_json(entry, where) for entry in listed or ()]
