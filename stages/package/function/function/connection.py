"""One HTTP connection: uvicorn's own, with limits that it lacks, and JSON for bad requests."""

from __future__ import annotations

import asyncio
import http
import json
from collections.abc import Callable, Sized
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from . import head
from .head import RefusedError

MOST_SECONDS = 10.0  # for a head
# What a peer still sends after the last answer is read and thrown away: with bytes unread the
# connection would be reset, and the answer lost on its way. It ends where nothing came for QUIET.
LINGER_SECONDS = 30.0
QUIET_SECONDS = 2.0


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


class _Answers:
    """The side of a transport that uvicorn writes answers to; it closes when the peer has them."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport = transport
        self.write = transport.write
        self.close = close
        self.lingering = False

    def is_closing(self) -> bool:
        """Return whether no more can be answered."""
        return self.lingering or self._transport.is_closing()


class Connection(HttpToolsProtocol):
    """Limits a request's head, in length and time, what waits for answers, and their time.

    httptools has no limit of heads, and takes what follows an offer to upgrade for another
    protocol; uvicorn has no limit of requests sent ahead, and resets a peer that is still writing
    when it was answered; and ASGI has no way to end a connection whose peer does not read.
    """

    write_timeout = 0.0  # seconds, 0 for none
    parser: Any
    _raw: asyncio.Transport  # what `transport` stands before
    _answers: _Answers  # `transport`
    _in_head = True
    _in_body = False
    _size = 0  # bytes of the head and the trailers, as parsed
    _beside = 0  # bytes received beside the body, those of an unfinished head too
    _body = 0  # bytes of the body
    _passed = False  # whether a head or a request ended in the bytes that came last
    _refused = False  # whether what comes is not looked at any more
    _again: bytes | None = None  # a head to be read once more, without its offer to upgrade
    _timer: asyncio.TimerHandle | None = None
    _writing: asyncio.TimerHandle | None = None
    _heard = 0.0  # when something came last, on the loop's clock
    _answering: RequestResponseCycle | None = None  # or answered last

    @classmethod
    def within(cls, write_timeout: float) -> type[Connection]:
        """Return the class of connections that are cut when nothing was read for so long."""
        return type(cls.__name__, (cls,), {"write_timeout": write_timeout})

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Expect a head from the start."""
        super().connection_made(transport)
        self._raw = transport
        self._answers = _Answers(transport, self._close)
        self.transport = self._answers
        self.flow = _Flow(transport, self.pipeline)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers and the requests that wait."""
        self._stop_timer()
        self.resume_writing()
        self._answers.lingering = True
        self.pipeline.clear()
        if self._answering is not None:  # uvicorn tells only the request that came last
            self._answering.disconnected = True
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and refuse what is no HTTP or too much of it."""
        if self._refused or self.transport.is_closing():
            self._heard = self.loop.time()
            return
        self._unset_keepalive_if_required()
        self._passed = False
        body = self._body
        try:
            self._parse(data)
            if self._passed:  # where in the bytes is not known
                self._beside = 0
            else:
                self._beside += len(data) - (self._body - body)
                # Chunks may be as small as what frames them, but not smaller.
                if self._beside > head.LONGEST + self._body:
                    raise head.too_long()
        except httptools.HttpParserError as error:
            cause = error.__context__
            if not isinstance(cause, RefusedError):
                cause = RefusedError(400, f"the request is no HTTP/1.1 ({error})")
            self._refuse(cause)
        except RefusedError as error:
            self._refuse(error)
        else:
            if not self._in_head and not self._in_body and self._idle():
                self._expect()  # empty lines, or a body's end, must not keep it open

    def _parse(self, data: bytes) -> None:
        rest: bytes | memoryview = data
        while rest:
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                rest = memoryview(rest)[upgrade.args[0] :]
            else:
                return
            parsed, self._again = self._again, None
            if parsed is None:
                raise RefusedError(400, "the request offers an upgrade that cannot be ignored")
            self.parser = httptools.HttpRequestParser(self)
            self.parser.feed_data(parsed)

    def on_message_begin(self) -> None:
        """Count from the first byte of a head."""
        super().on_message_begin()
        self._size = 0
        self._expect()

    def on_url(self, url: bytes) -> None:
        """Count its bytes."""
        self._size += len(url)
        if self._size > head.LONGEST:
            raise head.too_long()
        self.url += url  # all that uvicorn does; a call for each part of a head costs more

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count its bytes, and keep it unless it comes after the body."""
        self._size += len(name) + len(value) + 4  # ": " and the line's end
        if self._size > head.LONGEST:
            raise head.too_long()
        if not self._in_body:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))
            if len(self.headers) > head.MOST_FIELDS:
                raise RefusedError(431, f"the request has more than {head.MOST_FIELDS} headers")

    def on_headers_complete(self) -> None:
        """Begin to answer, unless the head is refused, or must be read without its upgrade."""
        self._in_head = False
        self._passed = True
        self._stop_timer()
        version = self.parser.get_http_version()
        if self.parser.should_upgrade():
            method = self.parser.get_method()
            self._again = head.without_upgrade(method, self.url, version, self.headers)
            return
        head.check(version, self.headers)
        if version == "1.0":
            self.expect_100_continue = False  # RFC 9110, 10.1.1
        super().on_headers_complete()
        self._in_body = True

    def on_body(self, body: bytes) -> None:
        """Count its bytes."""
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Count anew, unless the request is read once more."""
        if self._again is not None:
            return
        self._passed = True
        self._in_body = False
        self._body = 0
        self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Read the rest of a body that was not needed, but not for ever."""
        super().on_response_complete()
        if self._in_body and self._idle():
            self._stop_timer()
            self._timer = self.loop.call_later(QUIET_SECONDS, self._close)

    def pause_writing(self) -> None:
        """Wait for the peer to read, but not for ever."""
        super().pause_writing()
        if self.write_timeout and self._writing is None:
            self._writing = self.loop.call_later(self.write_timeout, self._raw.abort)

    def resume_writing(self) -> None:
        """Wait no more."""
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        super().resume_writing()

    def shutdown(self) -> None:
        """End after the answers that are due; what is only read to be thrown away is not."""
        if self.transport.is_closing():
            self._raw.close()
        else:
            super().shutdown()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _refuse(self, error: RefusedError) -> None:
        """Say what is wrong as every other answer does, and close.

        Requests that came whole before this one are answered, and this one then is not: its answer
        would be taken for theirs.
        """
        broken = self.cycle if self._in_body else None
        if self._ends_with_those_before(broken):
            return
        if broken is None or not broken.response_started:
            body = json.dumps({"error": str(error)}).encode()
            lines = (
                f"HTTP/1.1 {error.status} {http.HTTPStatus(error.status).phrase}\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
                "connection: close\r\n\r\n"
            )
            self.transport.write(lines.encode() + body)
        if broken is not None:
            broken.disconnected = True
            broken.message_event.set()
        self._close()

    def _ends_with_those_before(self, broken: RequestResponseCycle | None) -> bool:
        """Look at nothing that comes, and return whether whole requests wait for answers."""
        self._refused = True
        self._stop_timer()
        if self.pipeline and self.pipeline[0][0] is broken:
            self.pipeline.popleft()
        before = self.pipeline[0][0] if self.pipeline else self._answering
        if before is None or before is broken or before.response_complete:
            return False
        before.keep_alive = False  # it is the last
        return True

    def _close(self) -> None:
        """Close once the peer has read its answer, where it may be writing still."""
        if self.transport.is_closing():
            return
        if not (self._refused or self._in_body or self.flow.read_paused):
            self._raw.close()
            return
        self._answers.lingering = True
        self._stop_timer()
        self._raw.write_eof()
        self._raw.resume_reading()
        self._heard = self.loop.time()
        self._linger(self._heard + LINGER_SECONDS)

    def _linger(self, end: float) -> None:
        now = self.loop.time()
        if now < end and now - self._heard < QUIET_SECONDS:
            self._timer = self.loop.call_later(QUIET_SECONDS, self._linger, end)
        else:
            self._raw.close()

    def _idle(self) -> bool:
        """Return whether all that came has its answer."""
        return (
            self.cycle is not None
            and self.cycle.response_complete
            and not self.pipeline
            and not self.transport.is_closing()
        )

    def _expect(self) -> None:
        self._in_head = True
        self._stop_timer()
        self._timer = self.loop.call_later(MOST_SECONDS, self._late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if self.flow.read_paused:  # what is missing may have come: it is not read yet
            self._timer = self.loop.call_later(MOST_SECONDS, self._late)
        elif not self._ends_with_those_before(None):
            self._raw.close()
