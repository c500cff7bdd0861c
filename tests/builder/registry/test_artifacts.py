"""What is attached to an image is found again, with the referrers API of a registry and without."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from builder import oci
from builder.registry.artifacts import attach, fallback_tag
from builder.registry.client import Registry
from tests.servers import serving

SUBJECT = oci.describe(oci.MANIFEST, b"an image")
KIND = "application/vnd.example+json"


class WithApi(BaseHTTPRequestHandler):
    """A registry in memory that answers /referrers/ by itself (distribution-spec 1.1)."""

    kept: dict[str, bytes]

    def do_HEAD(self) -> None:
        self.answer(200 if self.path.rpartition("/")[2] in self.kept else 404)

    def do_GET(self) -> None:
        kind, _, name = self.path.removeprefix("/v2/p/x/").partition("/")
        if kind == "referrers":
            found = [
                {"mediaType": oci.MANIFEST, "digest": digest, "size": len(data),
                 "artifactType": json.loads(data)["artifactType"]}
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


@pytest.fixture
def with_api() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield HOST:PORT of such a registry, and what it keeps by digest and by tag."""
    kept: dict[str, bytes] = {}
    handler = type("Handler", (WithApi,), {"kept": kept})
    with serving(handler) as address:
        yield address, kept


def put(registry: Registry, data: bytes) -> int:
    return attach(registry, "p/x", SUBJECT, data, KIND, {"a": "b"})[1]


def contents(registry: Registry) -> list[bytes]:
    found = []
    for referrer in registry.referrers("p/x", SUBJECT.digest):
        assert referrer.artifact_type == KIND
        manifest = registry.get_manifest("p/x", referrer.digest)
        assert manifest
        (layer,) = json.loads(manifest[1])["layers"]
        found.append(registry.get_blob("p/x", oci.Descriptor.from_json(layer)))
    return sorted(found)


def test_a_registry_without_the_api_gets_the_fallback_tag(registry_host: str) -> None:
    with Registry(registry_host) as registry:
        assert contents(registry) == []
        first = put(registry, b"one")
        assert put(registry, b"two") < first, "the empty config is there already"
        assert put(registry, b"one") < first
        assert contents(registry) == [b"one", b"two"]
        assert registry.tags("p/x") == [fallback_tag(SUBJECT.digest)]


def test_a_registry_with_the_api_is_told_once(with_api: tuple[str, dict[str, bytes]]) -> None:
    host, kept = with_api
    with Registry(host) as registry:
        put(registry, b"one")
        put(registry, b"two")
        assert contents(registry) == [b"one", b"two"]
    assert fallback_tag(SUBJECT.digest) not in kept
