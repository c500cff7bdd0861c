"""A blob arrives whatever a registry thinks of mounts, sizes and redirects."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from builder import oci
from builder.errors import BuilderError
from builder.registry.blobs import PIECE, SMALLEST, Blob, Moved, Transfer
from builder.registry.client import Registry
from builder.registry.connection import RegistryError, Timing
from builder.registry.push import push
from builder.store import Store
from tests import registries
from tests.builder import small, token_server
from tests.builder.answers import Asked, Reply, answering
from tests.package import proxy

HASTY = Timing(stall=5, tries=3, pause=0.01)
DATA = bytes(range(256)) * 12_000


@dataclass
class Uploads:
    """A registry in memory that takes blobs; its members say how it is particular."""

    largest: int = 1 << 30
    smallest: int = 0
    redirect: bool = False
    location: bool = True
    kept: dict[str, bytes] = field(default_factory=dict)
    begun: bytes = b""
    sizes: list[int] = field(default_factory=list)

    def answer(self, asked: Asked) -> Reply:
        digest = re.search(r"sha256(?::|%3A)([0-9a-f]{64})", asked.path)
        if asked.method == "HEAD":
            return Reply(200 if digest and digest[1] in self.kept else 404)
        if self.redirect and "again" not in asked.path:
            to = f"{asked.path}{'&' if '?' in asked.path else '?'}again=1"
            return Reply(307, (("Location", to),))
        if len(asked.body) > self.largest:
            return Reply(413, body=b"<html>")
        location = (("Location", "/v2/up?state=1"),) if self.location else ()
        if asked.method == "POST":
            self.begun = b""
            least = (("OCI-Chunk-Min-Length", str(self.smallest)),) if self.smallest else ()
            return Reply(202, (*location, *least))
        self.begun += asked.body
        self.sizes.append(len(asked.body))
        if asked.method == "PATCH":
            first, last = asked.headers["Content-Range"].split("-")
            assert int(last) + 1 == len(self.begun) == int(first) + len(asked.body)
            return Reply(202, location)
        assert digest
        assert hashlib.sha256(self.begun).hexdigest() == digest[1]
        self.kept[digest[1]] = self.begun
        return Reply(201)


def upload(uploads: Uploads, data: bytes = DATA) -> None:
    blob = oci.describe("x", data)
    with answering(uploads.answer) as server, Registry(server.host, timing=HASTY) as registry:
        registry.put_blob("a/b", blob, lambda: io.BytesIO(data))
    assert uploads.kept == {blob.digest.removeprefix("sha256:"): data}


@pytest.mark.parametrize("largest", [1 << 20, 1 << 19, 100_000, SMALLEST])
def test_a_registry_or_proxy_that_takes_small_bodies_only_gets_them(largest: int) -> None:
    uploads = Uploads(largest=largest)
    upload(uploads)
    assert len(uploads.sizes) > 2
    assert max(uploads.sizes) <= largest


def test_what_was_learned_about_sizes_is_not_asked_again() -> None:
    uploads = Uploads(largest=1 << 20)
    with answering(uploads.answer) as server, Registry(server.host, timing=HASTY) as registry:
        for data in (DATA, DATA[::-1]):
            refusals = sum(len(asked.body) > uploads.largest for asked in server.asked)
            registry.put_blob("a/b", oci.describe("x", data), lambda: io.BytesIO(data))  # noqa: B023
        assert sum(len(asked.body) > uploads.largest for asked in server.asked) == refusals


def test_a_registry_that_takes_nothing_is_an_error() -> None:
    with pytest.raises(RegistryError, match="answered 413"):
        upload(Uploads(largest=1000))


def test_pieces_are_as_large_as_the_registry_asks() -> None:
    uploads = Uploads(smallest=PIECE + 1000)
    upload(uploads, bytes(2 * PIECE + 5))
    assert uploads.sizes[:2] == [PIECE + 1000, 2 * PIECE + 5 - PIECE - 1000]
    large = oci.Descriptor(media_type="x", digest="sha256:" + "0" * 64, size=1 << 40)
    with (
        answering(Uploads(smallest=999_999_999).answer) as server,
        Registry(server.host, timing=HASTY) as registry,
        pytest.raises(RegistryError, match="takes pieces of 999999999 bytes"),
    ):
        registry.put_blob("a/b", large, io.BytesIO)


def test_uploads_follow_a_redirect_with_their_body() -> None:
    upload(Uploads(redirect=True))
    upload(Uploads(redirect=True, largest=1 << 20))


def test_an_upload_without_a_location_is_an_error_and_no_crash() -> None:
    with pytest.raises(RegistryError, match="answered 202 without saying where to go on"):
        upload(Uploads(location=False))


def test_a_registry_without_head_for_blobs_gets_them() -> None:
    uploads = Uploads()

    def headless(asked: Asked) -> Reply:
        return Reply(405) if asked.method == "HEAD" else uploads.answer(asked)

    with answering(headless) as server, Registry(server.host, timing=HASTY) as registry:
        blob = oci.describe("x", DATA)
        moved = Transfer(registry).bring("a/b", Blob(blob, lambda: io.BytesIO(DATA)))
        assert moved == Moved(uploaded=len(DATA), uploads=1)


@pytest.fixture
def behind(registry_host: str) -> Iterator[tuple[str, list[proxy.Plan]]]:
    with proxy.serve(registry_host) as (host, plans, _):
        yield host, plans


def two(store: Store, host: str, config: Path | None = None) -> tuple[int, int]:
    """Push one image under two names; return blobs uploaded and mounted."""
    image = small.image(store, b"x" * 100)
    with Registry(host, timing=HASTY, docker_config=config) as registry:
        images = {"one": ("1" * 64, image), "two": ("2" * 64, image)}
        pushed = push(store, images, f"{host}/p", registry).values()
        for name in images:
            for blob in (image.layers[0].blob, image.config_blob):
                assert registry.has_blob(f"p/{name}", blob.digest)
    return sum(p.uploaded_blobs for p in pushed), sum(p.mounted_blobs for p in pushed)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 415, 500])
def test_a_refused_mount_is_an_upload(
    behind: tuple[str, list[proxy.Plan]], store: Store, status: int
) -> None:
    host, plans = behind
    assert two(store, host) == (2, 2)
    fresh = f"{host}/q"
    plans.append(lambda method, path, _: str(status) if "mount=" in path else "")
    image = small.image(store, b"y" * 100)
    with Registry(host, timing=HASTY) as registry:
        images = {"one": ("1" * 64, image), "two": ("2" * 64, image)}
        pushed = push(store, images, fresh, registry).values()
    assert sum(p.uploaded_blobs for p in pushed) == 4
    assert not sum(p.mounted_blobs for p in pushed)


def test_no_right_to_read_the_source_of_a_mount_is_an_upload(store: Store, tmp_path: Path) -> None:
    with (
        token_server.serve(tmp_path / "token", "u", "p", at_once=1) as server,
        registries.serve(tmp_path / "registry", auth=server.auth) as host,
    ):
        config = tmp_path / "config.json"
        config.write_text(json.dumps({"auths": {host: {"username": "u", "password": "p"}}}))
        assert two(store, host, config) == (4, 0)


def test_a_blob_on_its_way_is_mounted_and_its_failure_is_everyones(store: Store) -> None:
    blob = oci.describe("x", DATA)
    uploads = Uploads()

    def broken() -> io.BytesIO:
        raise BuilderError("the source is gone")

    with answering(uploads.answer) as server, Registry(server.host, timing=HASTY) as registry:
        transfer = Transfer(registry)
        for repository in ("a/b", "a/c"):
            with pytest.raises(BuilderError, match="the source is gone"):
                transfer.bring(repository, Blob(blob, broken))


def test_a_blob_that_rotted_unseen_is_noticed_where_it_is_pushed(
    store: Store, registry_host: str, rot: Callable[[Store, str], None]
) -> None:
    image = small.image(store, DATA)
    digest = image.layers[0].blob.digest
    rot(store, digest)
    assert store.has(image.layers[0].blob), "its time tells nothing"
    with (
        Registry(registry_host, timing=HASTY) as registry,
        pytest.raises(BuilderError, match="was damaged"),
    ):
        push(store, {"a": ("1" * 64, image)}, f"{registry_host}/p", registry)
    assert not store.path(digest).exists()
