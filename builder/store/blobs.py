"""The content-addressed folder: an OCI image layout of blobs, and action-key -> result entries.

Layout (https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md):
`oci-layout`, `blobs/sha256/<hex>`; beside it `results/<hex>.json` and `unpacked/<hex>/`.
A blob is written to `tmp/`, synced and renamed, so whatever has a final name is whole; what is
written to it later breaks its seal and is noticed.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from builder import folders, oci
from builder.errors import BuilderError
from builder.oci import canonical

_CHUNK = 1 << 20
_SECOND = 10**9


def _seal(digest: str) -> int:
    """Return the nanoseconds that the time of a checked blob ends with."""
    return int(digest.removeprefix("sha256:")[:12], 16) % _SECOND


def _sealed(digest: str) -> tuple[int, int]:
    now = time.time_ns()
    # The second before this one: a time ahead of the clock would be younger than any age.
    return now, (now // _SECOND - 1) * _SECOND + _seal(digest)


def default_root(environ: Mapping[str, str] = os.environ) -> Path:
    """Return $PLATELINE_STORE, or `plateline/store` under the user's cache folder."""
    return Path(folders.store(environ))


@dataclass(frozen=True)
class Store:
    """The store at `root`. Several processes may use one store at the same time.

    `used` collects the files that this process found something in.
    """

    root: Path
    used: set[str] = field(default_factory=set, compare=False, repr=False)

    @staticmethod
    def open(root: Path | None = None) -> Store:
        """Make the folders where they are missing; raises BuilderError where that fails."""
        store = Store(root or default_root())
        try:
            for name in ("blobs/sha256", "results", "unpacked", "tmp"):
                (store.root / name).mkdir(parents=True, exist_ok=True)
            marker = store.root / "oci-layout"
            if not marker.exists():
                marker.write_text('{"imageLayoutVersion":"1.0.0"}')
        except OSError as error:
            raise BuilderError(
                f"the store {store.root} cannot be written ({error.strerror}); "
                "point PLATELINE_STORE at a folder that can be"
            ) from error
        return store

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep `gc` from the store meanwhile; waits while one is at work.

        The lock is the kernel's, so a process that is killed holds it no longer.
        """
        with self._lock() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Have the store to oneself; raises BuilderError where it is in use."""
        with self._lock() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BuilderError(
                    f"a build, push or run is using the store {self.root}; try again when it ended"
                ) from None
            yield

    def _lock(self) -> BinaryIO:
        # A lock needs no right to write: a store on a read-only disk can be used as well.
        try:
            return os.fdopen(os.open(self.root / "lock", os.O_RDONLY | os.O_CREAT, 0o644), "rb")
        except OSError as error:
            raise self._unwritable(error) from error

    def path(self, digest: str) -> Path:
        """Return where the blob `digest` is, or would be."""
        if not oci.is_digest(digest):
            raise BuilderError(f"not a sha256 digest: {digest!r}")
        return self.root / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def has(self, descriptor: oci.Descriptor) -> bool:
        """Tell whether the blob is there, whole; a damaged one is removed.

        Its hash is read only where something has written to the file since it was checked: that
        breaks the seal, which is a fraction of a second in the file's time.
        """
        path = self.path(descriptor.digest)
        try:
            status = path.stat()
            if status.st_size != descriptor.size:
                return False
            self.used.add(str(path))
            if status.st_mtime_ns % _SECOND == _seal(descriptor.digest):
                return True
            self.verify(descriptor.digest)
            with suppress(OSError):  # a store of others may be readable only
                os.utime(path, ns=_sealed(descriptor.digest))
        except (FileNotFoundError, BuilderError):
            return False
        return True

    @contextmanager
    def writing(self) -> Iterator[tuple[BinaryIO, Callable[[str], None]]]:
        """Yield a temporary file and `keep(digest)`, which syncs it and gives it its final name.

        The file is gone afterwards unless kept. The caller vouches for the digest, having hashed
        what it wrote.
        """
        try:
            handle, name = tempfile.mkstemp(dir=self.root / "tmp")
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            with os.fdopen(handle, "wb") as stream:

                def keep(digest: str) -> None:
                    stream.flush()
                    os.fchmod(stream.fileno(), 0o644)
                    os.utime(stream.fileno(), ns=_sealed(digest))
                    os.fsync(stream.fileno())
                    Path(name).replace(self.path(digest))

                yield cast("BinaryIO", stream), keep
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            Path(name).unlink(missing_ok=True)

    def _unwritable(self, error: OSError) -> BuilderError:
        return BuilderError(
            f"writing to the store {self.root} failed ({error.strerror or error}); "
            "free some space there or point PLATELINE_STORE elsewhere"
        )

    def add(self, data: bytes, media_type: str = "application/octet-stream") -> oci.Descriptor:
        """Keep `data` and return its descriptor."""
        descriptor = oci.describe(media_type, data)
        if not self.has(descriptor):
            with self.writing() as (stream, keep):
                stream.write(data)
                keep(descriptor.digest)
        return descriptor

    def read(self, digest: str) -> bytes:
        """Return a whole blob, checked against its digest (for documents, not for layers).

        Raises BuilderError where it is missing or damaged; a damaged blob is removed, so that the
        next build makes it again.
        """
        try:
            data = self.path(digest).read_bytes()
        except FileNotFoundError:
            raise BuilderError(
                f"the store {self.root} has no blob {digest}; run `invoke build-images`"
            ) from None
        self._check(digest, hashlib.sha256(data).hexdigest())
        self.used.add(str(self.path(digest)))
        return data

    def verify(self, digest: str) -> None:
        """Read a blob of any size through and check it; raises as `read` does."""
        seen = hashlib.sha256()
        try:
            with self.path(digest).open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    seen.update(chunk)
        except FileNotFoundError:
            raise BuilderError(
                f"the store {self.root} has no blob {digest}; run `invoke build-images`"
            ) from None
        self._check(digest, seen.hexdigest())

    def open_blob(self, digest: str) -> BinaryIO:
        """Return a blob of any size to be read, which is checked on the way.

        Who reads to its end gets a BuilderError instead of the end where the content is not what
        the digest says, whatever the file's time says; the damaged blob is removed. Raises
        BuilderError where the blob is missing.
        """
        try:
            return cast("BinaryIO", _Checked(self, digest))
        except FileNotFoundError:
            raise BuilderError(
                f"the store {self.root} has no blob {digest}; run `invoke build-images`"
            ) from None

    def _check(self, digest: str, found: str) -> None:
        if found != digest.removeprefix("sha256:"):
            self.path(digest).unlink(missing_ok=True)
            raise BuilderError(
                f"the blob {digest} in the store {self.root} was damaged (its content hashes to "
                f"{found[:12]}) and has been removed; run `invoke build-images` to make it again"
            )

    def put_result(self, key: str, document: Mapping[str, Any]) -> None:
        """Remember `document` as the result of the action `key` (64 hexadecimal digits)."""
        data = canonical.dumps(
            {"result": document, "sha256": canonical.sha256(canonical.dumps(document))}
        )
        try:
            handle, name = tempfile.mkstemp(dir=self.root / "tmp")
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).replace(self.root / "results" / f"{key}.json")
        except OSError as error:
            raise self._unwritable(error) from error

    def get_result(self, key: str) -> dict[str, Any] | None:
        """Return what was remembered for `key`, or None; a damaged entry counts as none.

        The file's time is set to now, for `gc` to see that it was of use.
        """
        path = self.root / "results" / f"{key}.json"
        try:
            entry = json.loads(path.read_bytes())
            document: dict[str, Any] = entry["result"]
            if entry["sha256"] == canonical.sha256(canonical.dumps(document)):
                with suppress(OSError):
                    os.utime(path)
                self.used.add(str(path))
                return document
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            pass
        return None

    def add_image(self, documents: Mapping[str, bytes]) -> None:
        """Keep an image's config and manifest, as `oci.assemble` returns them."""
        for digest, data in documents.items():
            assert self.add(data).digest == digest

    def image(self, digest: str) -> oci.Image:
        """Return the image whose manifest has `digest`; raises BuilderError where it is missing."""
        manifest = self.read(digest)
        config = self.read(json.loads(manifest)["config"]["digest"])
        return oci.parse(manifest, config)


class _Checked(io.FileIO):
    """A blob that is hashed while it is read; after a jump it is read through again at its end."""

    def __init__(self, store: Store, digest: str) -> None:
        super().__init__(store.path(digest))
        self._store, self._digest = store, digest
        self._seen, self._hashed = hashlib.sha256(), 0

    def read(self, size: int | None = -1, /) -> bytes:
        at = self.tell()
        data = super().read(-1 if size is None else size) or b""
        if at == self._hashed:
            self._seen.update(data)
            self._hashed += len(data)
        if at + len(data) == os.fstat(self.fileno()).st_size:
            if self._hashed == at + len(data):
                self._store._check(self._digest, self._seen.hexdigest())
            else:
                self._store.verify(self._digest)
        return data
