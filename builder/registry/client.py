"""A client of the OCI distribution API: manifests, tags, referrers and blobs; one a registry.

Source: https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self

from builder import oci
from builder.oci import canonical
from builder.oci.numbers import whole
from builder.oci.reference import Reference
from builder.registry.blobs import PIECE, BlobClient, pull_scope, push_scope
from builder.registry.connection import RegistryError, Timing
from builder.registry.http import LARGEST, Answer, DamagedError, origin, parse, shown

__all__ = ["PIECE", "Registries", "Registry", "Source"]

ACCEPT = ", ".join((oci.MANIFEST, oci.INDEX, oci.DOCKER_MANIFEST, oci.DOCKER_INDEX))
# A list of tags or referrers ends, whatever the registry says.
_PAGES = 200
_ENTRIES = 100_000


class Source(Protocol):
    """Where manifests and blobs are read by digest: a registry, or an OCI layout in a file.

    The methods are those of `Registry`, errors included. `host` is its name in messages.
    """

    @property
    def host(self) -> str:
        """Return its name."""

    def get_manifest(self, repository: str, reference: str) -> tuple[oci.Descriptor, bytes] | None:
        """Return a manifest by tag or digest with its bytes, checked; None where there is none."""

    def referrers(self, repository: str, digest: str) -> list[oci.Descriptor]:
        """Return what refers to `digest`."""

    def tags(self, repository: str) -> list[str]:
        """Return the repository's tags, sorted."""

    def resolve(self, reference: Reference) -> Reference:
        """Return `reference` pinned."""

    def get_blob(self, repository: str, blob: oci.Descriptor, largest: int = LARGEST) -> bytes:
        """Return a document of `largest` bytes at most, checked."""

    def read_blob(
        self, repository: str, blob: oci.Descriptor, sink: Callable[[bytes], object]
    ) -> None:
        """Stream a blob into `sink` and check it."""


class Registry(BlobClient):
    """One registry. Threads may share it; `close` it, or use it in a `with`."""

    def head_manifest(self, repository: str, reference: str) -> oci.Descriptor | None:
        """Return the descriptor of a manifest by tag or digest, or None where there is none.

        Raises RegistryError.
        """
        answer = self._manifest("HEAD", repository, reference)
        if answer is None:
            return None
        length = answer.headers.get("Content-Length", "")
        return oci.Descriptor(
            media_type=shown(answer.headers.get("Content-Type", oci.MANIFEST)),
            digest=shown(answer.headers.get("Docker-Content-Digest") or reference),
            size=whole(length) or 0,
        )

    def get_manifest(self, repository: str, reference: str) -> tuple[oci.Descriptor, bytes] | None:
        """Return a manifest by tag or digest with its bytes, checked; None where there is none.

        Raises RegistryError, also where it is no JSON object or not what its digest says.
        """
        answer = self._manifest("GET", repository, reference)
        if answer is None:
            return None
        digest = canonical.sha256(answer.body)
        wanted = (
            reference
            if oci.is_digest(reference)
            else answer.headers.get("Docker-Content-Digest", digest)
        )
        if digest != wanted:
            raise DamagedError(
                f"{self.host}/{repository}: the manifest {shown(wanted)} came with other content "
                f"({digest}); nothing of it was kept"
            )
        media_type = answer.json().get("mediaType") or answer.headers.get("Content-Type", "")
        described = oci.Descriptor(
            media_type=shown(media_type), digest=digest, size=len(answer.body)
        )
        return described, answer.body

    def _manifest(self, method: str, repository: str, reference: str) -> Answer | None:
        answer = self.request(
            method,
            f"{repository}/manifests/{reference}",
            scope=pull_scope(repository),
            expect=(200, 404),
            headers={"Accept": ACCEPT},
        )
        return None if answer.status == 404 else answer

    def resolve(self, reference: Reference) -> Reference:
        """Return `reference` pinned: with the digest that its tag (`latest` without one) has now.

        Raises RegistryError where the repository has no such tag, which names some that it has.
        """
        if reference.digest:
            return reference
        tag = reference.tag or "latest"
        found = self.get_manifest(reference.repository, tag)
        if found is None:
            tags = [t for t in self.tags(reference.repository) if not t.startswith("sha256-")]
            some = f"it has {shown(', '.join(tags[:10]))}" if tags else "nothing is there"
            raise RegistryError(
                f"{reference.host}/{reference.repository} has no tag {tag}; {some}", 404
            )
        return replace(reference, digest=found[0].digest)

    def put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> str:
        """Upload a manifest under a tag or its digest; returns the digest the registry knows.

        Raises RegistryError where that is not the digest of `data`.
        """
        answer = self.request(
            "PUT",
            f"{repository}/manifests/{reference}",
            scope=push_scope(repository),
            expect=(201,),
            headers={"Content-Type": media_type},
            content=lambda: data,
        )
        digest = canonical.sha256(data)
        stored = answer.headers.get("Docker-Content-Digest", digest)
        if stored != digest:
            raise RegistryError(
                f"{self.host}/{repository} stored the manifest {digest} as {shown(stored)}; "
                "do not use that registry until it is mended"
            )
        return digest

    def tags(self, repository: str) -> list[str]:
        """Return the repository's tags, sorted; none where the repository is not there.

        Raises RegistryError, also for a list that does not end.
        """
        path = f"{repository}/tags/list?n=1000"
        found = [str(tag) for tag in self._pages(repository, path, "tags") or ()]
        return sorted(found)

    def referrers(self, repository: str, digest: str) -> list[oci.Descriptor]:
        """Return what refers to `digest`: by the referrers API, or the fallback tag without it.

        Raises RegistryError, and BuilderError for an entry that is no descriptor.
        """
        entries = self._pages(repository, f"{repository}/referrers/{digest}", "manifests")
        if entries is None:
            fallback = self.get_manifest(repository, digest.replace(":", "-"))
            document = parse(fallback[1], f"{self.host}/{repository}") if fallback else {}
            entries = _list(document, "manifests", f"{self.host}/{repository}")
        where = f"the referrers of {digest} at {self.host}/{repository}"
        return [oci.Descriptor.from_json(entry, where) for entry in entries]

    def _pages(self, repository: str, path: str, member: str) -> list[Any] | None:
        """Return the list `member` of every page of an answer; None where the first is not there.

        Pages are followed on the registry itself only, and not for ever.
        """
        found: list[Any] = []
        first = ""
        for _ in range(_PAGES):
            answer = self.request(
                "GET",
                path,
                scope=pull_scope(repository),
                expect=(200, 404),
                headers={"Accept": f"{oci.INDEX}, application/json"},
            )
            if answer.status == 404:
                return found if first else None
            found += _list(answer.json(), member, answer.what)
            first = first or answer.url
            path = _next(answer.headers.get("Link", ""))
            if not path:
                return found
            if origin(answer.location_of(path)) != origin(first):
                raise RegistryError(f"{answer.what} says that its list goes on at another host")
            path = answer.location_of(path)
            if len(found) > _ENTRIES or path == answer.url:
                break
        raise RegistryError(
            f"{self.host}/{repository} sent a list of {member} that does not end; it was given up"
        )


def _list(document: dict[str, Any], member: str, what: str) -> list[Any]:
    found = document.get(member) or []
    if not isinstance(found, list):
        raise DamagedError(f"{what} came with {member} that are no list")
    return found


def _next(link: str) -> str:
    """Return the address of the next page in a Link header (RFC 8288), or nothing."""
    for entry in link[:8192].split(","):
        address, _, parameters = entry.strip().partition(">")
        if address.startswith("<") and 'rel="next"' in parameters.replace("rel=next", 'rel="next"'):
            return address[1:]
    return ""


@dataclass
class Registries:
    """One client a registry, made when it is first needed; use it in a `with`.

    All have the same credentials, patience, and listener for what is waited for: see `Connection`.
    """

    docker_config: Path | None = None
    timing: Timing | None = None
    insecure: bool = False
    notice: Callable[[str], object] | None = None
    _clients: dict[str, Registry] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients.values():
            client.close()

    def at(self, host: str) -> Registry:
        """Return the client of `host`."""
        with self._lock:
            if host not in self._clients:
                self._clients[host] = Registry(
                    host,
                    docker_config=self.docker_config,
                    timing=self.timing,
                    insecure=self.insecure,
                    notice=self.notice,
                )
            return self._clients[host]


def lacking(registry: Registry, manifests: Mapping[str, str]) -> list[str]:
    """Return those of repository -> digest that a registry lacks; all are asked for at once.

    Raises RegistryError.
    """
    from concurrent.futures import ThreadPoolExecutor

    if not manifests:
        return []
    with ThreadPoolExecutor(len(manifests)) as pool:
        found = pool.map(lambda item: registry.head_manifest(*item), manifests.items())
        return [name for name, there in zip(manifests, found, strict=True) if there is None]
