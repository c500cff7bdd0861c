"""httpx as registries are spoken to: whose certificates count, how slow and large answers may be.

httpx imports its command line (click, rich) and zstandard, and httpcore trio and anyio, wherever
they are installed: together longer than a push takes. Both do without where the import fails, which
is what None in sys.modules makes it do. Nothing asks for them here: no answer may be compressed,
and nothing is asynchronous. certifi is loaded when its bundle is asked for, which counts only for a
proxy that is spoken to by TLS.
"""

from __future__ import annotations

import ipaddress
import json
import os
import ssl
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urljoin, urlsplit

from builder.errors import BuilderError


def _where() -> str:
    import certifi

    return certifi.where()


_certifi = ModuleType("certifi")
_certifi.where = _where  # type: ignore[attr-defined]
_aside = {"anyio": None, "certifi": _certifi, "click": None, "trio": None, "zstandard": None}
_hidden = {name: module for name, module in _aside.items() if name not in sys.modules}
sys.modules.update(_hidden)  # type: ignore[arg-type]
try:
    import httpcore  # httpx imports it later, when trio is in sight again
    import httpx
finally:
    for _name in _hidden:
        del sys.modules[_name]

__all__ = [
    "LARGEST",
    "Answer",
    "DamagedError",
    "RegistryError",
    "Timing",
    "client",
    "httpx",
    "is_loopback",
    "join",
    "origin",
    "parse",
    "read",
    "shown",
    "tls_context",
]

# The most that a document (manifest, config, list of tags) may have: what registries take, by
# https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pushing-manifests.
LARGEST = 4 << 20
# Sent at once, so that a peer that takes bytes slowly is noticed between two of them.
_WRITE = 1 << 16


class RegistryError(BuilderError):
    """A registry refused, failed, or sent what its digest does not fit; `status` is its answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class DamagedError(RegistryError):
    """A registry sent what cannot be what was asked for; to ask again does not mend it."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient the client is.

    `stall` seconds without a byte, `tries` of a request, the first `pause` in seconds, and the
    `rate` in bytes a second that a transfer must reach once it has taken longer than `stall`: so a
    transfer of n bytes ends after `stall + n / rate` seconds at most.
    """

    stall: float = 30.0
    tries: int = 6
    pause: float = 0.25
    rate: float = 8192.0


def shown(text: object, limit: int = 300) -> str:
    """Return what a server said as it may be printed: no control characters, and cut."""
    said = str(text)
    cut = "…" if len(said) > limit else ""
    return "".join(c if c.isprintable() else "?" for c in said[:limit]) + cut


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that has been read: its status, headers and body; `url` is what was asked at last.

    `what` is the request in words, for messages.
    """

    status: int
    headers: httpx.Headers
    body: bytes
    url: str
    what: str

    def json(self) -> dict[str, Any]:
        """Return the body as the JSON object that it must be; raises RegistryError otherwise."""
        return parse(self.body, self.what)

    def location(self) -> str:
        """Return where to go on, as a whole address; raises RegistryError without a Location."""
        if not (found := self.headers.get("Location", "")):
            raise RegistryError(f"{self.what} answered {self.status} without saying where to go on")
        return join(self.url, found, self.what)

    def location_of(self, address: str) -> str:
        """Return an address of the answer as a whole one; raises RegistryError where it is none."""
        return join(self.url, address, self.what)


def parse(data: bytes, what: str) -> dict[str, Any]:
    """Return the JSON object in `data`; raises DamagedError that names `what` came with others."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        begins = shown(data[:40].decode("utf-8", "replace"))
        raise DamagedError(f"{what} came with something else than a JSON object: {begins!r}")
    return found


def join(base: str, address: str, what: str) -> str:
    """Return `address` as seen from `base`; raises RegistryError where it is none."""
    try:
        joined = urljoin(base, address)
        urlsplit(joined).port  # noqa: B018 - raises ValueError where it is no number
    except ValueError:
        raise RegistryError(f"{what} answered with the address {shown(address)!r}") from None
    return joined


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of an address: what may be given the same password."""
    parts = urlsplit(url)
    return (
        parts.scheme,
        parts.hostname or "",
        parts.port or (443 if parts.scheme == "https" else 80),
    )


def read(answer: httpx.Response, what: str, *, whole: bool = True) -> bytes:
    """Return the body of an answer; raises RegistryError where it is larger than a document.

    Without `whole`, as for an error that is only shown, such a body is cut instead.
    """
    pieces, size = [], 0
    try:
        if whole and answer.headers.get("Content-Encoding", "identity") != "identity":
            raise DamagedError(f"{what} answered with a compressed body, which was not asked for")
        for piece in answer.iter_raw():
            size += len(piece)
            if size > LARGEST and not whole:
                break
            if size > LARGEST:
                raise DamagedError(
                    f"{what} answered with more than {LARGEST >> 20} MiB, the most that a "
                    "document may have; it was not read"
                )
            pieces.append(piece)
    finally:
        answer.close()
    return b"".join(pieces)


def is_loopback(host: str) -> bool:
    """Tell whether `host[:port]` is this machine."""
    name = host.rsplit(":", 1)[0].strip("[]")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def tls_context(host: str, environ: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """Trust the system's CAs, or the bundle that the usual variables name, and Docker's for `host`.

    SSL_CERT_FILE, REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE are looked at in this order;
    `/etc/docker/certs.d/<host>/*.crt` is added as Docker does it. Raises BuilderError where a
    bundle cannot be read.
    """
    names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    bundle = next((environ[name] for name in names if environ.get(name)), None)
    try:
        context = ssl.create_default_context(cafile=bundle)
        for path in sorted(Path("/etc/docker/certs.d", host).glob("*.crt")):
            context.load_verify_locations(path)
    except OSError as error:
        raise BuilderError(
            f"the CA bundle {bundle or 'of Docker for ' + host} cannot be read ({error}); "
            "mend SSL_CERT_FILE or REQUESTS_CA_BUNDLE"
        ) from None
    return context


def client(timing: Timing, verify: ssl.SSLContext | bool, *, proxies: bool) -> httpx.Client:
    """Return a client whose connections end where the peer is slower than `timing` allows.

    With `proxies` those of the environment are used.
    """
    made = httpx.Client(
        timeout=httpx.Timeout(timing.stall, connect=min(10, timing.stall)),
        limits=httpx.Limits(max_connections=16),
        verify=verify,
        trust_env=proxies,
        headers={"Accept-Encoding": "identity"},
    )
    for transport in (made._transport, *made._mounts.values()):
        # httpx has no parameter for it; a test with a slow server notices where this changes.
        pool: Any = getattr(transport, "_pool", None)
        if pool is not None:
            pool._network_backend = _Backend(timing)
    return made


class _Backend(httpcore.SyncBackend):
    """TCP connections whose reads and writes are metered."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        stream = super().connect_tcp(host, port, timeout, local_address, socket_options)
        return _Metered(stream, self._timing)


class _Metered(httpcore.NetworkStream):
    """A connection that ends where the peer takes or gives bytes too slowly.

    Only the time spent waiting for the peer counts, from the last turn between sending and
    receiving on: a time limit for each read alone would let one byte a minute go on for ever.
    """

    def __init__(self, stream: httpcore.NetworkStream, timing: Timing) -> None:
        self._stream = stream
        self._timing = timing
        self._sending = True
        self._bytes, self._seconds = 0, 0.0

    @contextmanager
    def _metered(
        self, timeout: float | None, slow: type[httpcore.TimeoutException], *, sending: bool
    ) -> Iterator[float]:
        """Yield the seconds that one read or write may take, and count what it took."""
        if sending != self._sending:
            self._sending, self._bytes, self._seconds = sending, 0, 0.0
        left = self._timing.stall + self._bytes / self._timing.rate - self._seconds
        usual = self._timing.stall if timeout is None else timeout
        began = time.monotonic()
        try:
            yield max(0.001, min(usual, left))
        except slow:
            if left < usual and self._bytes:
                raise slow(f"slower than {self._timing.rate:g} bytes a second") from None
            raise
        finally:
            self._seconds += time.monotonic() - began

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with self._metered(timeout, httpcore.ReadTimeout, sending=False) as allowed:
            data = self._stream.read(max_bytes, allowed)
        self._bytes += len(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _WRITE):
            piece = buffer[start : start + _WRITE]
            with self._metered(timeout, httpcore.WriteTimeout, sending=True) as allowed:
                self._stream.write(piece, allowed)
            self._bytes += len(piece)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        return _Metered(self._stream.start_tls(ssl_context, server_hostname, timeout), self._timing)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
