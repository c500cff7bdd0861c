"""A server on loopback that answers each request as a function says; what it was asked is kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.servers import serving


@dataclass(frozen=True)
class Asked:
    """A request: method, path with its query, headers, body."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """An answer: `drip` seconds go by after each byte of the body, or of the head if `drip_head`.

    `length` is the Content-Length that is claimed, where that is not the body's; the body is sent
    again and again until that is reached or the client has gone.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    length: int | None = None
    drip: float = 0.0
    drip_head: bool = False


@dataclass
class Server:
    """Where it is, and what it was asked."""

    host: str = ""
    asked: list[Asked] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)


@contextmanager
def answering(answer: Callable[[Asked], Reply]) -> Iterator[Server]:
    """Yield a server that answers with `answer`."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def any_method(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(self.command, self.path, dict(self.headers), body)
            server.asked.append(asked)
            reply = answer(asked)
            length = len(reply.body) if reply.length is None else reply.length
            lines = [f"HTTP/1.1 {reply.status} {'Said' * 3}", f"Content-Length: {length}"]
            lines += [f"{name}: {value}" for name, value in reply.headers]
            head = ("\r\n".join(lines) + "\r\n\r\n").encode()
            try:
                self._send(head, reply.drip if reply.drip_head else 0.0)
                while self.command != "HEAD" and length > 0 and not server.ended.is_set():
                    self._send(reply.body[:length], reply.drip)
                    length -= len(reply.body)
            except OSError:
                self.close_connection = True

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_CONNECT = any_method

        def _send(self, data: bytes, drip: float) -> None:
            if not drip:
                self.wfile.write(data)
                return
            for byte in data:
                if server.ended.wait(drip):
                    return
                self.wfile.write(bytes([byte]))
                self.wfile.flush()

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as host:
        server.host = host
        try:
            yield server
        finally:
            server.ended.set()
