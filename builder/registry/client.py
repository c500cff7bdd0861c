"""A client of the OCI distribution API: manifests, tags, referrers and blobs of one registry.

Source: https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from typing import BinaryIO

from builder import oci
from builder.oci import canonical
from builder.registry.connection import TRANSIENT, Connection, RegistryError
from builder.registry.http import httpx

ACCEPT = ", ".join((oci.MANIFEST, oci.INDEX, oci.DOCKER_MANIFEST, oci.DOCKER_INDEX))
# Blobs above this go up in pieces of this size, so that a cut connection costs one piece.
PIECE = 8 << 20
# What an upload may begin again after: no answer, a failure that passes, an upload forgotten.
_AGAIN = {None, 404, 416, *TRANSIENT}


class Registry(Connection):
    """One registry. Threads may share it; `close` it, or use it in a `with`."""

    def head_manifest(self, repository: str, reference: str) -> oci.Descriptor | None:
        """Return the descriptor of a manifest by tag or digest, or None where there is none."""
        answer = self.request(
            "HEAD",
            f"{repository}/manifests/{reference}",
            scope=_pull(repository),
            expect=(200, 404),
            headers={"Accept": ACCEPT},
        )
        digest = answer.headers.get("Docker-Content-Digest") or reference
        if answer.status_code == 404:
            return None
        return oci.Descriptor(
            media_type=answer.headers.get("Content-Type", oci.MANIFEST),
            digest=digest,
            size=int(answer.headers.get("Content-Length", 0)),
        )

    def get_manifest(self, repository: str, reference: str) -> tuple[oci.Descriptor, bytes] | None:
        """Return a manifest by tag or digest with its bytes, checked; None where there is none."""
        answer = self.request(
            "GET",
            f"{repository}/manifests/{reference}",
            scope=_pull(repository),
            expect=(200, 404),
            headers={"Accept": ACCEPT},
        )
        if answer.status_code == 404:
            return None
        data = answer.content
        digest = canonical.sha256(data)
        wanted = (
            reference
            if oci.is_digest(reference)
            else answer.headers.get("Docker-Content-Digest", digest)
        )
        if digest != wanted:
            raise RegistryError(
                f"{self.host}/{repository}: the manifest {wanted} came with other content "
                f"({digest}); nothing of it was kept"
            )
        media_type = json.loads(data).get("mediaType") or answer.headers.get("Content-Type", "")
        return oci.Descriptor(media_type=media_type, digest=digest, size=len(data)), data

    def put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> str:
        """Upload a manifest under a tag or its digest; returns the digest the registry knows.

        Raises RegistryError where that is not the digest of `data`.
        """
        answer = self.request(
            "PUT",
            f"{repository}/manifests/{reference}",
            scope=_push(repository),
            expect=(201,),
            headers={"Content-Type": media_type},
            content=lambda: data,
        )
        digest = canonical.sha256(data)
        stored = answer.headers.get("Docker-Content-Digest", digest)
        if stored != digest:
            raise RegistryError(
                f"{self.host}/{repository} stored the manifest {digest} as {stored}; "
                "do not use that registry until it is mended"
            )
        return digest

    def tags(self, repository: str) -> list[str]:
        """Return the repository's tags, sorted; none where the repository is not there."""
        found: list[str] = []
        path = f"{repository}/tags/list?n=1000"
        while path:
            answer = self.request("GET", path, scope=_pull(repository), expect=(200, 404))
            if answer.status_code == 404:
                break
            found += answer.json().get("tags") or []
            path = answer.links.get("next", {}).get("url", "")
        return sorted(found)

    def referrers(self, repository: str, digest: str) -> list[oci.Descriptor]:
        """Return what refers to `digest`: by the referrers API, or the fallback tag without it."""
        answer = self.request(
            "GET",
            f"{repository}/referrers/{digest}",
            scope=_pull(repository),
            expect=(200, 404),
            headers={"Accept": oci.INDEX},
        )
        if answer.status_code == 200:
            document = answer.json()
        else:
            fallback = self.get_manifest(repository, digest.replace(":", "-"))
            document = json.loads(fallback[1]) if fallback else {"manifests": []}
        return [oci.Descriptor.from_json(entry) for entry in document.get("manifests") or []]

    def has_blob(self, repository: str, digest: str) -> bool:
        """Tell whether the repository has the blob."""
        answer = self.request(
            "HEAD", f"{repository}/blobs/{digest}", scope=_pull(repository), expect=(200, 404)
        )
        return answer.status_code == 200

    def get_blob(self, repository: str, blob: oci.Descriptor) -> bytes:
        """Return a small blob (a config), checked."""
        pieces: list[bytes] = []
        self.read_blob(repository, blob, pieces.append)
        return b"".join(pieces)

    def read_blob(
        self, repository: str, blob: oci.Descriptor, sink: Callable[[bytes], object]
    ) -> None:
        """Stream a blob into `sink`, going on after a cut connection, and check it.

        Raises RegistryError where length or digest differ; what went into `sink` is void then.
        """
        seen, size = hashlib.sha256(), 0
        name = f"{self.host}/{repository}@{blob.digest}"
        for attempt in range(self.timing.tries):
            headers = {"Range": f"bytes={size}-"} if size else {}
            try:
                with self.send(
                    "GET",
                    f"{repository}/blobs/{blob.digest}",
                    scope=_pull(repository),
                    expect=(200, 206, 404),
                    headers=headers,
                ) as answer:
                    if answer.status_code == 404:
                        raise RegistryError(f"{name} is not there", 404)
                    skip = size if answer.status_code == 200 else 0
                    for chunk in answer.iter_raw():
                        fresh, skip = chunk[skip:], max(0, skip - len(chunk))
                        seen.update(fresh)
                        size += len(fresh)
                        if size > blob.size:
                            raise RegistryError(f"{name} is longer than its {blob.size} bytes")
                        sink(fresh)
                if size >= blob.size:
                    break
            except httpx.TransportError as error:
                if attempt == self.timing.tries - 1:
                    raise self.unreachable(f"reading {name}", error) from None
                time.sleep(self.timing.pause)
        if size != blob.size or seen.hexdigest() != blob.digest.removeprefix("sha256:"):
            raise RegistryError(
                f"{name} came with {size} bytes that hash to {seen.hexdigest()[:12]}; "
                f"{blob.size} were expected, and nothing of it was kept"
            )

    def mount_blob(self, repository: str, digest: str, source: str) -> bool:
        """Try to take the blob over from the repository `source`; False where it must go up."""
        answer = self.request(
            "POST",
            f"{repository}/blobs/uploads/",
            scope=f"{_push(repository)} {_pull(source)}",
            expect=(201, 202),
            params={"mount": digest, "from": source},
            content=lambda: b"",
        )
        if answer.status_code == 202:
            self.request(
                "DELETE",
                answer.headers["Location"],
                scope=_push(repository),
                expect=(204, 404, 405),
                tries=1,
            )
        return answer.status_code == 201

    def put_blob(
        self,
        repository: str,
        blob: oci.Descriptor,
        open_content: Callable[[], BinaryIO],
        sent: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Upload a blob; `sent` is called with the number of bytes of each piece that arrived.

        Up to PIECE bytes go in one request, larger blobs in pieces; after a cut connection the
        registry is asked how much it has, and where it has forgotten, the blob goes up again.
        Raises RegistryError, the digest being checked by the registry.
        """
        upload = self._put_whole if blob.size <= PIECE else self._put_pieces
        for attempt in range(1, self.timing.tries + 1):
            location = self._start(repository)
            try:
                upload(location, _push(repository), blob, open_content, sent)
            except RegistryError as error:
                if attempt == self.timing.tries or error.status not in _AGAIN:
                    raise
                time.sleep(self.timing.pause * 2**attempt)
                if self.has_blob(repository, blob.digest):
                    return  # only the answer was lost
            else:
                return

    def _start(self, repository: str) -> str:
        answer = self.request(
            "POST",
            f"{repository}/blobs/uploads/",
            scope=_push(repository),
            expect=(202,),
            content=lambda: b"",
        )
        return str(answer.headers["Location"])

    def _finish(self, location: str, scope: str, blob: oci.Descriptor, content: bytes) -> None:
        location += ("&" if "?" in location else "?") + f"digest={blob.digest}"
        self.request(
            "PUT",
            location,
            scope=scope,
            expect=(201,),
            content=lambda: content,
            tries=1,
            headers={"Content-Type": "application/octet-stream"},
        )

    def _put_whole(
        self,
        location: str,
        scope: str,
        blob: oci.Descriptor,
        open_content: Callable[[], BinaryIO],
        sent: Callable[[int], object],
    ) -> None:
        with open_content() as stream:
            data = stream.read()
        self._finish(location, scope, blob, data)
        sent(blob.size)

    def _put_pieces(
        self,
        location: str,
        scope: str,
        blob: oci.Descriptor,
        open_content: Callable[[], BinaryIO],
        sent: Callable[[int], object],
    ) -> None:
        offset, failures = 0, 0
        with open_content() as stream:
            while offset < blob.size:
                stream.seek(offset)
                piece = stream.read(PIECE)
                try:
                    answer = self.request(
                        "PATCH",
                        location,
                        scope=scope,
                        expect=(202,),
                        content=lambda: piece,  # noqa: B023 - called at once
                        headers={
                            "Content-Type": "application/octet-stream",
                            "Content-Range": f"{offset}-{offset + len(piece) - 1}",
                        },
                        tries=1,
                    )
                except RegistryError as error:
                    failures += 1
                    if error.status not in _AGAIN or failures == self.timing.tries:
                        raise
                    time.sleep(self.timing.pause * 2**failures)
                    if (arrived := self._arrived(location, scope)) is None:
                        raise
                    location, offset = arrived
                else:
                    location = answer.headers.get("Location", location)
                    offset += len(piece)
                    sent(len(piece))
        self._finish(location, scope, blob, b"")

    def _arrived(self, location: str, scope: str) -> tuple[str, int] | None:
        """Ask how much of an upload the registry has; None where it has forgotten it."""
        answer = self.request("GET", location, scope=scope, expect=(204, 404))
        if answer.status_code == 404:
            return None
        last = answer.headers.get("Range", "0-0").rpartition("-")[2]
        # `0-0` means nothing or one byte: starting at 0 is right for both.
        offset = int(last) + 1 if int(last) else 0
        return answer.headers.get("Location", location), offset


def _pull(repository: str) -> str:
    return f"repository:{repository}:pull"


def _push(repository: str) -> str:
    return f"repository:{repository}:pull,push"
