"""The blobs of a registry: looked for, read, mounted from another repository, uploaded.

Source: https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import BinaryIO

from builder import oci
from builder.oci.numbers import whole
from builder.oci.reference import Reference
from builder.registry.connection import BLOB, TRANSIENT, Answer, Connection, RegistryError
from builder.registry.http import LARGEST, DamagedError
from builder.registry.transport import FAILURES

# Blobs above this go up in pieces of this size, so that a cut connection costs one piece.
PIECE = 8 << 20
# Pieces become smaller where a registry, or a proxy before it, refuses them, down to this.
SMALLEST = 1 << 16
# A registry may ask for larger pieces, which are held in memory, up to this.
_LARGEST_PIECE = 64 << 20
# What an upload may begin again after: no answer, a failure that passes, an upload forgotten.
_AGAIN = {None, 404, 416, *TRANSIENT}
Open = Callable[[], BinaryIO]


@dataclass(frozen=True)
class Blob:
    """A blob, how its bytes are had, and the repository that has it already, if any does."""

    descriptor: oci.Descriptor
    open: Open
    home: Reference | None = None


@dataclass(frozen=True, slots=True)
class Moved:
    """What it took to bring a blob: bytes uploaded, blobs uploaded, blobs mounted."""

    uploaded: int = 0
    uploads: int = 0
    mounts: int = 0

    def __add__(self, other: Moved) -> Moved:
        """Return both together."""
        return Moved(
            self.uploaded + other.uploaded,
            self.uploads + other.uploads,
            self.mounts + other.mounts,
        )


class BlobClient(Connection):
    """The requests of the API that are about blobs."""

    # The size of pieces that this registry has taken, where it refused larger ones.
    _piece = 0

    def has_blob(self, repository: str, digest: str) -> bool:
        """Tell whether the repository has the blob; a registry without HEAD counts as no.

        Raises RegistryError.
        """
        answer = self.request(
            "HEAD",
            f"{repository}/blobs/{digest}",
            scope=pull_scope(repository),
            expect=(200, 404, 405),
        )
        return answer.status == 200

    def get_blob(self, repository: str, blob: oci.Descriptor, largest: int = LARGEST) -> bytes:
        """Return a document (a config, a bill of materials) of `largest` bytes at most, checked.

        Raises RegistryError where it is not there, not what its digest says, or larger.
        """
        if blob.size > largest:
            raise DamagedError(
                f"{self.host}/{repository}@{blob.digest} is said to have {blob.size} bytes; a "
                f"document has {largest} at most, and it was not read"
            )
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
                    scope=pull_scope(repository),
                    expect=(200, 206, 404),
                    headers=headers,
                ) as answer:
                    if answer.status == 404:
                        raise RegistryError(f"{name} is not there", 404)
                    skip = size if answer.status == 200 else 0
                    for chunk in answer.pieces():
                        fresh, skip = chunk[skip:], max(0, skip - len(chunk))
                        seen.update(fresh)
                        size += len(fresh)
                        if size > blob.size:
                            raise DamagedError(f"{name} is longer than its {blob.size} bytes")
                        sink(fresh)
                if size >= blob.size:
                    break
            except FAILURES as error:
                if attempt == self.timing.tries - 1:
                    raise self.unreachable(f"reading {name}", error) from None
                time.sleep(self.timing.pause)
        if size != blob.size or seen.hexdigest() != blob.digest.removeprefix("sha256:"):
            raise DamagedError(
                f"{name} came with {size} bytes that hash to {seen.hexdigest()[:12]}; "
                f"{blob.size} were expected, and nothing of it was kept"
            )

    def mount_blob(self, repository: str, digest: str, source: str) -> bool:
        """Try to take the blob over from the repository `source`; False where it must go up.

        A registry may refuse a mount for reasons of its own, with any status: no right to read the
        source, no such feature, no such blob. Raises RegistryError where it does not answer at all.
        """
        try:
            answer = self.request(
                "POST",
                f"{repository}/blobs/uploads/",
                scope=f"{push_scope(repository)} {pull_scope(source)}",
                expect=(201, 202),
                params={"mount": digest, "from": source},
                content=lambda: b"",
                tries=min(2, self.timing.tries),
            )
        except RegistryError as error:
            if error.status is None:
                raise
            return False
        if answer.status == 202 and answer.headers.get("Location"):
            # The registry began an upload instead; it would forget it by itself, some day.
            self.request(
                "DELETE",
                answer.location(),
                scope=push_scope(repository),
                expect=(204, 400, 403, 404, 405),
                tries=1,
            )
        return answer.status == 201

    def put_blob(
        self,
        repository: str,
        blob: oci.Descriptor,
        open_content: Open,
        sent: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Upload a blob; `sent` is called with the number of bytes of each piece that arrived.

        Up to PIECE bytes go in one request, larger blobs in pieces; smaller pieces where the
        registry answers 413, larger ones where it asks for them. After a cut connection the
        registry is asked how much it has, and where it has forgotten, the blob goes up again.
        Raises RegistryError, the digest being checked by the registry.
        """
        attempt = 0
        while True:
            attempt += 1
            begun = self.request(
                "POST",
                f"{repository}/blobs/uploads/",
                scope=push_scope(repository),
                expect=(202,),
                content=lambda: b"",
            )
            try:
                self._upload(begun, repository, blob, open_content, sent)
            except RegistryError as error:
                if error.status == 413 and self._take_smaller(blob.size):
                    attempt -= 1
                    continue
                if attempt == self.timing.tries or error.status not in _AGAIN:
                    raise
                time.sleep(self.timing.pause * 2**attempt)
                if self.has_blob(repository, blob.digest):
                    return  # only the answer was lost
            else:
                return

    def _take_smaller(self, size: int) -> bool:
        """Halve the pieces; False where they are as small as they get."""
        piece = min(self._piece or PIECE, size)
        if piece <= SMALLEST:
            return False
        self._piece = max(piece // 2, SMALLEST)
        return True

    def _upload(
        self,
        begun: Answer,
        repository: str,
        blob: oci.Descriptor,
        open_content: Open,
        sent: Callable[[int], object],
    ) -> None:
        scope = push_scope(repository)
        asked = begun.headers.get("OCI-Chunk-Min-Length", "")
        least = whole(asked) or 0
        piece = max(self._piece or PIECE, least)
        if blob.size <= piece:
            with open_content() as stream:
                data = stream.read()
            self._finish(begun.location(), scope, blob, data)
            sent(blob.size)
            return
        if piece > _LARGEST_PIECE:
            raise RegistryError(
                f"{self.host}/{repository} takes pieces of {piece} bytes or more only; "
                f"plateline holds at most {_LARGEST_PIECE} bytes in memory"
            )
        self._put_pieces(begun, scope, blob, open_content, sent, piece)

    def _finish(self, location: str, scope: str, blob: oci.Descriptor, content: bytes) -> None:
        location += ("&" if "?" in location else "?") + f"digest={blob.digest}"
        self.request(
            "PUT",
            location,
            scope=scope,
            expect=(201,),
            content=lambda: content,
            tries=1,
            headers={"Content-Type": BLOB},
        )

    def _put_pieces(
        self,
        begun: Answer,
        scope: str,
        blob: oci.Descriptor,
        open_content: Open,
        sent: Callable[[int], object],
        size: int,
    ) -> None:
        location, offset, failures = begun.location(), 0, 0
        with open_content() as stream:
            while offset < blob.size:
                stream.seek(offset)
                piece = stream.read(size)
                try:
                    answer = self.request(
                        "PATCH",
                        location,
                        scope=scope,
                        expect=(202,),
                        content=lambda: piece,  # noqa: B023 - called at once
                        headers={
                            "Content-Type": BLOB,
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
                    if answer.headers.get("Location"):
                        location = answer.location()
                    offset += len(piece)
                    sent(len(piece))
        self._finish(location, scope, blob, b"")

    def _arrived(self, location: str, scope: str) -> tuple[str, int] | None:
        """Ask how much of an upload the registry has; None where it has forgotten it."""
        answer = self.request("GET", location, scope=scope, expect=(204, 404))
        if answer.status == 404:
            return None
        last = answer.headers.get("Range", "0-0").rpartition("-")[2]
        # `0-0` means nothing or one byte: starting at 0 is right for both.
        offset = (whole(last) or -1) + 1
        return answer.location() if answer.headers.get("Location") else location, offset


class Transfer:
    """Blobs on their way to one registry: each goes up once, and other repositories mount it."""

    def __init__(self, registry: BlobClient) -> None:
        self._registry = registry
        self._lock = threading.Lock()
        # Which repository has, or is just being given, each blob.
        self._owners: dict[str, tuple[str, Future[None]]] = {}

    def bring(
        self, repository: str, blob: Blob, sent: Callable[[int], object] = lambda _: None
    ) -> Moved:
        """See to it that `repository` has `blob`: it is there, mounted from another, or uploaded.

        `sent` is called as `BlobClient.put_blob` does. Raises RegistryError, and what opening the
        blob raises; who waits for a blob that another thread fails to bring gets that error too.
        """
        digest = blob.descriptor.digest
        owner, ready, mine = self._claim(digest, repository)
        if mine:
            try:
                moved = self._move(repository, blob, sent)
            except BaseException as error:
                ready.set_exception(error)
                raise
            ready.set_result(None)
            return moved
        ready.result()
        if owner == repository:
            return Moved()
        return self._move(repository, blob, sent, owner)

    def found(self, repository: str, digests: Iterable[str]) -> None:
        """Take it that `repository` has these blobs: nobody asks, and others mount them."""
        ready: Future[None] = Future()
        ready.set_result(None)
        with self._lock:
            for digest in digests:
                self._owners.setdefault(digest, (repository, ready))

    def lost(self, digests: Iterable[str]) -> None:
        """Forget who has these blobs."""
        with self._lock:
            for digest in digests:
                self._owners.pop(digest, None)

    def _claim(self, digest: str, repository: str) -> tuple[str, Future[None], bool]:
        """Return who has the blob, when it will be there, and whether that is up to the caller."""
        with self._lock:
            if found := self._owners.get(digest):
                return *found, False
            self._owners[digest] = (repository, Future())
            return *self._owners[digest], True

    def _move(
        self, repository: str, blob: Blob, sent: Callable[[int], object], owner: str = ""
    ) -> Moved:
        registry, digest = self._registry, blob.descriptor.digest
        if registry.has_blob(repository, digest):
            return Moved()
        if not owner and blob.home and blob.home.host == registry.host:
            owner = blob.home.repository
        if owner not in ("", repository) and registry.mount_blob(repository, digest, owner):
            return Moved(mounts=1)
        registry.put_blob(repository, blob.descriptor, blob.open, sent)
        return Moved(uploaded=blob.descriptor.size, uploads=1)


def pull_scope(repository: str) -> str:
    """Return the token scope for reading a repository."""
    return f"repository:{repository}:pull"


def push_scope(repository: str) -> str:
    """Return the token scope for writing to a repository."""
    return f"repository:{repository}:pull,push"
