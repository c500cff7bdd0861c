"""A server of JSON on loopback, in memory, that can answer badly on request."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from tests.servers import running

Answer = tuple[int, dict[str, Any]]


class FakeServer(ThreadingHTTPServer):
    """`faults` maps "METHOD /path" to a status, "hang", "page", or a function that returns one."""

    prefix = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults: dict[str, int | str | Callable[[], int]] = {}
        self.token = ""
        self.cookie = ""
        self.requests: list[str] = []
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

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

    def do_DELETE(self) -> None:
        self._handle()

    def _handle(self) -> None:
        server, address = self.server, urlsplit(self.path)
        path = address.path.removeprefix(server.prefix)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server.requests.append(f"{self.command} {path}")
        fault = server.faults.get(f"{self.command} {path}")
        if callable(fault):
            fault = fault()
        if fault == "hang":
            server.over.wait(30)
            return
        if fault == "page":
            self._send(200, b"<html>sign in</html>", "text/html")
            return
        wanted = [("Authorization", f"Bearer {server.token}", server.token),
                  ("Cookie", server.cookie, server.cookie)]  # fmt: skip
        if any(active and self.headers.get(name) != value for name, value, active in wanted):
            fault = 401
        if isinstance(fault, int) and fault:
            self._json(fault, server.fault(fault))
            return
        query = {key: value[0] for key, value in parse_qs(address.query).items()}
        kind = self.headers.get("Content-Type", "")
        self._json(*server.answer(self.command, path.strip("/").split("/"), query, body, kind))

    def _json(self, status: int, document: dict[str, Any]) -> None:
        self._send(status, json.dumps(document).encode(), "application/json")

    def _send(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
