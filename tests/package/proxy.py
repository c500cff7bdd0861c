"""A registry that misbehaves on demand: a proxy before a real one that asks a plan each time."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from tests.servers import serving

# method, path, which request this is -> "" (pass on), a status code (and the seconds of
# Retry-After), "stall", "cut" (before the registry sees it), "cut after", "half up" or "half down"
# (cut in the middle of the body), "corrupt up" or "corrupt down" (one byte of the body), "short" or
# "long" (a byte less or more), "digest" (another in the header).
Plan = Callable[[str, str, int], str]


@contextmanager
def serve(registry: str) -> Iterator[tuple[str, list[Plan], list[tuple[str, str]]]]:
    """Yield the proxy's HOST:PORT, the plan it follows (the last of a list), what it was asked."""
    plans: list[Plan] = [lambda *_: ""]
    asked: list[tuple[str, str]] = []
    lock = threading.Lock()
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            with lock:
                number = len(asked)
                asked.append((self.command, self.path))
            fault = plans[-1](self.command, self.path, number)
            body = self._body()
            if fault == "cut":
                self._cut()
                return
            if fault[:1].isdigit():
                status, _, after = fault.partition(" ")
                headers = [("Retry-After", after or "0")]
                self._answer(int(status), headers, b'{"errors":[{"code":"FAULT"}]}')
                return
            if fault == "stall":
                ended.wait(30)
                return
            if fault == "corrupt up":
                body = _flip(body)
            upstream = http.client.HTTPConnection(registry, timeout=30)
            # An engine sends one Accept header a type.
            headers = {k: ", ".join(self.headers.get_all(k, [])) for k in self.headers}
            headers.pop("Transfer-Encoding", None)
            headers["Content-Length"] = str(len(body))
            if fault == "half up":
                upstream.request(self.command, self.path, body[: len(body) // 2], headers)
                upstream.close()
                self._cut()
                return
            upstream.request(self.command, self.path, body, headers)
            found = upstream.getresponse()
            data = found.read()
            upstream.close()
            if fault == "cut after":
                self._cut()
                return
            if fault == "corrupt down":
                data = _flip(data)
            if fault in ("short", "long"):
                data = data[:-1] if fault == "short" else data + b"x"
            answered = found.getheaders()
            if fault == "digest":
                answered = [(n, "sha256:" + "0" * 64 if "Digest" in n else v) for n, v in answered]
            self._answer(found.status, answered, data, half=fault == "half down")

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)

        def _cut(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def _answer(
            self, status: int, headers: list[tuple[str, str]], data: bytes, *, half: bool = False
        ) -> None:
            self.send_response(status)
            length = str(len(data))
            for name, value in headers:
                if name.lower() == "content-length":
                    length = value if self.command == "HEAD" else length
                elif name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2] if half else data)
            if half:
                self._cut()

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as address:
        try:
            yield address, plans, asked
        finally:
            ended.set()


def _flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1]) if data else data
