"""A fake OpenFaaS gateway, Community Edition: checks each body against the published schema."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.servers import serving

# FunctionDeployment of api-docs/spec.openapi.yml: member -> type; `texts` is a map of strings.
SCHEMA = {
    "service": str, "image": str, "namespace": str, "envProcess": str, "constraints": list,
    "envVars": "texts", "secrets": list, "labels": "texts", "annotations": "texts",
    "limits": "resources", "requests": "resources", "readOnlyRootFilesystem": bool,
}  # fmt: skip
REFUSED = ("com.openfaas.scale.zero", "com.openfaas.scale.target", "com.openfaas.scale.type")


def fault(body: Any) -> str:
    """Return what is wrong with a FunctionDeployment, or nothing."""
    if not isinstance(body, dict) or not {"service", "image"} <= body.keys():
        return "service and image are required"
    for name, value in body.items():
        kind = SCHEMA.get(name)
        if kind is None:
            return f"there is no member {name}"
        if isinstance(kind, type):
            if not isinstance(value, kind):
                return f"{name} is no {kind.__name__}"
            continue
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            return f"{name} is no map of strings"
        if kind == "resources" and not value.keys() <= {"memory", "cpu"}:
            return f"{name} has other members than memory and cpu"
    for name in ("labels", "annotations"):
        for key in body.get(name, {}):
            if key.startswith(REFUSED):
                return f"{key} is not available in the Community Edition"
    return ""


@dataclass
class Fake:
    """The state: deployed bodies by name, how often a status says not ready, what was asked."""

    url: str = ""
    password: str = "secret"
    functions: dict[str, dict[str, Any]] = field(default_factory=dict)
    not_ready: int = 2
    busy: int = 0
    asked: list[str] = field(default_factory=list)
    tiles: list[bytes] = field(default_factory=list)
    answer: bytes = b'{"class": "positive", "probability": 0.9}'


@contextmanager
def serve() -> Iterator[Fake]:
    """Yield a gateway without functions, on loopback."""
    state = Fake()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = urlsplit(self.path)
            state.asked.append(f"{self.command} {parts.path}")
            if state.busy:
                state.busy -= 1
                self.reply(503, b"starting")
            elif parts.path.startswith("/system") and not self.known():
                self.reply(401, b"invalid credentials")
            elif parts.path == "/system/functions" and self.command == "GET":
                listed = [{**body, "name": name} for name, body in state.functions.items()]
                self.reply(200, json.dumps(listed).encode())
            elif parts.path == "/system/functions":
                self.deployment(data)
            elif parts.path.startswith("/system/function/"):
                self.status(parts.path.rpartition("/")[2], parse_qs(parts.query))
            elif parts.path.startswith("/function/"):
                state.tiles.append(data)
                self.reply(200, state.answer)
            else:
                self.reply(404, b"")

        do_GET = do_PUT = do_POST = handle_any

        def known(self) -> bool:
            wanted = base64.b64encode(f"admin:{state.password}".encode()).decode()
            return self.headers.get("Authorization") == f"Basic {wanted}"

        def deployment(self, data: bytes) -> None:
            body = json.loads(data)
            if wrong := fault(body):
                self.reply(400, wrong.encode())
            elif self.command == "PUT" and body["service"] not in state.functions:
                self.reply(404, b"not found")
            else:
                state.functions[body["service"]] = body
                self.reply(200 if self.command == "PUT" else 202, b"")

        def status(self, name: str, query: dict[str, list[str]]) -> None:
            body = state.functions.get(name)
            if body is None or query.get("namespace", [""])[0] != body.get("namespace", ""):
                self.reply(404, b"not found")
                return
            state.not_ready -= 1
            ready = 0 if state.not_ready >= 0 else 1
            found = {**body, "name": name, "replicas": 1, "availableReplicas": ready}
            self.reply(200, json.dumps(found).encode())

        def reply(self, status: int, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as address:
        state.url = f"http://{address}"
        yield state
