"""Requests to one registry: TLS, authentication, and trying again where that can help.

Source of the token exchange: https://distribution.github.io/distribution/spec/auth/token/.
"""

from __future__ import annotations

import ipaddress
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urljoin, urlsplit

from builder.errors import BuilderError
from builder.registry import credentials
from builder.registry.http import httpx, tls_context

_LONGEST_WAIT = 30.0
TRANSIENT = {408, 429, 500, 502, 503, 504}


class RegistryError(BuilderError):
    """A registry refused, failed, or sent what its digest does not fit."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient the client is: seconds without a byte, tries a request, first pause."""

    stall: float = 30.0
    tries: int = 6
    pause: float = 0.25


def is_loopback(host: str) -> bool:
    """Tell whether `host[:port]` is this machine."""
    name = host.rsplit(":", 1)[0].strip("[]")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Connection:
    """Requests to one registry, with its authentication and retries. Threads may share it.

    Plain HTTP is spoken to loopback only, unless `insecure` is true.
    """

    def __init__(
        self,
        host: str,
        *,
        insecure: bool = False,
        timing: Timing | None = None,
        docker_config: Path | None = None,
    ) -> None:
        self.host = host
        self.insecure = insecure
        self.requests = 0
        self.timing = timing or Timing()
        self._plain = insecure or is_loopback(host)
        self._docker_config = docker_config
        self._lock = threading.Lock()
        self._authorization: dict[str, str] = {}
        self._client: httpx.Client | None = None
        self._base = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connections."""
        if self._client is not None:
            self._client.close()

    def _connect(self) -> httpx.Client:
        with self._lock:
            if self._client is None:
                scheme = "https"
                if self._plain and not self._speaks_tls():
                    scheme = "http"
                self._base = f"{scheme}://{self.host}/v2/"
                self._client = httpx.Client(
                    timeout=httpx.Timeout(self.timing.stall, connect=min(10, self.timing.stall)),
                    limits=httpx.Limits(max_connections=16),
                    verify=tls_context(self.host) if scheme == "https" else False,
                    trust_env=not is_loopback(self.host),
                )
            return self._client

    def _speaks_tls(self) -> bool:
        """Shake hands, to tell whether a registry that may speak plain HTTP wants TLS all the same.

        Nothing is sent and nothing trusted: the real connection checks the certificate.
        """
        parts = urlsplit(f"//{self.host}")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            address = (parts.hostname or "", parts.port or 443)
            with socket.create_connection(address, timeout=2) as plain:
                context.wrap_socket(plain, server_hostname=parts.hostname).close()
        except OSError:
            return False
        return True

    def request(
        self,
        method: str,
        path: str,
        *,
        scope: str,
        expect: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
        content: Callable[[], bytes | Iterator[bytes]] | None = None,
        params: Mapping[str, str] | None = None,
        tries: int | None = None,
    ) -> httpx.Response:
        """Send a request, again where that can help, and return the answer with its body read.

        `scope` is the token scope it needs (`repository:NAME:pull,push`); `expect` the status codes
        that are answers. Raises RegistryError, which names host, request and cause.
        """
        return self._answer(
            method,
            path,
            scope=scope,
            expect=expect,
            headers=headers,
            content=content,
            params=params,
            tries=tries,
            read=True,
        )

    @contextmanager
    def send(
        self,
        method: str,
        path: str,
        *,
        scope: str,
        expect: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
        content: Callable[[], bytes | Iterator[bytes]] | None = None,
        params: Mapping[str, str] | None = None,
        tries: int | None = None,
    ) -> Iterator[httpx.Response]:
        """Send a request as `request` does and yield the answer with its body still to be read."""
        answer = self._answer(
            method,
            path,
            scope=scope,
            expect=expect,
            headers=headers,
            content=content,
            params=params,
            tries=tries,
            read=False,
        )
        try:
            yield answer
        finally:
            answer.close()

    def _answer(
        self,
        method: str,
        path: str,
        *,
        scope: str,
        expect: tuple[int, ...],
        headers: Mapping[str, str] | None,
        content: Callable[[], bytes | Iterator[bytes]] | None,
        params: Mapping[str, str] | None,
        tries: int | None,
        read: bool,
    ) -> httpx.Response:
        client = self._connect()
        url = urljoin(self._base, path)
        what = f"{method} {urlsplit(url).path} at {self.host}"
        left, asked, pause = tries or self.timing.tries, False, self.timing.pause
        while True:
            left -= 1
            wait = pause * (1 + random.random() / 2)  # noqa: S311 - spreads retries, no secret
            try:
                self.requests += 1
                body = content() if content else None
                sizes = {"Content-Length": str(len(body))} if isinstance(body, bytes) else {}
                request = client.build_request(
                    method,
                    url,
                    headers={**(headers or {}), **sizes, **self._authorize(url, scope)},
                    # httpx's answers refer to themselves and so keep their request for long;
                    # an iterator that has ended keeps no bytes.
                    content=iter((body,)) if isinstance(body, bytes) else body,
                    params=params,
                )
                del body
                answer = client.send(request, stream=True)
                while answer.is_redirect and answer.next_request and method in ("GET", "HEAD"):
                    # httpx drops the Authorization header where the redirect leaves the host.
                    following = answer.next_request
                    answer.close()
                    answer = client.send(following, stream=True)
                known = answer.status_code in expect
                if known and not read:
                    return answer
                try:
                    answer.read()
                finally:
                    answer.close()
                if known:
                    return answer
                if answer.status_code == 401 and not asked:
                    asked = True
                    left += 1
                    self._log_in(answer, scope)
                    continue
                error = self._refused(what, answer)
                if answer.status_code not in TRANSIENT:
                    raise error
                if after := answer.headers.get("Retry-After", ""):
                    wait = min(float(after) if after.isdigit() else wait, _LONGEST_WAIT)
            except httpx.TransportError as cause:
                error = self.unreachable(what, cause)
            if left <= 0:
                raise error
            time.sleep(wait)
            pause = min(pause * 2, _LONGEST_WAIT)

    def unreachable(self, what: str, cause: httpx.TransportError) -> RegistryError:
        reason = str(cause) or type(cause).__name__
        if isinstance(cause, httpx.TimeoutException):
            reason = f"no byte for {self.timing.stall:g} s"
        hint = "check that the registry runs and the name is right"
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            hint = "name the CA's file in SSL_CERT_FILE"
        return RegistryError(f"{what} failed ({reason}); {hint}")

    def _refused(self, what: str, answer: httpx.Response) -> RegistryError:
        try:
            entries = answer.json()["errors"]
            reason = "; ".join(str(entry.get("message") or entry.get("code")) for entry in entries)
        except (ValueError, KeyError, TypeError, AttributeError):
            reason = answer.reason_phrase
        hint = {
            401: f"; run `docker login {self.host}`",
            403: f"; the user that `docker login {self.host}` knows lacks the right",
            429: "; the registry limits requests, try again later",
        }.get(answer.status_code, "")
        return RegistryError(
            f"{what} answered {answer.status_code} ({reason}){hint}", answer.status_code
        )

    # -- authentication ---------------------------------------------------------------------------

    def _authorize(self, url: str, scope: str) -> dict[str, str]:
        if urlsplit(url).netloc != self.host:
            return {}
        value = self._authorization.get(scope) or self._authorization.get("")
        return {"Authorization": value} if value else {}

    def _log_in(self, answer: httpx.Response, scope: str) -> None:
        """Answer a 401: Basic with the Docker config's credentials, or a token for `scope`."""
        challenge = answer.headers.get("WWW-Authenticate", "")
        found = credentials.find(self.host, self._docker_config)
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and found:
            self._authorization[""] = found.basic()
        elif scheme.lower() == "bearer":
            fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
            self._authorization[scope] = "Bearer " + self._token(fields, scope, found)

    def _token(
        self, fields: Mapping[str, str], scope: str, found: credentials.Credentials | None
    ) -> str:
        realm = fields.get("realm", "")
        parts = urlsplit(realm)
        if parts.scheme != "https" and not (self._plain and is_loopback(parts.netloc)):
            raise RegistryError(
                f"{self.host} sends clients for a token to {realm!r}, which is not https; "
                "credentials are not sent there"
            )
        scopes = scope.split(" ")
        service = fields.get("service", "")
        client = self._connect()
        self.requests += 1
        try:
            if found and found.identity_token:
                answer = client.post(
                    realm,
                    data={
                        "grant_type": "refresh_token",
                        "refresh_token": found.identity_token,
                        "service": service,
                        "scope": scope,
                        "client_id": "plateline",
                    },
                )
            else:
                headers = {"Authorization": found.basic()} if found else {}
                query: list[tuple[str, str | int | float | bool | None]] = [("service", service)]
                query += [("scope", entry) for entry in scopes]
                answer = client.get(realm, params=query, headers=headers)
        except httpx.TransportError as error:
            raise RegistryError(
                f"the token server of {self.host} did not answer ({type(error).__name__})"
            ) from None
        try:
            document = answer.json()
            token = document.get("token") or document.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if answer.status_code != 200 or not token:
            raise RegistryError(
                f"the token server of {self.host} refused {scope} with {answer.status_code}; "
                f"run `docker login {self.host}`",
                answer.status_code,
            )
        return str(token)
