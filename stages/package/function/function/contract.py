"""What holds for every request: limits of size, time and number; metrics, log, the call's id.

OpenFaaS' workload contract, which of-watchdog keeps for other functions: https://docs.openfaas.com/reference/workloads/.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from .bodies import Body, Message, TooSlowError
from .service import Service
from .settings import duration

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
# An answer that comes before a body of up to so many bytes keeps the connection for the next.
SHORT = 1 << 20
_UNPRINTABLE = re.compile(rb"[^\x21-\x7e]")
App = Callable[[Message, Receive, Send], Awaitable[None]]


def refusal(status: int, reason: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return an error answer; every one of them looks like this."""
    return JSONResponse({"error": reason}, status, headers)


def time_limit(exec_timeout: float, asked: str | None) -> float | None:
    """Return the seconds a request may take: `exec_timeout`, or X-Timeout where it is shorter.

    As in of-watchdog, a value that is no duration, or not positive, changes nothing.
    """
    limit = exec_timeout or None
    try:
        wanted = duration(asked) if asked else 0.0
    except ValueError:
        return limit
    return min(wanted, limit or wanted) if wanted else limit


def call_id(header: bytes) -> bytes:
    """Return X-Call-Id, of it only what can stand in a header and in a line of a log."""
    return _UNPRINTABLE.sub(b"", header)[:128]


class Contract:
    """Wraps the application; what is below `/_/` is answered in any case and not counted."""

    def __init__(self, app: App, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"].startswith("/_/"):
            await self._app(scope, receive, send)
            return
        service = self._service
        request = _Request(service, scope, receive, send)
        service.metrics.in_flight.inc()
        try:
            if scope["method"] != "POST":  # only what infers is limited in number
                await request.answer(self._app)
            elif not service.healthy and not service.draining:
                again = {"Retry-After": "1"}
                await request.refuse(503, "the models are still being loaded", again)
            elif service.full:
                most = service.settings.max_inflight
                await request.refuse(
                    429, f"{most} requests are being answered, which is max_inflight",
                    {"Retry-After": "1"},
                )  # fmt: skip
            else:
                service.in_flight += 1
                try:
                    await request.answer(self._app)
                finally:
                    service.in_flight -= 1
        finally:
            service.metrics.in_flight.dec()
            request.close()


class _Request:
    """One request on its way: counts what comes in, and watches what goes out."""

    def __init__(self, service: Service, scope: Message, receive: Receive, send: Send) -> None:
        self._service = service
        self._scope = scope
        self._receive = receive
        self._send = send
        # The first of a name counts, as everywhere in Starlette.
        self._fields: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        self._began = time.perf_counter()
        self._body = Body(service.bodies)
        declared = self._fields.get(b"content-length", b"0")
        self._length = int(declared) if declared.isdigit() else 0  # the parser took no other
        self._more = self._length > 0 or b"transfer-encoding" in self._fields
        self._status = 0
        self._call = call_id(self._fields.get(b"x-call-id", b""))

    async def answer(self, app: App) -> None:
        """Let `app` answer in time."""
        asked = self._fields.get(b"x-timeout", b"").decode("latin-1")
        limit = time_limit(self._service.settings.exec_timeout, asked)
        try:
            async with asyncio.timeout(limit):
                await app(self._scope, self.receive, self.send)
        except TimeoutError:
            if self._status:
                raise  # too late to say it: the connection is closed
            await self.refuse(504, f"this took longer than {limit:g} s, the time limit")

    async def refuse(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        """Answer with an error."""
        await refusal(status, reason, headers)(self._scope, self._receive, self.send)

    async def receive(self) -> Message:
        """Return the next part of the body.

        Raises HTTPException 413 once the body is too long, whatever it declared, and 408 where its
        sender is too slow, 503 where that was needed to make room for others.
        """
        settings = self._service.settings
        if self._length > settings.max_body:
            raise HTTPException(413, f"the body is longer than {settings.max_body} bytes")
        left = max(0.0, settings.read_timeout - self._seconds()) if settings.read_timeout else None
        try:
            message = await self._body.read(self._receive, left)
        except TooSlowError as error:
            again = {"Retry-After": "1"} if error.status == 503 else None
            raise HTTPException(error.status, str(error), again) from None
        if self._body.size > settings.max_body:
            raise HTTPException(413, f"the body is longer than {settings.max_body} bytes")
        self._more = message.get("more_body", False)
        await self._body.hold(len(message.get("body", b"")))
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer, with the contract's headers on its head."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            seconds = b"%.6f" % self._seconds()
            headers = [*message["headers"], (b"x-duration-seconds", seconds)]
            if self._call:
                headers.append((b"x-call-id", self._call))
            # While draining, the next request goes to another instance.
            if self._service.draining or self._gives_up():
                headers.append((b"connection", b"close"))
            message["headers"] = headers
        await self._send(message)

    def _gives_up(self) -> bool:
        """Return whether the rest of the body is not worth reading, or may never come."""
        return self._more and (
            self._status in (408, 413) or not 0 < self._length <= SHORT or b"expect" in self._fields
        )

    def close(self) -> None:
        """Count and log the answer; what was never answered counts as 499, as nginx has it."""
        self._body.close()
        seconds, method = self._seconds(), self._scope["method"]
        status = self._status or 499
        self._service.metrics.answered(method, status, seconds)
        call = f" call-id={self._call.decode()}" if self._call else ""
        line = f"{method} {self._scope['path']!a} {status} {seconds:.4f}s{call}\n"
        sys.stdout.write(line)

    def _seconds(self) -> float:
        return time.perf_counter() - self._began
