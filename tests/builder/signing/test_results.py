"""A result of a cache is trusted for the action key that a trusted key signed it for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builder import oci
from builder.build.make import build
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.inspect.explain import explain
from builder.inspect.provenance import sign_results
from builder.oci.entry import Entry
from builder.oci.layer import write_layer
from builder.registry.cache import RegistryCache, key_tag
from builder.registry.client import Registry
from builder.registry.push import push
from builder.signing.keys import SigningKey, trusted
from builder.signing.results import PROVENANCE, action_key, result_signer
from builder.signing.signatures import sign, state, statements
from builder.store import Store
from tests.builder.conftest import Make
from tests.key_pairs import key_pair

FILES = {"stages/b/Dockerfile": "FROM a\nCOPY more /more\n", "more": "m", "src/run": "x"}
COMMIT = "c" * 40


@pytest.fixture
def workspace(make: Make) -> Workspace:
    return make("FROM scratch\nCOPY src/ /app/\n", **FILES)


@pytest.fixture
def key(workspace: Workspace) -> SigningKey:
    """Return a key that the workspace trusts."""
    made = key_pair(workspace.root / "keys")
    (workspace.root / "keys/lab.key").unlink()
    return made


@pytest.fixture
def fresh(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "fresh")


@pytest.fixture
def pushed(workspace: Workspace, store: Store, registry_host: str) -> dict[str, Any]:
    return push_all(workspace, store, registry_host)


def push_all(workspace: Workspace, store: Store, host: str) -> dict[str, Any]:
    built = build(workspace, store)
    with Registry(host) as registry:
        push(store, {n: (b.key, b.image) for n, b in built.items()}, f"{host}/p", registry)
    return built


def signed(host: str, workspace: Workspace, built: dict[str, Any], key: SigningKey) -> None:
    with Registry(host) as registry:
        sign_results(registry, "p", workspace, built, key, COMMIT, dirty=False)


def take(workspace: Workspace, store: Store, host: str, notes: list[str] | None = None) -> Any:
    """Build with the cache, all of whose unsigned layers would be made again."""
    with Registry(host) as registry:
        cache = RegistryCache(
            store, registry, "p", share=1, note=(notes if notes is not None else []).append,
            signer=result_signer(registry, trusted(workspace.root)),
        )  # fmt: skip
        return build(workspace, store, cache=cache, need_layers=False)


def test_a_signed_result_is_taken_without_making_a_layer(
    workspace: Workspace, key: SigningKey, pushed: dict[str, Any], fresh: Store, registry_host: str
) -> None:
    signed(registry_host, workspace, pushed, key)
    found = take(workspace, fresh, registry_host)
    assert {n: (b.image, b.signer) for n, b in found.items()} == {
        n: (b.image, "lab") for n, b in pushed.items()
    }
    assert not any(fresh.has(layer.blob) for b in pushed.values() for layer in b.image.layers)
    said = explain(workspace, fresh, "b").sentence()
    assert f"it came, signed by lab, from the cache {registry_host}/p" in said
    again = build(workspace, fresh, trusted=True, need_layers=False)
    assert {b.signer for b in again.values()} == {"lab"}


@pytest.mark.parametrize("how", ["unsigned", "stranger", "image only"])
def test_what_no_trusted_key_signed_as_the_result_is_made_again_and_compared(
    workspace: Workspace, key: SigningKey, pushed: dict[str, Any], fresh: Store,
    registry_host: str, tmp_path: Path, how: str,
) -> None:  # fmt: skip
    if how == "stranger":
        signed(registry_host, workspace, pushed, key_pair(tmp_path, "stranger"))
    elif how == "image only":
        with Registry(registry_host) as registry:
            for name, built in pushed.items():
                sign(registry, f"p/{name}", built.image.manifest, key)
    found = take(workspace, fresh, registry_host)
    assert {b.signer for b in found.values()} == {""}
    assert all(fresh.has(layer.blob) for b in pushed.values() for layer in b.image.layers)


def test_an_older_signed_result_under_the_key_of_newer_sources_is_not_trusted(
    workspace: Workspace, key: SigningKey, pushed: dict[str, Any], store: Store, fresh: Store,
    registry_host: str,
) -> None:  # fmt: skip
    """Whoever may push moves the tag of the new action key to the old image, with its signature."""
    signed(registry_host, workspace, pushed, key)
    (workspace.root / "more").write_text("mended")
    newer = build(workspace, store)["b"]
    with Registry(registry_host) as registry:
        old = store.read(pushed["b"].image.digest)
        registry.put_manifest("p/b", key_tag(newer.key), old, oci.MANIFEST)
    with pytest.raises(BuilderError, match="holds for b another layer than its recipe makes"):
        take(workspace, fresh, registry_host)
    assert build(workspace, fresh)["b"].image == newer.image


def test_what_a_key_signed_counts_as_long_as_the_workspace_trusts_it(
    workspace: Workspace, key: SigningKey, pushed: dict[str, Any], fresh: Store, registry_host: str
) -> None:
    signed(registry_host, workspace, pushed, key)
    take(workspace, fresh, registry_host)
    (workspace.root / "keys/lab.pub").unlink()
    assert not explain(workspace, fresh, "b").known
    found = build(workspace, fresh)
    assert {(b.source, b.signer, b.cached) for b in found.values()} == {("", "", False)}


def test_signatures_that_cannot_be_read_count_as_none(
    workspace: Workspace, pushed: dict[str, Any], fresh: Store, registry_host: str
) -> None:
    def broken(*_: object) -> None:
        raise BuilderError("not a descriptor")

    notes: list[str] = []
    with Registry(registry_host) as registry:
        cache = RegistryCache(fresh, registry, "p", share=1, note=notes.append, signer=broken)
        found = build(workspace, fresh, cache=cache)
    assert {n: (b.image, b.signer) for n, b in found.items()} == {
        n: (b.image, "") for n, b in pushed.items()
    }
    assert [note.split(":")[0] for note in notes] == ["a", "b"]
    assert "what signs it" in notes[0]


def test_a_result_that_was_said_before_is_not_said_again(
    workspace: Workspace, key: SigningKey, pushed: dict[str, Any], registry_host: str
) -> None:
    signed(registry_host, workspace, pushed, key)
    with Registry(registry_host) as registry:
        sign_results(registry, "p", workspace, pushed, key, "d" * 40, dirty=True)
        found = statements(registry, "p/b", pushed["b"].image.digest, [key.public], PROVENANCE)
    (said,) = found
    assert action_key(said.predicate) == pushed["b"].key
    materials = said.predicate["buildDefinition"]["resolvedDependencies"]
    assert {"name": "source", "digest": {"gitCommit": COMMIT}} in materials
    names = [material.get("name") for material in materials]
    assert names == ["source", "stages/a/Dockerfile", "stages/b/Dockerfile"]


@pytest.mark.parametrize(
    "predicate",
    [{}, {"buildDefinition": 7}, {"buildDefinition": {"internalParameters": [1]}},
     {"buildDefinition": {"internalParameters": {"actionKey": ["k"]}}}],
)  # fmt: skip
def test_provenance_without_an_action_key_is_of_no_result(
    key: SigningKey, pushed: dict[str, Any], registry_host: str, predicate: dict[str, Any]
) -> None:
    image = pushed["b"].image
    with Registry(registry_host) as registry:
        state(registry, "p/b", image.manifest, key, PROVENANCE, predicate)
        assert result_signer(registry, [key.public])("p/b", image, pushed["b"].key) is None


def test_the_layers_of_an_attacker_are_found_though_the_image_has_a_signature_of_his(
    workspace: Workspace, key: SigningKey, pushed: dict[str, Any], store: Store, fresh: Store,
    registry_host: str, tmp_path: Path,
) -> None:  # fmt: skip
    image = pushed["b"].image
    text = image.layers[-1].created_by
    with store.writing() as (stream, keep):
        entries = [Entry("more", "file", content=b"ATTACKER")]
        evil = write_layer(entries, stream, created_by=text)
        keep(evil.blob.digest)
    config = {name: value for name, value in image.config.items() if name != "rootfs"}
    bad, documents = oci.assemble(config, (*image.layers[:-1], evil))
    store.add_image(documents)
    stranger = key_pair(tmp_path, "stranger")
    with Registry(registry_host) as registry:
        push(store, {"b": (pushed["b"].key, bad)}, f"{registry_host}/p", registry)
        mine = {"buildDefinition": {"internalParameters": {"actionKey": pushed["b"].key}}}
        state(registry, "p/b", bad.manifest, stranger, PROVENANCE, mine)
    with pytest.raises(BuilderError, match="holds for b another layer"):
        take(workspace, fresh, registry_host)
