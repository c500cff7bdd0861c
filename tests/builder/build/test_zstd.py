"""Images by zstd: the same config and files as by gzip, under digests and keys of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder import oci
from builder.build.make import build, plans
from builder.build.plan import in_zstd
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.registry.cache import RegistryCache
from builder.registry.client import Registry
from builder.registry.pull import pull
from builder.registry.push import Pushed, push
from builder.sandbox.docker import Docker
from builder.sandbox.process import Process, run
from builder.sandbox.unpack import image_entries
from builder.store import Store
from tests.builder.conftest import Make

BELOW = "FROM scratch\nCOPY src/ /app/\nWORKDIR /app\n"
FILES = {
    "src/run": "x" * 5000,
    "src/sub/data": "y",
    "stages/b/Dockerfile": "FROM a\nCOPY own /own\nCOPY --from=a /app/run /again\n",
    "own": "mine",
}


@pytest.fixture
def workspace(make: Make) -> Workspace:
    return make(BELOW, **FILES)


def sent(store: Store, host: str, workspace: Workspace, compression: str) -> dict[str, Pushed]:
    built = build(workspace, store, compression=compression)
    images = {name: (b.key, b.image) for name, b in built.items()}
    with Registry(host) as registry:
        return push(store, images, f"{host}/p", registry)


def test_config_and_files_are_those_of_gzip_and_only_the_blobs_differ(
    workspace: Workspace, store: Store, tmp_path: Path
) -> None:
    by_gzip = build(workspace, store)
    by_zstd = build(workspace, store, compression="zstd")
    for name, made in by_zstd.items():
        known = by_gzip[name]
        assert made.image.config_blob == known.image.config_blob
        assert made.key != known.key
        assert made.image.digest != known.image.digest
        assert {layer.blob.media_type for layer in made.image.layers} == {oci.ZSTD_LAYER}
        entries = [
            [(e.path, e.kind, e.mode, e.kind == "file" and e.open().read()) for e in found]
            for found in (image_entries(store, image) for image in (made.image, known.image))
        ]
        assert entries[0] == entries[1]
    assert build(workspace, store)["b"].image == by_gzip["b"].image
    again = build(workspace, Store.open(tmp_path / "other"), compression="zstd", jobs=1)
    assert {n: b.image for n, b in again.items()} == {n: b.image for n, b in by_zstd.items()}


def test_both_lie_in_one_registry_and_a_fresh_store_takes_the_one_it_asks_for(
    workspace: Workspace, store: Store, registry_host: str, tmp_path: Path
) -> None:
    pushed = {by: sent(store, registry_host, workspace, by) for by in ("zstd", "gzip")}
    for by, images in pushed.items():
        fresh = Store.open(tmp_path / by)
        with Registry(registry_host) as registry:
            cache = RegistryCache(fresh, registry, "p")
            found = build(workspace, fresh, cache=cache, need_layers=False, compression=by)
            assert cache.found == {"a", "b"}
            assert registry.requests <= 4
        digests = {name: image.reference.digest for name, image in images.items()}
        assert {name: b.image.digest for name, b in found.items()} == digests


def test_a_pulled_one_is_unpacked_and_built_on(
    make: Make, workspace: Workspace, store: Store, registry_host: str, tmp_path: Path
) -> None:
    image = sent(store, registry_host, workspace, "zstd")["b"].reference
    fresh = Store.open(tmp_path / "fresh")
    with Registry(registry_host) as registry:
        pulled = pull(fresh, registry, image)
    files = {e.path: e.open().read() for e in image_entries(fresh, pulled) if e.kind == "file"}
    assert files["again"] == b"x" * 5000
    assert files["own"] == b"mine"
    recipe = f"FROM {image}\nCOPY more /more\nCOPY --from={image} /own /copy\n"
    on_it = build(make(recipe, "second", more="more"), fresh)["a"].image
    kinds = [layer.blob.media_type for layer in on_it.layers]
    assert kinds == [*([oci.ZSTD_LAYER] * len(pulled.layers)), oci.LAYER, oci.LAYER]
    assert {e.path for e in image_entries(fresh, on_it)} == {*(
        e.path for e in image_entries(fresh, pulled)
    ), "more", "copy"}  # fmt: skip


def test_an_image_by_gzip_under_the_key_of_one_by_zstd_is_not_taken(
    workspace: Workspace, store: Store, registry_host: str, tmp_path: Path
) -> None:
    built = build(workspace, store)
    swapped = {
        n: (in_zstd(plan).key, built[n].image) for n, plan in plans(workspace, store).items()
    }
    notes: list[str] = []
    with Registry(registry_host) as registry:
        push(store, swapped, f"{registry_host}/p", registry)
        fresh = Store.open(tmp_path / "fresh")
        cache = RegistryCache(fresh, registry, "p", note=notes.append)
        made = build(workspace, fresh, cache=cache, compression="zstd")
    assert not any(b.cached for b in made.values())
    assert "it has a layer of the type" in notes[0]
    assert len(notes) == 2


def test_a_damaged_blob_is_named_and_made_again(workspace: Workspace, store: Store) -> None:
    image = build(workspace, store, compression="zstd")["a"].image
    path = store.path(image.layers[0].blob.digest)
    sealed = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes()[:-9] + bytes(9))
    os.utime(path, ns=(sealed, sealed))  # as a disk damages it
    with pytest.raises(BuilderError, match="was damaged"):
        image_entries(store, image)
    assert build(workspace, store, compression="zstd")["a"].image == image
    assert image_entries(store, image)


def test_another_compression_is_refused_by_name(workspace: Workspace, store: Store) -> None:
    with pytest.raises(BuilderError, match="no layer is compressed by 'lz4' here; write gzip or"):
        build(workspace, store, compression="lz4")


@pytest.mark.slow
def test_an_engine_that_knows_no_zstd_runs_it(store: Store) -> None:
    """Docker 20.10 does not; what is loaded is the image by gzip, since its id is the config's."""
    engine = Docker(store)
    workspace = Workspace.load(Path(__file__).parents[3])
    image = build(workspace, store, ["base"], compression="zstd")["base"].image
    script = "import sys; print(sys.version_info[0])"
    assert run(engine, Process(image=image, command=("python3", "-c", script))).code == 0
    assert engine.client.images.get(image.config_blob.digest).id == image.config_blob.digest
