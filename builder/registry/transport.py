"""How requests reach a web server: by httpcore, metered, with this machine's CAs and proxies.

httpcore is the engine of httpx, which itself takes longer to import than a small push takes.
httpcore imports trio and anyio wherever they are installed, which takes longer still. It does
without where the import fails, which is what None in sys.modules makes it do: nothing is
asynchronous here. certifi is loaded when its bundle is asked for: never here, by httpx at times.
"""

from __future__ import annotations

import os
import ssl
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from builder.errors import BuilderError


def _where() -> str:
    import certifi

    return certifi.where()


_certifi = ModuleType("certifi")
_certifi.where = _where  # type: ignore[attr-defined]
_aside = {"anyio": None, "certifi": _certifi, "trio": None}
_hidden = {name: module for name, module in _aside.items() if name not in sys.modules}
sys.modules.update(_hidden)  # type: ignore[arg-type]
try:
    import httpcore
finally:
    for _name in _hidden:
        del sys.modules[_name]

__all__ = ["FAILURES", "Client", "Headers", "Response", "TimedOut", "Timing", "tls_context"]

# What a request without an answer raises, or an answer that breaks off.
FAILURES = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
)
TimedOut = httpcore.TimeoutException
# Sent at once, so that a peer that takes bytes slowly is noticed between two of them.
_WRITE = 1 << 16
# Characters of an address that stay as they are, a "%" too: an address may be quoted already.
_QUOTED = "%/:=&?~#+!$,;'@()*[]"
_CONNECTIONS, _IDLE = 16, 5.0


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


class Headers:
    """The headers of an answer; a name is found in any case."""

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            text = value.decode("utf-8", "replace")
            self._values.setdefault(name.decode("latin-1").lower(), []).append(text)

    def get(self, name: str, default: str = "") -> str:
        """Return a header; several of one name are joined as RFC 9110, section 5.3, has it."""
        values = self.get_list(name)
        return ", ".join(values) if values else default

    def get_list(self, name: str) -> list[str]:
        """Return every header of that name."""
        return self._values.get(name.lower(), [])


@dataclass(frozen=True, slots=True)
class Response:
    """An answer whose body is still to be read; `sent` are the headers of its request to `url`."""

    status: int
    reason: str
    headers: Headers
    url: str
    sent: Mapping[str, str]
    _answer: httpcore.Response

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it comes; raises one of FAILURES where it breaks off."""
        return iter(self._answer.iter_stream())

    def close(self) -> None:
        """End the answer; a connection is used again only where its answer was read."""
        self._answer.close()


class Client:
    """Connections, which end where the peer is slower than `timing` allows. Threads may share it.

    `host` is whose certificates of Docker count: see `tls_context`. With `proxies` those of the
    environment are used.
    """

    def __init__(self, host: str, timing: Timing, *, proxies: bool) -> None:
        self._host = host
        self._timing = timing
        self._proxies = proxies
        self._lock = threading.Lock()
        self._pools: dict[tuple[str, str], httpcore.ConnectionPool] = {}
        connect = min(10, timing.stall)
        limits = {"connect": connect, "read": timing.stall, "write": timing.stall}
        self._extensions = {"timeout": {**limits, "pool": timing.stall}}

    def send(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None = None
    ) -> Response:
        """Send a request and return the answer; a redirect is an answer as any other.

        Raises one of FAILURES, and BuilderError for a proxy or a CA bundle that cannot be used.
        """
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        sent = {"Host": host, "User-Agent": "plateline", "Accept": "*/*",
                "Accept-Encoding": "identity", **headers}  # fmt: skip
        if content is not None:
            sent["Content-Length"] = str(len(content))
        request = httpcore.Request(
            method,
            quote(url, safe=_QUOTED),
            headers=[(name.encode(), value.encode()) for name, value in sent.items()],
            # An answer keeps its request for long; an iterator that has ended keeps no bytes.
            content=None if content is None else iter((content,)),
            extensions=self._extensions,
        )
        del content
        try:
            answer = self._pool(parts.scheme, parts.hostname or "").handle_request(request)
        except UnicodeError:  # by the resolver, of "a..b"
            raise httpcore.ConnectError("no server can have that name") from None
        reason = answer.extensions.get("reason_phrase", b"").decode("ascii", "replace")
        return Response(answer.status, reason, Headers(answer.headers), url, sent, answer)

    def close(self) -> None:
        """End the connections."""
        for pool in self._pools.values():
            pool.close()

    def _pool(self, scheme: str, host: str) -> httpcore.ConnectionPool:
        proxy = _proxy(scheme, host) if self._proxies else ""
        with self._lock:
            if (scheme, proxy) not in self._pools:
                # To load the CAs takes longer than a request, so they are where they count only.
                secure = "https" in (scheme, proxy.partition(":")[0])
                trusted = tls_context(self._host) if secure else None
                self._pools[scheme, proxy] = httpcore.ConnectionPool(
                    ssl_context=trusted,
                    proxy=_login(proxy, trusted) if proxy else None,
                    max_connections=_CONNECTIONS,
                    keepalive_expiry=_IDLE,
                    network_backend=_Backend(self._timing),
                )
            return self._pools[scheme, proxy]


def _proxy(scheme: str, host: str) -> str:
    """Return the proxy that the environment names for a server, or nothing.

    Raises BuilderError for one that is spoken to in another way than HTTP.
    """
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return ""
    from urllib.request import getproxies, proxy_bypass  # costs time

    named = getproxies()
    proxy = named.get(scheme) or named.get("all", "")
    if not proxy or proxy_bypass(host):
        return ""
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    parts = urlsplit(proxy)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BuilderError(
            f"{host} cannot be reached by the proxy {parts.scheme}://{parts.hostname or ''}; name "
            f"one that is http or https in {scheme.upper()}_PROXY, or {host} in NO_PROXY"
        )
    return proxy


def _login(proxy: str, trusted: ssl.SSLContext | None) -> httpcore.Proxy:
    parts = urlsplit(proxy)
    known = parts.username or parts.password
    login = (unquote(parts.username or "").encode(), unquote(parts.password or "").encode())
    return httpcore.Proxy(
        proxy,
        auth=login if known else None,
        ssl_context=trusted if parts.scheme == "https" else None,
    )


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
