"""One HTTP connection: uvicorn's own, with a limit for a request's head, and JSON for bad ones."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LONGEST_HEAD = 64 << 10
MOST_SECONDS = 10.0


class Connection(HttpToolsProtocol):
    """httptools limits neither the length of a request's head nor the time it may take."""

    _head: int | None = 0  # bytes of the head that is coming, None while there is none
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a head from the start."""
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Count from the first byte of a head."""
        super().on_message_begin()
        self._expect()

    def on_headers_complete(self) -> None:
        """Count no more."""
        self._head = None
        self._stop_timer()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Parse, and refuse a head that has become too long."""
        super().data_received(data)
        if self._head is not None and not self.transport.is_closing():
            self._head += len(data)
            if self._head > LONGEST_HEAD:
                self.send_400_response(f"the request's head is longer than {LONGEST_HEAD} bytes")

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong as every other answer does, and close."""
        body = json.dumps({"error": msg}).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _expect(self) -> None:
        self._head = 0
        self._stop_timer()
        self._timer = self.loop.call_later(MOST_SECONDS, self._late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        transport: Any = self.transport
        if not transport.is_closing():
            transport.close()
