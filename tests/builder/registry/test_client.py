"""A registry that fails: once, and nobody notices; for ever, and the error says what it did."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from builder import oci
from builder.errors import BuilderError
from builder.oci.reference import Reference
from builder.registry import blobs as registry_module
from builder.registry.cache import find_by_key
from builder.registry.client import Registry
from builder.registry.connection import RegistryError, Timing
from builder.registry.pull import pull
from builder.registry.push import Pushed, push
from builder.store import Store
from tests.builder import small
from tests.package import proxy

Behind = tuple[str, list[proxy.Plan], list[tuple[str, str]]]
HASTY = Timing(stall=0.5, tries=4, pause=0.01)
KEY = "1" * 64
# Larger than a piece, so that it goes up in several.
PIECE = 1 << 16
CONTENTS = (b"small", bytes(range(256)) * 3, b"".join(n.to_bytes(4, "big") for n in range(100_000)))


@pytest.fixture
def behind(registry_host: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Behind]:
    """The proxy before an empty registry: its address, its plans, what it was asked."""
    monkeypatch.setattr(registry_module, "PIECE", PIECE)
    with proxy.serve(registry_host) as served:
        yield served


@pytest.fixture
def image(store: Store) -> oci.Image:
    return small.image(store, *CONTENTS)


def upload(host: str, store: Store, image: oci.Image, path: str = "p") -> Pushed:
    with Registry(host, timing=HASTY) as registry:
        return push(store, {"a": (KEY, image)}, f"{host}/{path}", registry, jobs=1)["a"]


def download(host: str, folder: Path, digest: str) -> tuple[Store, oci.Image]:
    store = Store.open(folder)
    with Registry(host, timing=HASTY) as registry:
        return store, pull(store, registry, Reference(host, "p/a", digest=digest), jobs=1)


def once(number: int, fault: str) -> proxy.Plan:
    return lambda _method, _path, asked: fault if asked == number else ""


def check(store: Store) -> None:
    """Every blob of the store is what its name says."""
    for path in (store.root / "blobs/sha256").iterdir():
        store.verify(f"sha256:{path.name}")
    assert not list((store.root / "tmp").iterdir())


ONCE = ["401", "408", "429", "500", "502", "503", "504", "stall", "cut", "cut after", "half up",
        "half down"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("fault", ONCE)
def test_each_request_of_a_push_may_fail_once(
    behind: Behind, registry_host: str, store: Store, image: oci.Image, tmp_path: Path, fault: str
) -> None:
    host, plans, asked = behind
    upload(host, store, image, "count")
    for number in range(len(asked)):
        asked.clear()
        plans.append(once(number, fault))
        pushed = upload(host, store, image, f"p{number}")
        plans.pop()
        reference = Reference.parse(str(pushed.reference).replace(host, registry_host))
        with Registry(registry_host) as registry:
            other = Store.open(tmp_path / f"store{number}")
            assert pull(other, registry, reference) == image
            assert find_by_key(other, registry, f"p{number}/a", KEY) == image


@pytest.mark.parametrize("fault", ONCE)
def test_each_request_of_a_pull_may_fail_once(
    behind: Behind, store: Store, image: oci.Image, tmp_path: Path, fault: str
) -> None:
    host, plans, asked = behind
    digest = upload(host, store, image).reference.digest
    asked.clear()
    download(host, tmp_path / "count", digest)
    for number in range(len(asked)):
        asked.clear()
        plans.append(once(number, fault))
        other, pulled = download(host, tmp_path / f"store{number}", digest)
        plans.pop()
        assert pulled == image
        check(other)


@pytest.mark.parametrize("fault", ["corrupt down", "short", "long", "digest"])
def test_what_does_not_fit_its_digest_is_never_kept(
    behind: Behind, store: Store, image: oci.Image, tmp_path: Path, fault: str
) -> None:
    host, plans, asked = behind
    digest = upload(host, store, image).reference.digest
    asked.clear()
    download(host, tmp_path / "count", digest)
    refused = 0
    for number in range(len(asked)):
        asked.clear()
        plans.append(once(number, fault))
        said = ""
        try:
            assert download(host, tmp_path / f"store{number}", digest)[1] == image
        except BuilderError as error:
            said = str(error)
        plans.pop()
        refused += bool(said)
        assert not said or "nothing of it was kept" in said or "longer than" in said
        check(Store.open(tmp_path / f"store{number}"))
        assert download(host, tmp_path / f"store{number}", digest)[1] == image
    assert refused or fault == "digest", "a digest that is asked for needs no header"


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("401", r"answered 401 \(FAULT\); run `docker login"),
        ("403", r"answered 403 .* lacks the right"),
        ("404", r"answered 404"),
        ("429", r"answered 429 .* limits requests"),
        ("500", r"answered 500"),
        ("stall", r"failed \(no byte for 0.5 s\); check that the registry runs"),
        ("cut", r"failed \(.*\); check that the registry runs"),
        ("half up", r"failed \(.*\); check that the registry runs"),
    ],
)
def test_a_failure_that_lasts_is_told_with_host_and_request(
    behind: Behind, store: Store, image: oci.Image, fault: str, says: str
) -> None:
    host, plans, asked = behind
    plans.append(lambda method, _path, _number: fault if method != "HEAD" else "")
    with pytest.raises(RegistryError, match=says) as caught:
        upload(host, store, image)
    assert host in str(caught.value)
    assert len(asked) <= 3 + HASTY.tries * 3
    plans.pop()
    with Registry(host) as registry:
        assert registry.tags("p/a") == []
    assert upload(host, store, image).uploaded_blobs


def test_retry_after_is_waited_for(behind: Behind, store: Store, image: oci.Image) -> None:
    host, plans, _ = behind
    plans.append(once(0, "429 1"))
    began = time.monotonic()
    upload(host, store, image)
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize("fault", ["corrupt up", "digest"])
def test_a_registry_that_stores_something_else_is_not_believed(
    behind: Behind, store: Store, image: oci.Image, fault: str
) -> None:
    host, plans, _ = behind
    plans.append(lambda method, _path, _number: fault if method == "PUT" else "")
    with pytest.raises(RegistryError, match=r"answered 400|stored the manifest"):
        upload(host, store, image)


def test_a_damaged_blob_of_the_store_is_not_blamed_on_the_registry(
    behind: Behind, store: Store, image: oci.Image
) -> None:
    path = store.path(image.layers[0].blob.digest)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BuilderError, match=r"the store .* run `invoke build-images`"):
        upload(behind[0], store, image)
    assert not path.exists()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    status = path.stat()
    seal = status.st_mtime_ns // 10**9 * 10**9 + int(path.name[:12], 16) % 10**9
    os.utime(path, ns=(status.st_atime_ns, seal))  # rot that no program wrote
    with pytest.raises(BuilderError, match=r"was damaged .* run `invoke build-images`"):
        upload(behind[0], store, image)


@pytest.mark.parametrize(("fault", "more"), [("cut", 1), ("503", 1), ("cut after", 4),
                                             ("half up", 4)])  # fmt: skip
def test_after_a_cut_an_upload_goes_on_where_the_registry_remembers(
    behind: Behind, registry_host: str, store: Store, fault: str, more: int
) -> None:
    """Debian's forgets an upload where a piece was cut while it came in."""
    host, plans, asked = behind
    data = CONTENTS[2]
    blob = store.add(data)
    pieces = -(-len(data) // PIECE)
    plans.append(once(3, fault))
    with Registry(host, timing=HASTY) as registry:
        registry.put_blob("p/a", blob, lambda: store.path(blob.digest).open("rb"))
        assert registry.get_blob("p/a", blob) == data
    sent = sum(method == "PATCH" for method, _ in asked)
    assert pieces <= sent <= pieces + more


def test_after_a_cut_a_download_goes_on_where_it_was(
    behind: Behind, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, plans, asked = behind
    blob = store.add(CONTENTS[2])
    with Registry(host, timing=HASTY) as registry:
        registry.put_blob("p/a", blob, lambda: store.path(blob.digest).open("rb"))
        ranges = []
        send: Callable[..., Any] = registry.send

        def spy(*arguments: Any, **members: Any) -> Any:
            ranges.append(members.get("headers", {}).get("Range"))
            return send(*arguments, **members)

        monkeypatch.setattr(registry, "send", spy)
        plans.append(once(len(asked), "half down"))
        assert registry.get_blob("p/a", blob) == CONTENTS[2]
    assert ranges == [None, f"bytes={blob.size // 2}-"]


def test_a_registry_that_answers_nonsense_is_an_error_and_no_crash(
    registry_host: str, store: Store, image: oci.Image, tmp_path: Path
) -> None:
    upload(registry_host, store, image)
    manifests = [b"{}", b'{"manifests": []}', b'{"config": {}, "layers": []}', b"[]"]
    for data in manifests:
        with Registry(registry_host, timing=HASTY) as registry, suppress(RegistryError):
            media_type = json.loads(data) and oci.MANIFEST
            digest = registry.put_manifest("p/a", "odd", data, media_type or oci.MANIFEST)
            with pytest.raises(BuilderError):
                pull(Store.open(tmp_path / "s"), registry, Reference(registry_host, "p/a",
                     digest=digest))  # fmt: skip
