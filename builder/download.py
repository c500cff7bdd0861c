"""Downloads that are kept by their hash and checked before they get their name."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from builder.connection import tls_context
from builder.errors import BuilderError

_CHUNK = 1 << 20


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fetch(url: str, sha256: str, folder: Path, name: str) -> Path:
    """Download `url` (http, https or file) unless `folder` has it, and return where it is.

    The file is `folder/<sha256>/<name>`. Raises BuilderError where it cannot be had or has another
    hash; what was wrong is not kept.
    """
    path = folder / sha256 / name
    if path.exists() and sha256_file(path) == sha256:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as sink:
            read(url, sink.write)
        keep(Path(temporary), sha256, path, url)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path


def keep(temporary: Path, sha256: str, path: Path, source: str) -> None:
    """Give a downloaded file its final name after checking its hash."""
    found = sha256_file(temporary)
    if found != sha256:
        raise BuilderError(
            f"{path.name}: the lock says sha256 {sha256}, what came from {_shown(source)} has "
            f"{found}; if that version was published anew, run `invoke lock`"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.chmod(0o644)
    temporary.replace(path)


def read(url: str, sink: object) -> None:
    """Stream `url` into the callable `sink`; raises BuilderError where it cannot be read."""
    import httpx

    assert callable(sink)
    if url.startswith("file:"):
        try:
            sink(Path(url.removeprefix("file://")).read_bytes())
        except OSError as error:
            raise BuilderError(f"{url} cannot be read ({error.strerror})") from None
        return
    try:
        verify = tls_context(httpx.URL(url).host) if url.startswith("https") else False
        with httpx.Client(follow_redirects=True, timeout=60, verify=verify) as client:
            for attempt in range(3):
                try:
                    with client.stream("GET", url) as answer:
                        answer.raise_for_status()
                        for chunk in answer.iter_raw(_CHUNK):
                            sink(chunk)
                except httpx.ConnectError:
                    if attempt == 2:
                        raise
                else:
                    return
    except httpx.HTTPError as error:
        raise BuilderError(
            f"downloading {_shown(url)} failed ({error or type(error).__name__}); "
            "check the network and the mirror"
        ) from None


def _shown(url: str) -> str:
    """Return `url` without user and password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if rest else url
