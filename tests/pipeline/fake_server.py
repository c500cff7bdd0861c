"""A server on loopback, in memory, that can answer badly on request."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from tests.servers import running

# JSON, or bytes and what they are.
Answer = tuple[int, dict[str, Any] | tuple[bytes, dict[str, str]]]


class FakeServer(ThreadingHTTPServer):
    """`faults` maps "METHOD /path" to a status or a word, or to a function that returns one.

    "hang": no answer. "page": one to sign in. "away": a redirect to one. "cut": the request is
    done, and the connection ends without an answer; "drop": it ends before. A number below 0: the
    request is done, and answered by that status all the same. 0: nothing is wrong.
    """

    prefix = ""
    scheme = "http"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults: dict[str, int | str | Callable[[], int | str]] = {}
        self.token = ""
        self.cookie = ""
        self.requests: list[str] = []
        self.over = threading.Event()

    def handle_error(self, *_: Any) -> None:
        """Say nothing: who asks may have stopped waiting, as a test wants it."""

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    def over_tls(self, context: ssl.SSLContext) -> None:
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.scheme = "https"

    def answer(
        self, method: str, parts: list[str], query: Mapping[str, str], body: bytes, kind: str
    ) -> Answer:
        raise NotImplementedError

    def fault(self, status: int) -> dict[str, Any]:
        return {"code": 2, "message": f"made up {status}", "details": []}


Server = TypeVar("Server", bound=FakeServer)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    with running(server):
        try:
            yield server
        finally:
            server.over.set()


class _Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PATCH(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def _handle(self) -> None:
        server, address = self.server, urlsplit(self.path)
        path = address.path.removeprefix(server.prefix)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server.requests.append(f"{self.command} {path}")
        fault = server.faults.get(f"{self.command} {path}", 0)
        if callable(fault):
            fault = fault()
        wanted = [("Authorization", f"Bearer {server.token}", server.token),
                  ("Cookie", server.cookie, server.cookie)]  # fmt: skip
        if any(active and self.headers.get(name) != value for name, value, active in wanted):
            fault = 401
        match fault:
            case "hang":
                server.over.wait(30)
                return
            case "drop":
                return
            case "page":
                self._send(200, b"<html>sign in</html>", {"Content-Type": "text/html"})
                return
            case "away":
                self._send(302, b"", {"Location": "/dex/login"})
                return
            case int() if fault > 0:
                self._json(fault, server.fault(fault))
                return
        query = {key: value[0] for key, value in parse_qs(address.query).items()}
        kind = self.headers.get("Content-Type", "")
        status, found = server.answer(self.command, path.strip("/").split("/"), query, body, kind)
        if fault == "cut":
            return
        if isinstance(fault, int) and fault < 0:
            status, found = -fault, server.fault(-fault)
        if isinstance(found, dict):
            self._json(status, found)
        else:
            self._send(status, *found)

    def _json(self, status: int, document: dict[str, Any]) -> None:
        self._send(status, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
