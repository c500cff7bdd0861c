"""What holds for every request: limits of size, time and number; metrics, log, the call's id.

OpenFaaS' workload contract, which of-watchdog keeps for other functions: https://docs.openfaas.com/reference/workloads/.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from .service import LARGE, Service
from .settings import duration

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
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
        self._headers = Headers(scope=scope)
        self._began = time.perf_counter()
        self._size = 0
        self._large = False
        self._status = 0
        # Only what can stand in a header and in a line of a log.
        self._call = re.sub(r"[^\x21-\x7e]", "", self._headers.get("x-call-id", ""))[:128]

    async def answer(self, app: App) -> None:
        """Let `app` answer in time."""
        limit = time_limit(self._service.settings.exec_timeout, self._headers.get("x-timeout"))
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
        sender is too slow. Only few large bodies are held in memory at a time; the others wait.
        """
        settings = self._service.settings
        declared = self._headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > settings.max_body:
            raise HTTPException(413, f"the body is longer than {settings.max_body} bytes")
        left = max(0.0, settings.read_timeout - self._seconds()) if settings.read_timeout else None
        try:
            async with asyncio.timeout(left):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(
                408, f"the body did not arrive within {settings.read_timeout:g} s"
            ) from None
        self._size += len(message.get("body", b""))
        if self._size > settings.max_body:
            raise HTTPException(413, f"the body is longer than {settings.max_body} bytes")
        if self._size > LARGE and not self._large:
            await self._service.large.acquire()
            self._large = True
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer, with the contract's headers on its head."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Duration-Seconds"] = f"{self._seconds():.6f}"
            if self._call:
                headers["X-Call-Id"] = self._call
            if self._service.draining:
                headers["Connection"] = "close"  # the next request goes to another instance
        await self._send(message)

    def close(self) -> None:
        """Count and log the answer; what was never answered counts as 499, as nginx has it."""
        if self._large:
            self._service.large.release()
        seconds, method = self._seconds(), self._scope["method"]
        status = self._status or 499
        self._service.metrics.answered(method, status, seconds)
        call = f" call-id={self._call}" if self._call else ""
        line = f"{method} {self._scope['path']!a} {status} {seconds:.4f}s{call}\n"
        sys.stdout.write(line)

    def _seconds(self) -> float:
        return time.perf_counter() - self._began
