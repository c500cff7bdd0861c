"""Downloads that are kept by their hash and checked before they get their name."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import BuilderError
from builder.store import default_root

if TYPE_CHECKING:
    import httpx

_CHUNK = 1 << 20
_PART = 64 << 10  # larger ones are slower to allocate than to read
_TRIES, _PAUSE = 4, 0.5


def downloads_folder() -> Path:
    """Return where wheels and packages are kept between builds, by hash."""
    return default_root().parent / "downloads"


def sha256_file(path: Path | str) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    # By system calls: a context may have thousands of small files, and a file object costs more.
    seen, handle = hashlib.sha256(), os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while chunk := os.read(handle, _PART):
            seen.update(chunk)
    finally:
        os.close(handle)
    return seen.hexdigest()


# What to do where something else came than the lock says.
STALE = "if that version was published anew, run `invoke lock`"


def fetch(url: str, sha256: str, folder: Path, name: str, advice: str = STALE) -> Path:
    """Download `url` (http, https or file) unless `folder` has it, and return where it is.

    The file is `folder/<sha256>/<name>`. Raises BuilderError where it cannot be had or has another
    hash (the message ends with `advice`); what was wrong is not kept.
    """
    path = folder / sha256 / name
    if path.exists() and sha256_file(path) == sha256:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as sink:
            read(url, sink.write)
        keep(Path(temporary), sha256, path, url, advice)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path


def keep(temporary: Path, sha256: str, path: Path, source: str, advice: str = STALE) -> None:
    """Give a downloaded file its final name after checking its hash."""
    found = sha256_file(temporary)
    if found != sha256:
        raise BuilderError(
            f"{path.name}: sha256 {sha256} was expected, what came from {_shown(source)} has "
            f"{found}; {advice}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.chmod(0o644)
    temporary.replace(path)


def read(url: str, sink: object) -> None:
    """Stream `url` into the callable `sink`; raises BuilderError where it cannot be read."""
    import httpx  # costs time

    from builder.registry.connection import TRANSIENT

    assert callable(sink)
    if url.startswith("file:"):
        try:
            sink(Path(url.removeprefix("file://")).read_bytes())
        except OSError as error:
            raise BuilderError(f"{url} cannot be read ({error.strerror})") from None
        return
    try:
        # A body compressed on the way would have another hash.
        headers = {"Accept-Encoding": "identity"}
        with _client(url, 60) as client:
            for attempt in range(_TRIES):
                last = attempt == _TRIES - 1
                try:
                    with client.stream("GET", url, headers=headers) as answer:
                        if answer.status_code in TRANSIENT and not last:
                            time.sleep(_PAUSE * 2**attempt)
                            continue
                        answer.raise_for_status()
                        for chunk in answer.iter_raw(_CHUNK):
                            sink(chunk)
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    if last:
                        raise
                    time.sleep(_PAUSE * 2**attempt)
                else:
                    return
    except httpx.HTTPError as error:
        raise BuilderError(
            f"downloading {_shown(url)} failed ({_reason(error)}); "
            "check the address and the network"
        ) from None


def size(url: str) -> int | None:
    """Return how many bytes `url` (http, https or file) has, None where that is not said."""
    import httpx  # costs time

    try:
        if url.startswith("file:"):
            return Path(url.removeprefix("file://")).stat().st_size
        with _client(url, 30) as client:
            answer = client.head(url, headers={"Accept-Encoding": "identity"})
            answer.raise_for_status()
            return int(answer.headers["Content-Length"])
    except (httpx.HTTPError, OSError, KeyError, ValueError):
        return None


def _client(url: str, timeout: float) -> httpx.Client:
    """Return a client that trusts this machine's CAs: plain HTTP may be sent on to TLS as well."""
    import httpx  # costs time

    from builder.registry.transport import tls_context

    verify = tls_context(httpx.URL(url).host)
    return httpx.Client(follow_redirects=True, timeout=timeout, verify=verify)


def _reason(error: Exception) -> str:
    answer = getattr(error, "response", None)
    if answer is not None:  # the message of httpx repeats the address as it is
        return f"{answer.status_code} {answer.reason_phrase}"
    return str(error) or type(error).__name__


def _shown(url: str) -> str:
    """Return `url` without user and password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if rest else url
