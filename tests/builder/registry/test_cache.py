"""A cache is asked and not believed: what it gives must be what the plan would make."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from builder import oci
from builder.build.make import build
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.inspect.explain import explain
from builder.oci import canonical
from builder.oci.entry import Entry
from builder.oci.layer import write_layer
from builder.registry.cache import Expected, RegistryCache, Signer, key_tag, sample_share
from builder.registry.client import Registry
from builder.registry.connection import RegistryError, Timing
from builder.registry.push import push
from builder.signing.keys import generate
from builder.store import Store
from tests.builder.answers import Asked, Reply, answering
from tests.builder.conftest import Make

FILES = {
    "stages/b/Dockerfile": "FROM a\nCOPY more /more\nUSER 65532\n",
    "more": "m",
    "src/run": "x",
}
RECIPE = "FROM scratch\nCOPY src/ /app/\n"


@pytest.fixture
def in_memory() -> bool:
    return True


@pytest.fixture
def workspace(make: Make) -> Workspace:
    return make(RECIPE, **FILES)


@pytest.fixture
def honest(workspace: Workspace, store: Store, registry_host: str) -> dict[str, Any]:
    """Build both targets, push them, and return what `build` returned."""
    built = build(workspace, store)
    with Registry(registry_host) as registry:
        push(store, {n: (b.key, b.image) for n, b in built.items()}, f"{registry_host}/p", registry)
    return built


@pytest.fixture
def fresh(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "fresh")


def layer(store: Store, content: str, created_by: str) -> oci.Layer:
    with store.writing() as (stream, keep):
        entries = [Entry("more", "file", content=content.encode())]
        made = write_layer(entries, stream, created_by=created_by)
        keep(made.blob.digest)
    return dataclasses.replace(made, created_by=created_by)


def poison(
    host: str, store: Store, key: str, config: dict[str, Any], layers: tuple[oci.Layer, ...]
) -> oci.Image:
    """Let an attacker push another image as b under the honest key."""
    image, documents = oci.assemble(config, layers)
    store.add_image(documents)
    with Registry(host) as registry:
        push(store, {"b": (key, image)}, f"{host}/p", registry)
        found = registry.head_manifest("p/b", key_tag(key))
        assert found
        assert found.digest == image.digest
    return image


def without_rootfs(config: Any) -> dict[str, Any]:
    return {name: json.loads(json.dumps(v)) for name, v in config.items() if name != "rootfs"}


@pytest.mark.parametrize(
    "attack", ["layer", "user", "entrypoint", "env", "history", "base", "created_by", "annotation"]
)
def test_an_image_that_the_recipe_does_not_make_is_not_taken(
    workspace: Workspace, honest: dict[str, Any], store: Store, fresh: Store, registry_host: str,
    attack: str,
) -> None:  # fmt: skip
    b = honest["b"]
    config, layers = without_rootfs(b.image.config), b.image.layers
    evil = layer(store, "ATTACKER", layers[-1].created_by)
    if attack == "layer":
        layers = (*layers, evil)
        config["history"].append({"created_by": evil.created_by})
    elif attack == "user":
        config["config"]["User"] = "0"
    elif attack == "entrypoint":
        config["config"]["Entrypoint"] = ["/evil"]
    elif attack == "env":
        config["config"]["Env"] = [*config["config"].get("Env", []), "PYTHONPATH=/evil"]
    elif attack == "history":
        config["history"].append({"created_by": "evil", "empty_layer": True})
    elif attack == "base":
        layers = (dataclasses.replace(evil, created_by=layers[0].created_by), *layers[1:])
    elif attack == "created_by":
        config["history"][-1]["created_by"] = "COPY other /other"
    image = poison(registry_host, store, b.key, config, layers)
    if attack == "annotation":
        document = json.loads(store.read(b.image.digest)) | {"annotations": {"a": "b"}}
        with Registry(registry_host) as registry:
            data = canonical.dumps(document)
            registry.put_manifest("p/b", key_tag(b.key), data, oci.MANIFEST)
    else:
        assert image.digest != b.image.digest
    notes: list[str] = []
    with Registry(registry_host) as registry:
        cache = RegistryCache(fresh, registry, "p", note=notes.append)
        again = build(workspace, fresh, cache=cache)
    assert {n: x.image for n, x in again.items()} == {n: x.image for n, x in honest.items()}
    assert cache.found == {"a"}
    assert (again["a"].source, again["b"].source) == (f"{registry_host}/p", "")
    (said,) = notes
    assert said.startswith(f"b: the image that {registry_host}/p has for it was not taken")


def test_something_else_than_an_image_is_not_taken(
    workspace: Workspace, honest: dict[str, Any], fresh: Store, registry_host: str
) -> None:
    notes: list[str] = []
    with Registry(registry_host) as registry:
        index = canonical.dumps({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": []})
        registry.put_manifest("p/b", key_tag(honest["b"].key), index, oci.INDEX)
        cache = RegistryCache(fresh, registry, "p", note=notes.append)
        again = build(workspace, fresh, cache=cache)
    assert again["b"].image == honest["b"].image
    assert "has no image for linux/amd64" in notes[0]


def test_a_tag_that_leads_to_nothing_of_use_does_not_end_the_build(
    workspace: Workspace, honest: dict[str, Any], fresh: Store
) -> None:
    """Whoever may push one tag could stop everybody's builds otherwise."""
    image = honest["b"].image
    config = {"mediaType": oci.CONFIG, "digest": image.config_blob.digest, "size": 5}
    manifest = json.dumps({"config": config, "layers": []}).encode()
    cases: dict[str, tuple[bytes, Reply]] = {
        "something else than a JSON object": (b"<html>", Reply()),
        "something else than a JSON object ": (b"[1]", Reply()),
        "is not there": (manifest, Reply(404)),
        "hash to": (manifest, Reply(body=b"wrong")),
        "is longer than": (manifest, Reply(body=b"much longer")),
        "not a descriptor": (b'{"config": 7, "layers": []}', Reply()),
    }
    for says, (document, blob) in cases.items():

        def answer(asked: Asked, document: bytes = document, blob: Reply = blob) -> Reply:
            return blob if "/blobs/" in asked.path else Reply(body=document)

        notes: list[str] = []
        with answering(answer) as server, Registry(server.host) as registry:
            cache = RegistryCache(fresh, registry, "p", note=notes.append)
            found = cache.find("b", honest["b"].key, Expected({}, (), ()))
        assert found is None
        assert says.strip() in notes[0]
        assert "is not trusted and was not taken" in notes[0]


def test_a_cache_that_fails_is_an_error_all_the_same(fresh: Store) -> None:
    with (
        answering(lambda _: Reply(500)) as server,
        Registry(server.host, timing=Timing(tries=1)) as registry,
    ):
        cache = RegistryCache(fresh, registry, "p")
        with pytest.raises(RegistryError, match="500"):
            cache.find("b", "0" * 64, Expected({}, (), ()))


@pytest.fixture
def subtle(honest: dict[str, Any], store: Store, registry_host: str) -> oci.Image:
    """Poison b with an image that differs in the content of its own layer alone."""
    b = honest["b"]
    own = layer(store, "ATTACKER", b.image.layers[-1].created_by)
    config = without_rootfs(b.image.config)
    return poison(registry_host, store, b.key, config, (*b.image.layers[:-1], own))


def test_another_content_of_a_layer_is_found_by_making_it_again(
    workspace: Workspace, subtle: oci.Image, fresh: Store, registry_host: str
) -> None:
    with Registry(registry_host) as registry:
        cache = RegistryCache(fresh, registry, "p", share=1)
        with pytest.raises(BuilderError, match=r"another layer than its recipe makes .*COPY more"):
            build(workspace, fresh, cache=cache)
    assert build(workspace, fresh)["b"].image.digest != subtle.digest


def test_what_is_made_here_already_is_compared_without_being_asked(
    workspace: Workspace, subtle: oci.Image, fresh: Store, registry_host: str
) -> None:
    built = build(workspace, fresh)["b"]
    (fresh.root / "results" / f"{built.key}.json").unlink()
    with Registry(registry_host) as registry:
        cache = RegistryCache(fresh, registry, "p")
        with pytest.raises(BuilderError, match="another layer than its recipe makes"):
            build(workspace, fresh, cache=cache)


def test_a_release_takes_nothing_unsigned_from_a_cache_not_even_later(
    workspace: Workspace, subtle: oci.Image, honest: dict[str, Any], fresh: Store,
    registry_host: str,
) -> None:  # fmt: skip
    with Registry(registry_host) as registry:
        cache = RegistryCache(fresh, registry, "p")
        taken = build(workspace, fresh, cache=cache, need_layers=False)["b"]
    assert (taken.image.digest, taken.source) == (subtle.digest, f"{registry_host}/p")
    assert build(workspace, fresh)["b"].source == f"{registry_host}/p", "it is remembered"
    assert f"from the cache {registry_host}/p" in explain(workspace, fresh, "b").sentence()
    with pytest.raises(BuilderError, match=f"{registry_host}/p gave for b the image"):
        build(workspace, fresh, trusted=True)
    again = build(workspace, fresh, trusted=True)
    assert {n: (x.image, x.source) for n, x in again.items()} == {
        n: (x.image, "") for n, x in honest.items()
    }
    assert explain(workspace, fresh, "b").source == ""


def test_an_image_that_is_signed_by_a_key_of_the_workspace_is_trusted(
    workspace: Workspace, honest: dict[str, Any], fresh: Store, registry_host: str
) -> None:
    asked: list[tuple[str, str, str]] = []
    (workspace.root / "keys").mkdir()
    key = generate(workspace.root / "keys" / "lab", b"a long secret")

    def signer(repository: str, image: oci.Image, action: str) -> Signer:
        asked.append((repository, image.digest, action))
        return Signer(key.name, key.id)

    with Registry(registry_host) as registry:
        cache = RegistryCache(fresh, registry, "p", share=1, signer=signer)
        build(workspace, fresh, cache=cache, need_layers=False)
    assert asked == [(f"p/{n}", honest[n].image.digest, honest[n].key) for n in ("a", "b")]
    again = build(workspace, fresh, trusted=True, need_layers=False)
    assert {x.source for x in again.values()} == {f"{registry_host}/p"}


def test_a_layer_that_cannot_be_made_here_is_said_to_be_unchecked(
    workspace: Workspace, honest: dict[str, Any], fresh: Store, registry_host: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from builder.build.make import Builder

    def offline(*_: object) -> None:
        raise BuilderError("no network")

    monkeypatch.setattr(Builder, "_write", offline)
    notes: list[str] = []
    with Registry(registry_host) as registry:
        cache = RegistryCache(fresh, registry, "p", share=1, note=notes.append)
        again = build(workspace, fresh, cache=cache)
    assert {n: x.image for n, x in again.items()} == {n: x.image for n, x in honest.items()}
    assert len(notes) == 2
    assert all("was not compared (no network)" in note for note in notes)


@pytest.mark.parametrize("text", ["", "x", "-1", "2", "nan"])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BuilderError, match="PLATELINE_CACHE_SAMPLE="):
        sample_share({"PLATELINE_CACHE_SAMPLE": text})


def test_a_share_is_a_number() -> None:
    assert sample_share({"PLATELINE_CACHE_SAMPLE": "0.5"}) == 0.5
    assert 0 < sample_share({}) < 1
