"""Requests to one registry: TLS, logging in, redirects, and trying again where that can help.

Whatever a registry answers is bounded: the size of a document, the number of redirects, the time of
a transfer (`Timing`). What it says is printed without control characters, and cut.
"""

from __future__ import annotations

import json
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlencode, urlsplit

from builder.oci import numbers
from builder.oci.reference import api_host
from builder.registry.authentication import Login
from builder.registry.http import (
    Answer,
    RegistryError,
    is_loopback,
    join,
    origin,
    read,
    shown,
)
from builder.registry.transport import FAILURES, Client, Response, TimedOut, Timing

__all__ = ["BLOB", "TRANSIENT", "Answer", "Connection", "RegistryError", "Timing", "is_loopback"]

_LONGEST_WAIT = 30.0
_REDIRECTS = 5
# A redirect by one of the first is followed without a body, by the others with the same body.
_REDIRECT = {"GET": (301, 302, 303, 307, 308), "HEAD": (301, 302, 303, 307, 308)}
_REDIRECT_BODY = (307, 308)
# Seconds after which the user is told what is being waited for.
_PATIENCE = 1.5
# The type of a body that is a blob, or a piece of one.
BLOB = "application/octet-stream"
TRANSIENT = {408, 429, 500, 502, 503, 504}
Body = Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class _Call:
    """A request to be sent: see `Connection.request`."""

    method: str
    path: str
    scope: str
    expect: tuple[int, ...]
    headers: Mapping[str, str]
    content: Body | None
    params: Mapping[str, str] | None


class Connection:
    """Requests to one registry, with its authentication and retries. Threads may share it.

    Plain HTTP is spoken to loopback only, unless `insecure` is true. `notice` is told in one line
    what is waited for, where that takes longer than a moment. `docker_config` is the file with
    the credentials.
    """

    def __init__(
        self,
        host: str,
        *,
        insecure: bool = False,
        timing: Timing | None = None,
        docker_config: Path | None = None,
        notice: Callable[[str], object] | None = None,
    ) -> None:
        self.host = host
        self.insecure = insecure
        self.requests = 0
        self.timing = timing or Timing()
        self._address = api_host(host)
        self._plain = insecure or is_loopback(host)
        self._login = Login(host, docker_config, plain=self._plain)
        self._notice = notice
        self._noticed: dict[str, float] = {}
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._base = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connections."""
        if self._client is not None:
            self._client.close()

    def _connect(self) -> Client:
        with self._lock:
            if self._client is None:
                scheme = "https"
                if self._plain and not self._speaks_tls():
                    scheme = "http"
                self._base = f"{scheme}://{self._address}/v2/"
                self._client = Client(
                    self._address, self.timing, proxies=not is_loopback(self._address)
                )
            return self._client

    def _speaks_tls(self) -> bool:
        """Shake hands, to tell whether a registry that may speak plain HTTP wants TLS all the same.

        Nothing is sent and nothing trusted: the real connection checks the certificate.
        """
        parts = urlsplit(f"//{self._address}")
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
        content: Body | None = None,
        params: Mapping[str, str] | None = None,
        tries: int | None = None,
    ) -> Answer:
        """Send a request, again where that can help, and return the answer with its body read.

        `scope` is the token scope it needs (`repository:NAME:pull,push`); `expect` the status codes
        that are answers. Raises RegistryError, which names host, request and cause; its `status`
        is that of the answer, None without one.
        """
        call = _Call(method, path, scope, expect, headers or {}, content, params)
        answer = self._try(call, tries or self.timing.tries, whole=True)
        assert isinstance(answer, Answer)
        return answer

    @contextmanager
    def send(
        self,
        method: str,
        path: str,
        *,
        scope: str,
        expect: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Response]:
        """Send a request as `request` does and yield the answer with its body still to be read."""
        call = _Call(method, path, scope, expect, headers or {}, None, None)
        answer = self._try(call, self.timing.tries, whole=False)
        assert isinstance(answer, Response)
        try:
            yield answer
        finally:
            answer.close()

    def _try(self, call: _Call, left: int, *, whole: bool) -> Answer | Response:
        session = self._connect()
        url = join(self._base, call.path, f"{call.method} at {self.host}")
        what = f"{call.method} {shown(urlsplit(url).path)} at {self.host}"
        began, pause = time.monotonic(), self.timing.pause
        tried: set[str] = set()
        while True:
            left -= 1
            wait = pause * (1 + random.random() / 2)  # noqa: S311 - spreads retries, no secret
            try:
                with self._patience(call):
                    answer, asked = self._follow(session, call, url, what)
                    known = answer.status in call.expect
                    if known and not whole:
                        return answer
                    body = read(answer, what, whole=known)
                if known:
                    return Answer(answer.status, answer.headers, body, asked, what)
                first = not tried
                if answer.status == 401 and (self._let_in(answer, call.scope, tried) or first):
                    tried.add("")  # a 401 that offers nothing may be an accident, once
                    left += 1
                    continue
                error = self._refused(what, answer, body)
                if answer.status not in TRANSIENT:
                    raise error
                if after := answer.headers.get("Retry-After", ""):
                    seconds = numbers.whole(after)
                    wait = wait if seconds is None else min(seconds, _LONGEST_WAIT)
            except FAILURES as cause:
                error = self.unreachable(what, cause)
            if left <= 0:
                raise error
            self._tell(error, time.monotonic() - began + wait, left)
            time.sleep(wait)
            pause = min(pause * 2, _LONGEST_WAIT)

    def _follow(self, session: Client, call: _Call, url: str, what: str) -> tuple[Response, str]:
        """Send a request and go where the answer points, a few times; return it and its address."""
        if call.params:
            url = f"{url}?{urlencode(call.params)}"
        for _ in range(_REDIRECTS + 1):
            with self._lock:
                self.requests += 1
            answer = session.send(
                call.method,
                url,
                {**call.headers, **self._authorization(url, call.scope)},
                call.content() if call.content else None,
            )
            follow = answer.status in _REDIRECT.get(call.method, _REDIRECT_BODY)
            target = answer.headers.get("Location", "")
            if answer.status in call.expect or not (follow and target):
                return answer, url
            answer.close()
            url = self._allowed(url, target, what)
        raise RegistryError(f"{what} was sent on more than {_REDIRECTS} times; it was given up")

    def _allowed(self, url: str, target: str, what: str) -> str:
        """Return where a redirect leads; raises RegistryError where no client should go."""
        address = join(url, target, what)
        before, after = urlsplit(url), urlsplit(address)
        if after.scheme not in ("http", "https") or not after.hostname:
            reason = "which is no address of a web server"
        elif (before.scheme, after.scheme) == ("https", "http"):
            reason = "which is not https"
        elif is_loopback(after.hostname) and not is_loopback(self._address):
            reason = "which is this machine"
        else:
            return address
        raise RegistryError(f"{what} was sent on to {shown(address)!r}, {reason}; it was given up")

    @contextmanager
    def _patience(self, call: _Call) -> Iterator[None]:
        """Tell the user what is waited for, if the answer takes long."""
        # Who sends a blob says how far it is.
        if self._notice is None or call.headers.get("Content-Type") == BLOB:
            yield
            return
        timer = threading.Timer(_PATIENCE, self._say, [f"waiting for {self.host}"])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _tell(self, error: RegistryError, seconds: float, left: int) -> None:
        if seconds > _PATIENCE / 2:
            reason = str(error).partition(f" at {self.host} ")[2].partition("; ")[0]
            self._say(f"{self.host}: {reason}; trying again, {left} more times at most")

    def _say(self, line: str) -> None:
        """Say a line unless it was said just now, as threads that wait together would."""
        if self._notice is None:
            return
        with self._lock:
            now, before = time.monotonic(), self._noticed.get(line, -_LONGEST_WAIT)
            if now - before < _LONGEST_WAIT / 3:
                return
            self._noticed[line] = now
        self._notice(line)

    def unreachable(self, what: str, cause: Exception) -> RegistryError:
        """Return the error that says that the request `what` failed without an answer."""
        reason = shown(cause) or type(cause).__name__
        if isinstance(cause, TimedOut) and "slower" not in reason:
            reason = f"no byte for {self.timing.stall:g} s"
        hint = "check that the registry runs and the name is right"
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            hint = "name the CA's file in SSL_CERT_FILE"
        return RegistryError(f"{what} failed ({reason}); {hint}")

    def _refused(self, what: str, answer: Response, body: bytes) -> RegistryError:
        try:
            entries = json.loads(body)["errors"]
            messages = [str(entry.get("message") or entry.get("code")) for entry in entries[:5]]
            reason = shown("; ".join(messages))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            reason = shown(answer.reason)
        hint = {
            401: f"; run `docker login {self.host}`",
            403: f"; the user that `docker login {self.host}` knows lacks the right",
            429: "; the registry limits requests, try again later",
        }.get(answer.status, "")
        if self._login.withheld and answer.status in (401, 403):
            hint = self._login.hint()
        return RegistryError(f"{what} answered {answer.status} ({reason}){hint}", answer.status)

    def _authorization(self, url: str, scope: str) -> dict[str, str]:
        return self._login.header(scope) if origin(url) == origin(self._base) else {}

    def _let_in(self, answer: Response, scope: str, tried: set[str]) -> bool:
        """Answer a 401 as `Login.meet` does; no other origin than the registry's own gets one."""
        if origin(answer.url) != origin(self._base):
            return False
        sent = answer.sent.get("Authorization", "")
        offered = answer.headers.get_list("WWW-Authenticate")
        own = urlsplit(self._base).hostname or ""
        return self._login.meet(offered, sent, scope, tried, own, self._ask_token)

    def _ask_token(
        self, realm: str, query: list[tuple[str, str]], form: dict[str, str], header: dict[str, str]
    ) -> tuple[int, bytes]:
        """Ask a token server; redirects are not followed, since they would take the password on."""
        session = self._connect()
        with self._lock:
            self.requests += 1
        content, method = None, "GET"
        if form:
            method, content = "POST", urlencode(form).encode()
            header = {**header, "Content-Type": "application/x-www-form-urlencoded"}
        elif query:
            realm = realm.partition("#")[0]
            realm += ("&" if "?" in realm else "?") + urlencode(query)
        what = f"the token server of {self.host}"
        try:
            answer = session.send(method, realm, header, content)
            return answer.status, read(answer, what)
        except FAILURES as error:
            raise RegistryError(f"{what} did not answer ({type(error).__name__})") from None
