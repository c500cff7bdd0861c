"""One HTTP connection: uvicorn's own, with limits that it lacks, and JSON for bad requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sized
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

LONGEST_HEAD = 64 << 10
MOST_SECONDS = 10.0
REFUSED_SECONDS = (
    2.0  # s; how long what a refused peer still sends is read, so that it gets the answer
)


class _Flow(FlowControl):
    """Reads no more while requests wait that were sent before the last one's answer.

    uvicorn reads on after each answer, some thousand small requests at a time: without end.
    """

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """Read on, where nothing waits."""
        if not self._waiting:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """Limits a request's head, in length and time, what waits for answers, and their time.

    httptools has no limit of heads, uvicorn none of requests sent ahead, and ASGI no way to end a
    connection whose peer does not read.
    """

    write_timeout = 0.0  # seconds, 0 for none
    _head: int | None = 0  # bytes of the head that is coming, None while there is none
    _timer: asyncio.TimerHandle | None = None
    _writing: asyncio.TimerHandle | None = None
    _ended = False  # whether a request ended in the bytes that came last
    _refused = False  # whether what comes is not looked at any more
    _answering: RequestResponseCycle | None = None  # or answered last

    @classmethod
    def within(cls, write_timeout: float) -> type[Connection]:
        """Return the class of connections that are cut when nothing was read for so long."""
        return type(cls.__name__, (cls,), {"write_timeout": write_timeout})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a head from the start."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers and the requests that wait."""
        self._stop_timer()
        self.resume_writing()
        self.pipeline.clear()
        if self._answering is not None:  # uvicorn tells only the request that came last
            self._answering.disconnected = True
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

    def on_message_complete(self) -> None:
        """Note that the head of the next request does not begin where the bytes begin."""
        self._ended = True
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Parse, and refuse a head that has become too long."""
        if self._refused:
            return
        self._ended = False
        super().data_received(data)
        if self._refused or self.transport.is_closing():
            return
        if self._head is not None and not self._ended:
            self._head += len(data)
            if self._head > LONGEST_HEAD:
                self.send_400_response(f"the request's head is longer than {LONGEST_HEAD} bytes")

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong as every other answer does, and close.

        What still comes is read for a moment: with bytes unread the connection would be reset,
        and the answer lost on its way. Not so where earlier requests on it wait for theirs.
        """
        self._refused = True
        body = json.dumps({"error": msg}).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        if self._answering is not None and not self._answering.response_complete:
            self.transport.close()  # requests that came before are answered no more
            return
        self.transport.write_eof()
        self._stop_timer()
        self._timer = self.loop.call_later(REFUSED_SECONDS, self.transport.close)

    def pause_writing(self) -> None:
        """Wait for the peer to read, but not for ever."""
        super().pause_writing()
        if self.write_timeout and self._writing is None:
            self._writing = self.loop.call_later(self.write_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """Wait no more."""
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        super().resume_writing()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

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
        if self.flow.read_paused:  # what is missing may have come: it is not read yet
            self._timer = self.loop.call_later(MOST_SECONDS, self._late)
        elif not transport.is_closing():
            transport.close()
