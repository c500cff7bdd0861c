"""Signatures in a registry are found again in both forms, and what strangers put there is not."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder import oci
from builder.errors import BuilderError
from builder.oci import canonical
from builder.registry.artifacts import attach
from builder.registry.client import Registry
from builder.registry.connection import RegistryError
from builder.signing.keys import SigningKey
from builder.signing.signatures import (
    Found,
    sign,
    signature_tag,
    signatures,
    signers,
    state,
    statements,
)
from builder.signing.statement import BUNDLE, SIMPLE, write_bundle
from tests.builder.registry_in_memory import with_referrers
from tests.key_pairs import key_pair

IMAGE, OTHER = (oci.describe(oci.MANIFEST, data) for data in (b"an image", b"another"))
TESTED = "https://example.test/tested/v1"


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return key_pair(tmp_path)


@pytest.fixture
def stranger(tmp_path: Path) -> SigningKey:
    return key_pair(tmp_path, "stranger")


@pytest.fixture
def registry(registry_host: str) -> Iterator[Registry]:
    """Yield Debian's registry, which does not know referrers."""
    with Registry(registry_host) as client:
        yield client


@pytest.fixture
def modern() -> Iterator[tuple[Registry, dict[str, bytes], set[str]]]:
    """Yield a registry that does, what it keeps, and the names of manifests that it refuses."""
    with with_referrers() as (host, kept, failing), Registry(host) as client:
        yield client, kept, failing


def forms(found: list[Found], key: SigningKey) -> list[str]:
    return [each.form for each in found if each.key == key.public]


def test_a_signature_is_found_in_both_forms_and_signing_again_adds_nothing(
    registry: Registry, key: SigningKey
) -> None:
    sign(registry, "p/x", IMAGE, key)
    tags = registry.tags("p/x")
    before = [registry.get_manifest("p/x", tag) for tag in tags]
    sign(registry, "p/x", IMAGE, key)
    assert [registry.get_manifest("p/x", tag) for tag in registry.tags("p/x")] == before
    found = signatures(registry, "p/x", IMAGE.digest, [key.public])
    assert found == [Found("bundle", key.public), Found("tag", key.public)]
    assert signature_tag(IMAGE.digest) in tags


def test_a_registry_with_referrers_gets_no_further_tag(
    modern: tuple[Registry, dict[str, bytes], set[str]], key: SigningKey
) -> None:
    client, kept, _ = modern
    sign(client, "p/x", IMAGE, key)
    assert forms(signatures(client, "p/x", IMAGE.digest, [key.public]), key) == ["bundle", "tag"]
    assert [name for name in kept if name.startswith("sha256-")] == [signature_tag(IMAGE.digest)]


def test_two_keys_sign_beside_each_other(
    registry: Registry, key: SigningKey, stranger: SigningKey
) -> None:
    for each in (key, stranger, key):
        sign(registry, "p/x", IMAGE, each)
    found = signatures(registry, "p/x", IMAGE.digest, [key.public, stranger.public])
    assert forms(found, key) == forms(found, stranger) == ["bundle", "tag"]
    assert len(found) == 4


def test_who_asks_for_one_key_is_told_that_the_others_do_not_count(
    registry: Registry, key: SigningKey, stranger: SigningKey
) -> None:
    sign(registry, "p/x", IMAGE, stranger)
    found = signatures(registry, "p/x", IMAGE.digest, [key.public])
    assert [(each.form, each.key) for each in found] == [("bundle", None), ("tag", None)]
    assert all("none of the keys asked for made it" in each.problem for each in found)
    assert signers(registry, "p/x", IMAGE.digest, [key.public]) == []
    assert signers(registry, "p/x", IMAGE.digest, [key.public, stranger.public]) == [
        stranger.public
    ]


def test_what_is_not_signed_has_no_signatures(registry: Registry, key: SigningKey) -> None:
    assert signatures(registry, "p/x", IMAGE.digest, [key.public]) == []
    assert signers(registry, "p/x", IMAGE.digest, [key.public]) == []


def test_signatures_of_another_image_replayed_at_this_one_do_not_count(
    registry: Registry, key: SigningKey
) -> None:
    sign(registry, "p/x", OTHER, key)
    moved = registry.get_manifest("p/x", signature_tag(OTHER.digest))
    assert moved
    registry.put_manifest("p/x", signature_tag(IMAGE.digest), moved[1], oci.MANIFEST)
    attach(registry, "p/x", IMAGE, write_bundle(OTHER.digest, key), BUNDLE, {})
    found = signatures(registry, "p/x", IMAGE.digest, [key.public])
    assert [each.key for each in found] == [None, None]
    assert all("it is of another digest" in each.problem for each in found)


def test_a_key_that_says_something_else_of_an_image_has_not_signed_it(
    registry: Registry, key: SigningKey
) -> None:
    """That a test failed, for example, is no signature."""
    state(registry, "p/x", IMAGE, key, TESTED, {"passed": False})
    assert signers(registry, "p/x", IMAGE.digest, [key.public]) == []
    (said,) = statements(registry, "p/x", IMAGE.digest, [key.public], TESTED)
    assert said.predicate == {"passed": False}
    # Neither does it help to call that a signature beside the signed bytes.
    bundle = write_bundle(IMAGE.digest, key, TESTED, {"passed": False})
    attach(registry, "p/x", IMAGE, bundle, BUNDLE, {
        "dev.sigstore.bundle.predicateType": "https://sigstore.dev/cosign/sign/v1"})  # fmt: skip
    assert signers(registry, "p/x", IMAGE.digest, [key.public]) == []


def put_simple(registry: Registry, size: int, data: bytes, signature: str, copies: int = 1) -> None:
    """Put a signature tag whose layers claim `size` bytes."""
    config, layer = oci.describe(oci.CONFIG, b"{}"), oci.describe(SIMPLE, data)
    for blob, content in ((config, b"{}"), (layer, data)):
        registry.put_blob("p/x", blob, lambda content=content: io.BytesIO(content))
    entry = layer.to_json() | {
        "size": size, "annotations": {"dev.cosignproject.cosign/signature": signature}
    }  # fmt: skip
    document = {"schemaVersion": 2, "mediaType": oci.MANIFEST, "config": config.to_json(),
                "layers": [entry] * copies}  # fmt: skip
    name = signature_tag(IMAGE.digest)
    registry.put_manifest("p/x", name, canonical.dumps(document), oci.MANIFEST)


def test_a_signature_of_megabytes_is_not_read(
    modern: tuple[Registry, dict[str, bytes], set[str]], key: SigningKey
) -> None:
    client, kept, _ = modern
    put_simple(client, 5 << 20, b"x" * (5 << 20), "AAAA")
    attach(client, "p/x", IMAGE, b" " * (5 << 20), BUNDLE, {})
    found = signatures(client, "p/x", IMAGE.digest, [key.public])
    assert [each.key for each in found] == [None, None]
    assert all("it was not read" in each.problem for each in found)
    assert len(kept) > 4


def test_only_so_many_signatures_are_read(
    modern: tuple[Registry, dict[str, bytes], set[str]], key: SigningKey
) -> None:
    client, _, _ = modern
    put_simple(client, 2, b"{}", "AAAA", copies=500)
    found = signatures(client, "p/x", IMAGE.digest, [key.public])
    assert len(found) == 65
    assert "there are 500 of them, and only the first 64 were read" in found[0].problem


@pytest.mark.parametrize(
    ("document", "said"),
    [(b'{"layers": 7}', "no manifest with layers"), (b"[7]", "something else than a JSON object"),
     (b'{"layers": [7]}', "not a descriptor")],
)  # fmt: skip
def test_a_tag_that_holds_something_else_is_left_alone(
    modern: tuple[Registry, dict[str, bytes], set[str]], key: SigningKey, document: bytes, said: str
) -> None:
    client, kept, _ = modern
    kept[signature_tag(IMAGE.digest)] = document
    with pytest.raises(BuilderError, match=said):
        sign(client, "p/x", IMAGE, key)
    assert kept[signature_tag(IMAGE.digest)] == document
    found = signatures(client, "p/x", IMAGE.digest, [key.public])
    assert found[0] == Found("bundle", key.public)
    assert said in found[1].problem


def test_a_manifest_that_the_registry_lost_counts_for_nothing(
    modern: tuple[Registry, dict[str, bytes], set[str]], key: SigningKey
) -> None:
    client, kept, _ = modern
    sign(client, "p/x", IMAGE, key)
    (bundle,) = [name for name, data in kept.items()
                 if name.startswith("sha256:") and data.startswith(b'{"dsseEnvelope"')]  # fmt: skip
    del kept[bundle]
    found = signatures(client, "p/x", IMAGE.digest, [key.public])
    assert [(each.form, each.key) for each in found] == [("bundle", None), ("tag", key.public)]


def test_an_error_while_signing_is_raised_and_leaves_no_tag(
    modern: tuple[Registry, dict[str, bytes], set[str]], key: SigningKey
) -> None:
    client, kept, failing = modern
    failing.add(signature_tag(IMAGE.digest))
    with pytest.raises(RegistryError, match="403"):
        sign(client, "p/x", IMAGE, key)
    assert signature_tag(IMAGE.digest) not in kept
    failing.clear()
    sign(client, "p/x", IMAGE, key)
    assert forms(signatures(client, "p/x", IMAGE.digest, [key.public]), key) == ["bundle", "tag"]


def test_a_change_of_a_signature_that_is_there_is_noticed(
    registry: Registry, key: SigningKey
) -> None:
    sign(registry, "p/x", IMAGE, key)
    found = registry.get_manifest("p/x", signature_tag(IMAGE.digest))
    assert found
    document = json.loads(found[1])
    notes = document["layers"][0]["annotations"]
    (name,) = notes
    notes[name] = notes[name].swapcase()
    registry.put_manifest(
        "p/x", signature_tag(IMAGE.digest), canonical.dumps(document), oci.MANIFEST
    )
    tagged = [f for f in signatures(registry, "p/x", IMAGE.digest, [key.public]) if f.form == "tag"]
    assert [each.key for each in tagged] == [None]
