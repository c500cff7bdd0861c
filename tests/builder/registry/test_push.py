"""Pushing to a real registry uploads what is missing, once, and reads back the same."""

from __future__ import annotations

import gc
import shutil
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from builder import oci
from builder.build.make import build
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.oci.reference import Reference
from builder.registry.cache import RegistryCache, find_by_key
from builder.registry.client import PIECE, Registry
from builder.registry.connection import RegistryError, Timing
from builder.registry.pull import known, pull
from builder.registry.push import push
from builder.sandbox.unpack import folders, unpacked
from builder.store import Store, origins
from tests.builder.conftest import Make

TWO = {"stages/b/Dockerfile": "FROM a\nCOPY more /more\n", "more": "m", "src/run": "x"}
RECIPE = "FROM scratch\nCOPY src/ /app/\n"


def test_a_pushed_image_comes_back_by_digest_and_by_key(
    make: Make, store: Store, registry_host: str, tmp_path: Path
) -> None:
    built = build(make(RECIPE, **TWO), store)
    images = {name: (b.key, b.image) for name, b in built.items()}
    with Registry(registry_host) as registry:
        pushed = push(store, images, f"{registry_host}/p", registry)
        again = push(store, images, f"{registry_host}/p", registry)
        fresh = Store.open(tmp_path / "fresh")
        registry.requests = 0
        found = find_by_key(fresh, registry, "p/b", built["b"].key)
        assert registry.requests <= 2
        assert found == built["b"].image
        assert not fresh.has(found.layers[0].blob), "a layer was downloaded"
        pulled = pull(fresh, registry, pushed["b"].reference)
    assert pulled == built["b"].image
    for part in pulled.layers:
        fresh.verify(part.blob.digest)
    assert sum(p.mounted_blobs for p in pushed.values()) == 1, "the shared layer is mounted"
    assert all(p.already and p.uploaded == 0 for p in again.values())


def test_layers_of_an_image_that_is_known_come_when_it_runs_each_once(
    make: Make, store: Store, registry_host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build(make(RECIPE, **TWO), store)["b"]
    fresh = Store.open(tmp_path / "fresh")
    with Registry(registry_host) as registry:
        pushed = push(store, {"b": (built.key, built.image)}, f"{registry_host}/p", registry)
        image = known(fresh, registry, pushed["b"].reference)
    assert image == built.image
    assert not any(fresh.has(layer.blob) for layer in image.layers), "a layer was downloaded"
    assert origins.at_hand(fresh, image)
    fetched: list[str] = []
    read_blob = Registry.read_blob

    def counted(self: Registry, repository: str, blob: oci.Descriptor, sink: Any) -> None:
        fetched.append(blob.digest)
        read_blob(self, repository, blob, sink)

    monkeypatch.setattr(Registry, "read_blob", counted)
    with ThreadPoolExecutor(3) as pool:  # three steps that start together
        found = list(pool.map(lambda _: folders(fresh, image), range(3)))
    assert found[0] == found[1] == found[2]
    assert sorted(fetched) == sorted(layer.blob.digest for layer in image.layers)
    assert (found[0][-1] / "more").read_text() == "m"


def test_a_large_blob_goes_up_in_pieces(store: Store, registry_host: str, tmp_path: Path) -> None:
    data = bytes(range(256)) * (2 * PIECE // 256) + b"end"
    blob = store.add(data)
    arrived: list[int] = []
    with Registry(registry_host) as registry:
        registry.put_blob("p/x", blob, lambda: store.path(blob.digest).open("rb"), arrived.append)
        assert registry.get_blob("p/x", blob, blob.size) == data
    assert arrived == [PIECE, PIECE, 3]


def test_a_missing_manifest_is_none_and_a_missing_registry_is_named(registry_host: str) -> None:
    with Registry(registry_host) as registry:
        assert registry.get_manifest("p/none", "latest") is None
    with (
        Registry("127.0.0.1:9", timing=Timing(tries=1)) as nobody,
        pytest.raises(RegistryError, match=r"GET /v2/p/x/manifests/latest at 127.0.0.1:9 failed"),
    ):
        nobody.get_manifest("p/x", "latest")


@pytest.mark.parametrize("text", ["train", "host/UPPER", "a.b/c@sha256:12", "localhost/a:b:c!"])
def test_a_name_that_is_not_of_the_form_is_refused(text: str) -> None:
    with pytest.raises(Exception, match=r"name|registry|digits"):
        Reference.parse(text)


def test_a_reference_reads_back_as_it_was_written() -> None:
    text = "127.0.0.1:5000/a/b-c:tag@sha256:" + "0" * 64
    assert str(Reference.parse(text)) == text


def test_a_fresh_clone_with_a_filled_registry_builds_nothing_and_downloads_no_layer(
    make: Make, store: Store, registry_host: str, tmp_path: Path
) -> None:
    workspace = make(RECIPE, **TWO)
    with Registry(registry_host) as registry:
        first = build(workspace, store)
        push(store, {n: (b.key, b.image) for n, b in first.items()}, f"{registry_host}/p", registry)

    def layers(fresh: Store) -> list[bool]:
        return [fresh.has(part.blob) for b in first.values() for part in b.image.layers]

    fresh = Store.open(tmp_path / "fresh")
    with Registry(registry_host) as registry:
        cache = RegistryCache(fresh, registry, "p")
        again = build(workspace, fresh, cache=cache)
        images = {n: (b.key, b.image) for n, b in again.items()}
        pushed = push(fresh, images, f"{registry_host}/p", registry, there=cache.found)
        assert registry.requests <= 2 * len(first)
    assert {n: b.image for n, b in again.items()} == {n: b.image for n, b in first.items()}
    assert all(b.cached for b in again.values())
    assert all(p.already for p in pushed.values())
    assert not any(layers(fresh))
    assert unpacked(fresh, first["b"].image.layers[0]).is_dir(), "its bytes come when needed"
    assert any(layers(fresh))


def test_what_a_registry_has_lost_is_made_again(
    make: Make, store: Store, registry_host: str, tmp_path: Path
) -> None:
    workspace = make(RECIPE, **TWO)
    fresh = Store.open(tmp_path / "fresh")
    with Registry(registry_host) as registry:
        first = build(workspace, store)
        push(store, {n: (b.key, b.image) for n, b in first.items()}, f"{registry_host}/p", registry)
        build(workspace, fresh, cache=RegistryCache(fresh, registry, "p"))
    layer = first["a"].image.layers[0]
    shutil.rmtree(tmp_path / "registry/data")
    with pytest.raises(BuilderError, match=r"is not there; run `invoke build-images`"):
        unpacked(fresh, layer)
    assert build(workspace, fresh)["a"].image == first["a"].image
    assert unpacked(fresh, layer).is_dir()


def test_blobs_of_the_image_that_was_pushed_before_are_not_asked_for(
    make: Make, store: Store, registry_host: str
) -> None:
    """After a new line of source the registry is asked for that image, not for its layers."""
    copies = {f"part{n}": str(n) for n in range(9)}
    recipe = "FROM scratch\n" + "".join(f"COPY {name} /{name}\n" for name in copies)
    workspace = make(f"{recipe}COPY src/ /app/\n", **copies, **{"src/run": "x"})
    asked = []
    for line in ("one", "two"):
        (workspace.root / "src/run").write_text(line)
        built = build(Workspace.load(workspace.root), store)["a"]
        with Registry(registry_host) as registry:
            pushed = push(store, {"a": (built.key, built.image)}, f"{registry_host}/p", registry)
            asked.append(registry.requests)
        assert pushed["a"].uploaded_blobs == (11 if line == "one" else 2)
    assert asked[1] <= 10
    assert asked[0] >= 30


@pytest.mark.parametrize("lost", ["a layer", "the image"])
def test_a_blob_that_the_registry_lost_since_goes_up_again(
    make: Make, store: Store, registry_host: str, tmp_path: Path, lost: str
) -> None:
    workspace = make(
        "FROM scratch\nCOPY kept /kept\nCOPY src/ /app/\n", kept="k", **{"src/run": "x"}
    )
    built = build(workspace, store)["a"]
    with Registry(registry_host) as registry:
        push(store, {"a": (built.key, built.image)}, f"{registry_host}/p", registry)
    (workspace.root / "src/run").write_text("y")
    layer = built.image.layers[0].blob.digest.removeprefix("sha256:")
    registry_data = tmp_path / "registry/data/docker/registry/v2"
    if lost == "a layer":
        shutil.rmtree(registry_data / f"blobs/sha256/{layer[:2]}/{layer}")
        shutil.rmtree(registry_data / f"repositories/p/a/_layers/sha256/{layer}")
    else:
        shutil.rmtree(registry_data)
    again = build(Workspace.load(workspace.root), store)["a"]
    with Registry(registry_host) as registry:
        pushed = push(store, {"a": (again.key, again.image)}, f"{registry_host}/p", registry)
        assert pull(Store.open(tmp_path / "fresh"), registry, pushed["a"].reference) == again.image


def test_pieces_that_went_up_are_not_kept_in_memory(store: Store, registry_host: str) -> None:
    blob = store.add(bytes(8 * PIECE))
    gc.disable()
    try:
        with Registry(registry_host) as registry:
            tracemalloc.start()
            registry.put_blob("p/x", blob, lambda: store.path(blob.digest).open("rb"))
            _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert peak < 4 * PIECE
