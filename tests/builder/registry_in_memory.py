"""A registry in memory that answers /referrers/ by itself, as Debian's does not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from builder import oci
from tests.servers import serving


class _Handler(BaseHTTPRequestHandler):
    """The repository p/x (distribution-spec 1.1); a name that is in `failing` gets 403."""

    kept: dict[str, bytes]
    failing: set[str]

    def do_HEAD(self) -> None:
        self.answer(200 if self.path.rpartition("/")[2] in self.kept else 404)

    def do_GET(self) -> None:
        kind, _, name = self.path.removeprefix("/v2/p/x/").partition("/")
        if kind == "referrers":
            found = [
                {"mediaType": oci.MANIFEST, "digest": digest, "size": len(data),
                 "artifactType": json.loads(data)["artifactType"],
                 "annotations": json.loads(data).get("annotations", {})}
                for digest, data in self.kept.items()
                if digest.startswith("sha256:") and b'"subject"' in data
                and json.loads(data)["subject"]["digest"] == name
            ]  # fmt: skip
            index = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": found}
            self.answer(200, json.dumps(index).encode())
        elif name in self.kept:
            self.answer(200, self.kept[name])
        else:
            self.answer(404)

    def do_POST(self) -> None:
        self.answer(202, Location="/v2/p/x/blobs/uploads/1")

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        name = self.path.rpartition("/")[2]
        if name in self.failing:
            self.answer(403)
            return
        self.kept[digest] = data
        if "digest=" not in name:
            self.kept[name] = data
        self.answer(201, **{"Docker-Content-Digest": digest})

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def with_referrers() -> Iterator[tuple[str, dict[str, bytes], set[str]]]:
    """Yield HOST:PORT, what it keeps by digest and by tag, and the manifests that it refuses."""
    kept: dict[str, bytes] = {}
    failing: set[str] = set()
    handler = type("Handler", (_Handler,), {"kept": kept, "failing": failing})
    with serving(handler) as address:
        yield address, kept, failing
