"""A registry that misbehaves on demand: a proxy before a real one that asks a plan each time."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# method, path, which request this is -> "" (pass on), a status code, "cut" (before the registry
# sees it), "cut after", "corrupt up" or "corrupt down" (one byte of the body).
Plan = Callable[[str, str, int], str]


@contextmanager
def serve(registry: str) -> Iterator[tuple[str, list[Plan], list[tuple[str, str]]]]:
    """Yield the proxy's HOST:PORT, the plan it follows (the last of a list), what it was asked."""
    plans: list[Plan] = [lambda *_: ""]
    asked: list[tuple[str, str]] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            with lock:
                number = len(asked)
                asked.append((self.command, self.path))
            fault = plans[-1](self.command, self.path, number)
            body = self._body()
            if fault == "cut":
                self.close_connection = True
                self.connection.close()
                return
            if fault.isdigit():
                self._answer(int(fault), [("Retry-After", "0")], b'{"errors":[{"code":"FAULT"}]}')
                return
            if fault == "corrupt up":
                body = _flip(body)
            upstream = http.client.HTTPConnection(registry, timeout=30)
            headers = {k: v for k, v in self.headers.items() if k.lower() != "transfer-encoding"}
            headers["Content-Length"] = str(len(body))
            upstream.request(self.command, self.path, body, headers)
            found = upstream.getresponse()
            data = found.read()
            upstream.close()
            if fault == "cut after":
                self.close_connection = True
                self.connection.close()
                return
            if fault == "corrupt down":
                data = _flip(data)
            self._answer(found.status, found.getheaders(), data)

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

        def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
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
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}", plans, asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1]) if data else data
