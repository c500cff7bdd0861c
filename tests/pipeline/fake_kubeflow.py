"""A small API server of Kubeflow Pipelines: what `submit` needs of it, in memory, with faults."""

from __future__ import annotations

import email.parser
import email.policy
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

API = "/apis/v2beta1"


class FakeKubeflow(ThreadingHTTPServer):
    """`faults` maps "METHOD /path" to an answer's status, "hang", "page", or a function."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pipelines: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, Any]] = {}
        self.experiments: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.states: list[str] = ["PENDING", "RUNNING", "SUCCEEDED"]
        self.faults: dict[str, int | str | Callable[[], int]] = {}
        self.token = ""
        self.cookie = ""
        self.requests: list[str] = []
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[ThreadingHTTPServer]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: FakeKubeflow

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def _handle(self) -> None:
        server, address = self.server, urlsplit(self.path)
        path = address.path.removeprefix(API)
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
            self._json(fault, {"code": 2, "message": f"made up {fault}", "details": []})
            return
        query = {key: value[0] for key, value in parse_qs(address.query).items()}
        self._json(*self._answer(path, query, body))

    def _answer(self, path: str, query: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        server = self.server
        parts = path.strip("/").split("/")
        match self.command, parts:
            case "GET", ["healthz"]:
                return 200, {"multi_user": False}
            case "GET", ["pipelines"]:
                return 200, _listed("pipelines", server.pipelines, query)
            case "POST", ["pipelines"]:
                return _made(server.pipelines, "pipeline_id", json.loads(body))
            case "GET", ["pipelines", pipeline, "versions"]:
                own = {k: v for k, v in server.versions.items() if v["pipeline_id"] == pipeline}
                return 200, _listed("pipeline_versions", own, query)
            case "POST", ["pipelines", "upload_version"]:
                version = {
                    "display_name": query["name"], "pipeline_id": query["pipelineid"],
                    "uploaded": _file(self.headers["Content-Type"], body).decode(),
                }  # fmt: skip
                return _made(server.versions, "pipeline_version_id", version)
            case "GET", ["experiments"]:
                return 200, _listed("experiments", server.experiments, query)
            case "POST", ["experiments"]:
                return _made(server.experiments, "experiment_id", json.loads(body))
            case "POST", ["runs"]:
                return _made(server.runs, "run_id", {**json.loads(body), "asked": 0})
            case "GET", ["runs", run]:
                found = server.runs[run]
                state = server.states[min(found["asked"], len(server.states) - 1)]
                found["asked"] += 1
                return 200, {"run_id": run, "state": state}
        return 404, {"code": 5, "message": f"no {path}"}

    def _json(self, status: int, document: dict[str, Any]) -> None:
        self._send(status, json.dumps(document).encode(), "application/json")

    def _send(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _listed(name: str, items: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
    predicates = json.loads(query.get("filter", "{}")).get("predicates", [])
    found = [
        item
        for item in items.values()
        if all(item["display_name"] == predicate["stringValue"] for predicate in predicates)
    ]
    return {name: found, "total_size": len(found)} if found else {}


def _made(items: dict[str, Any], key: str, item: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    same = ("display_name", "pipeline_id")
    if key != "run_id" and any(all(old.get(k) == item.get(k) for k in same if k != key)
                               for old in items.values()):  # fmt: skip
        return 409, {"code": 6, "message": f"{item['display_name']} already exists"}
    item = {**item, key: f"{key}-{len(items) + 1}"}
    items[item[key]] = item
    return 200, item


def _file(kind: str, body: bytes) -> bytes:
    head = f"Content-Type: {kind}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    (part,) = (p for p in message.iter_parts() if p.get_filename())
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload


def slowly(seconds: float) -> Callable[[], int]:
    """Return a fault that answers late, and well."""

    def wait() -> int:
        time.sleep(seconds)
        return 0

    return wait
