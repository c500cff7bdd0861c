"""A result of a cache is trusted for the action key that a trusted key signed it for."""

from __future__ import annotations

from dataclasses import replace
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
def in_memory() -> bool:
    return True


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


NOW = 1_800_000_000.0


def signed(
    host: str, workspace: Workspace, built: dict[str, Any], key: SigningKey,
    store: Store | None = None, now: float = NOW,
) -> None:  # fmt: skip
    """Sign the results of `built`, on a machine of its own unless `store` is given."""
    store = store or Store.open(workspace.root.parent / "signer")
    with Registry(host) as registry:
        sign_results(
            registry, "p", workspace, built, key, COMMIT, dirty=False, store=store, now=now
        )


def take(workspace: Workspace, store: Store, host: str, notes: list[str] | None = None) -> Any:
    """Build with the cache, as a workspace does that names its keys."""
    keys = trusted(workspace.root)
    with Registry(host) as registry:
        cache = RegistryCache(
            store, registry, "p", share=1, note=(notes if notes is not None else []).append,
            signer=result_signer(registry, keys, store, lambda: NOW + 9), only_signed=bool(keys),
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
def test_nothing_is_taken_that_no_trusted_key_signed_as_the_result(
    workspace: Workspace, key: SigningKey, pushed: dict[str, Any], fresh: Store,
    registry_host: str, tmp_path: Path, how: str,
) -> None:  # fmt: skip
    if how == "stranger":
        signed(registry_host, workspace, pushed, key_pair(tmp_path, "stranger"))
    elif how == "image only":
        with Registry(registry_host) as registry:
            for name, built in pushed.items():
                sign(registry, f"p/{name}", built.image.manifest, key)
    notes: list[str] = []
    found = take(workspace, fresh, registry_host, notes)
    assert {(b.source, b.signer, b.cached) for b in found.values()} == {("", "", False)}
    assert {n: b.image for n, b in found.items()} == {n: b.image for n, b in pushed.items()}
    assert all(fresh.has(layer.blob) for b in pushed.values() for layer in b.image.layers)
    assert [note.split(":")[0] for note in notes] == ["a", "b"]
    assert all("no key of this workspace signed it as the result" in note for note in notes)


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
    notes: list[str] = []
    found = take(workspace, fresh, registry_host, notes)
    assert (found["a"].signer, found["b"].signer) == ("lab", "")
    assert found["b"].image == newer.image
    assert "no key of this workspace signed it" in notes[0]


def another(store: Store, key: str, image: oci.Image, host: str, content: bytes) -> oci.Image:
    """Push an image that differs from `image` in its last layer, under the same action key."""
    with store.writing() as (stream, keep):
        entries = [Entry("more", "file", content=content)]
        layer = write_layer(entries, stream, created_by=image.layers[-1].created_by)
        keep(layer.blob.digest)
    config = {name: value for name, value in image.config.items() if name != "rootfs"}
    made, documents = oci.assemble(config, (*image.layers[:-1], layer))
    store.add_image(documents)
    with Registry(host) as registry:
        push(store, {"b": (key, made)}, f"{host}/p", registry)
    return made


@pytest.fixture
def older(
    workspace: Workspace, key: SigningKey, pushed: dict[str, Any], store: Store, registry_host: str
) -> oci.Image:
    """Return a signed result of b's key that was wrong, which the signed `pushed` came after."""
    built = pushed["b"]
    made = another(store, built.key, built.image, registry_host, b"wrong")
    wrong = {"b": replace(built, image=made)}
    signed(registry_host, workspace, wrong, key, now=NOW - 100)
    with Registry(registry_host) as registry:
        registry.put_manifest(
            "p/b", key_tag(built.key), store.read(built.image.digest), oci.MANIFEST
        )
    signed(registry_host, workspace, pushed, key)
    return made


def replay(host: str, store: Store, built: Any, image: oci.Image) -> None:
    """Put `image` under the tag of the action key of `built`: a registry can do that."""
    with Registry(host) as registry:
        registry.put_manifest("p/b", key_tag(built.key), store.read(image.digest), oci.MANIFEST)


def emptied(fresh: Store) -> None:
    """Let the store forget its results, as gc does."""
    for path in (fresh.root / "results").iterdir():
        path.unlink()


def test_an_older_record_of_the_same_sources_is_noticed_and_not_taken(
    workspace: Workspace, pushed: dict[str, Any], older: oci.Image, store: Store, fresh: Store,
    registry_host: str,
) -> None:  # fmt: skip
    assert take(workspace, fresh, registry_host)["b"].image == pushed["b"].image
    emptied(fresh)
    replay(registry_host, store, pushed["b"], older)
    notes: list[str] = []
    found = take(workspace, fresh, registry_host, notes)["b"]
    assert (found.image, found.source) == (pushed["b"].image, "")
    assert older.digest in notes[0]
    assert "somebody put an older record back" in notes[0]


def test_who_has_seen_no_newer_record_cannot_tell_and_the_signer_says_it_again_to_correct_it(
    workspace: Workspace, pushed: dict[str, Any], older: oci.Image, store: Store, fresh: Store,
    key: SigningKey, registry_host: str,
) -> None:  # fmt: skip
    """What remains possible, as docs/signatures.md has it."""
    replay(registry_host, store, pushed["b"], older)
    assert take(workspace, fresh, registry_host)["b"].image == older
    emptied(fresh)
    replay(registry_host, store, pushed["b"], pushed["b"].image)
    assert take(workspace, fresh, registry_host)["b"].image == pushed["b"].image


def test_a_result_that_was_overtaken_counts_again_once_it_is_signed_again(
    workspace: Workspace, pushed: dict[str, Any], older: oci.Image, store: Store, fresh: Store,
    key: SigningKey, registry_host: str,
) -> None:  # fmt: skip
    take(workspace, fresh, registry_host)
    emptied(fresh)
    replay(registry_host, store, pushed["b"], older)
    signed(registry_host, workspace, {"b": replace(pushed["b"], image=older)}, key, now=NOW + 5)
    assert take(workspace, fresh, registry_host)["b"].image == older


def test_a_record_of_the_future_is_not_taken(
    workspace: Workspace, pushed: dict[str, Any], fresh: Store, key: SigningKey, registry_host: str
) -> None:
    signed(registry_host, workspace, pushed, key, now=NOW + 9 + 86_401)
    notes: list[str] = []
    assert take(workspace, fresh, registry_host, notes)["b"].source == ""
    assert "which has not come yet" in notes[0]


def test_a_damaged_memory_of_records_is_named(
    workspace: Workspace, pushed: dict[str, Any], fresh: Store, key: SigningKey, registry_host: str
) -> None:
    signed(registry_host, workspace, pushed, key)
    take(workspace, fresh, registry_host)
    emptied(fresh)
    file = fresh.root / "seen" / f"{pushed['b'].key}.json"
    file.write_text("{")
    notes: list[str] = []
    assert take(workspace, fresh, registry_host, notes)["b"].source == ""
    assert f"{file} is damaged" in notes[0]


def test_a_revoked_key_is_trusted_under_no_name(workspace: Workspace, key: SigningKey) -> None:
    folder = workspace.root / "keys"
    (folder / "revoked").mkdir()
    (folder / "revoked" / "old-lab.pub").write_bytes((folder / "lab.pub").read_bytes())
    (folder / "lab.pub").rename(folder / "another-name.pub")
    with pytest.raises(BuilderError, match=r"another-name .* is revoked: .*old-lab.pub"):
        trusted(workspace.root)


def test_what_was_taken_unsigned_counts_no_longer_once_the_workspace_names_a_key(
    workspace: Workspace, pushed: dict[str, Any], fresh: Store, registry_host: str
) -> None:
    assert {b.source for b in take(workspace, fresh, registry_host).values()} != {""}
    key_pair(workspace.root / "keys")
    (workspace.root / "keys/lab.key").unlink()
    assert {b.source for b in build(workspace, fresh).values()} == {""}


def test_what_a_key_signed_counts_as_long_as_the_workspace_trusts_it(
    workspace: Workspace, key: SigningKey, pushed: dict[str, Any], fresh: Store, registry_host: str
) -> None:
    signed(registry_host, workspace, pushed, key)
    take(workspace, fresh, registry_host)
    (workspace.root / "keys/lab.pub").unlink()
    assert not explain(workspace, fresh, "b").known
    found = build(workspace, fresh)
    assert {(b.source, b.signer, b.cached) for b in found.values()} == {("", "", False)}


def test_an_image_whose_signatures_cannot_be_read_is_not_taken(
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
    assert "was not taken: not a descriptor" in notes[0]


def test_a_result_that_was_said_before_is_not_said_again(
    workspace: Workspace, key: SigningKey, pushed: dict[str, Any], fresh: Store, registry_host: str
) -> None:
    signed(registry_host, workspace, pushed, key)
    with Registry(registry_host) as registry:
        sign_results(
            registry, "p", workspace, pushed, key, "d" * 40, dirty=True, store=fresh, now=NOW + 1
        )
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
    key: SigningKey, pushed: dict[str, Any], fresh: Store, registry_host: str,
    predicate: dict[str, Any],
) -> None:  # fmt: skip
    image = pushed["b"].image
    with Registry(registry_host) as registry:
        state(registry, "p/b", image.manifest, key, PROVENANCE, predicate)
        assert result_signer(registry, [key.public], fresh)("p/b", image, pushed["b"].key) is None


def test_the_layers_of_an_attacker_are_found_though_the_image_has_a_signature_of_his(
    workspace: Workspace, key: SigningKey, pushed: dict[str, Any], store: Store, fresh: Store,
    registry_host: str, tmp_path: Path,
) -> None:  # fmt: skip
    image = pushed["b"].image
    bad = another(store, pushed["b"].key, image, registry_host, b"ATTACKER")
    stranger = key_pair(tmp_path, "stranger")
    with Registry(registry_host) as registry:
        mine = {"buildDefinition": {"internalParameters": {"actionKey": pushed["b"].key}}}
        state(registry, "p/b", bad.manifest, stranger, PROVENANCE, mine)
    assert take(workspace, fresh, registry_host)["b"].image == image
