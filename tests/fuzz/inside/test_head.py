"""Fuzz job: requests as they come, up to where the function's own code gets them."""

import asyncio
import re

import uvicorn
from function.connection import Connection
from hypothesis import strategies as st
from uvicorn.server import ServerState

REQUEST = b"POST /v2 HTTP/1.1\r\nHost: a.example:80\r\nContent-Length: 3\r\nX: y\r\n\r\nabc"
CHUNKED = (
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: Upgrade\r\n"
    b"Upgrade: h2c\r\n\r\n3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n"
)
WORDS = [b"\r\n", b"\r\n\r\n", b"HTTP/1.0", b"HTTP/9.9", b"Host: x\r\n", b"Content-Length: 9\r\n",
         b"Content-Length: 99999999999999999999\r\n", b"Transfer-Encoding: chunked\r\n", b"chunked, x",
         b"Upgrade: websocket\r\n", b"Expect: 100-continue\r\n", b"CONNECT x:1 ", b"GET * ", b"PRI * HTTP/2.0",
         b"X: " + b"y" * 70_000 + b"\r\n", b"X: y\r\n" * 200, b"FFFFFFFFFFFFFFFFFF\r\n", b"-1\r\n", b"[::1"]  # fmt: skip
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class Transport(asyncio.Transport):
    """Keeps what was written."""

    def __init__(self):
        super().__init__()
        self.written, self.closed = b"", False

    def write(self, data):
        self.written += data

    def close(self):
        self.closed = True

    abort = write_eof = close

    def is_closing(self):
        return self.closed

    def get_extra_info(self, name, default=None):
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else default

    def pause_reading(self):
        pass

    resume_reading = pause_reading


async def app(scope, receive, send):
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        pass
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    )
    await send({"type": "http.response.body", "body": b"ok"})


async def exchange(pieces):
    """Return what is answered to bytes that come in pieces; no exception leaves the protocol."""
    loop, wrong = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: wrong.append(context))
    config = uvicorn.Config(app, ws="none", lifespan="off", access_log=False, log_level="critical")
    config.load()
    transport = Transport()
    connection = Connection.within(30)(config, ServerState(), {}, loop)
    connection.connection_made(transport)
    for piece in pieces:
        if piece and not transport.closed:
            connection.data_received(piece)
            await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    connection.connection_lost(None)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not wrong, wrong
    return transport.written


def test_a_head(fuzz):
    def parse(data):
        answered = asyncio.run(
            exchange([data[start : start + 4096] for start in range(0, len(data), 4096)])
        )
        for status in STATUS.findall(answered):
            assert int(status) in (100, 200, 400, 405, 431, 501), answered

    samples = [REQUEST, CHUNKED, REQUEST + CHUNKED, REQUEST * 3]
    fields = st.lists(st.sampled_from([b"GET / HTTP/1.1\r\n", *WORDS]), max_size=12).map(b"".join)
    fuzz.run(parse, fuzz.mutated(samples, WORDS) | fields, refusal=ValueError, names="")
