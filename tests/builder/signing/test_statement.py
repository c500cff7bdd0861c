"""A signature counts for one digest, one form and one key, whatever else its bytes say."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import BuilderError
from builder.signing.keys import SigningKey
from builder.signing.statement import (
    SIGNED,
    encoded,
    read_bundle,
    read_simple,
    write_bundle,
    write_simple,
)
from tests.key_pairs import key_pair

DIGEST, OTHER = ("sha256:" + letter * 64 for letter in "ab")
REFERENCE = "registry.test/p/x"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return key_pair(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return key_pair(tmp_path_factory.mktemp("keys"), "stranger")


def test_a_bundle_says_who_signed_what(key: SigningKey, stranger: SigningKey) -> None:
    data = write_bundle(DIGEST, key, "https://example.test/tested/v1", {"passed": True})
    said = read_bundle(data, DIGEST, [stranger.public, key.public])
    assert (said.key, said.predicate_type) == (key.public, "https://example.test/tested/v1")
    assert said.predicate == {"passed": True}
    assert data == write_bundle(DIGEST, key, "https://example.test/tested/v1", {"passed": True})


def test_a_simple_signature_says_who_signed_what(key: SigningKey, stranger: SigningKey) -> None:
    payload = write_simple(DIGEST, REFERENCE)
    signature = encoded(key.sign(payload))
    assert read_simple(payload, signature, DIGEST, [stranger.public, key.public]) == key.public


def test_a_signature_of_another_digest_does_not_count(key: SigningKey) -> None:
    with pytest.raises(BuilderError, match="it is of another digest"):
        read_bundle(write_bundle(OTHER, key), DIGEST, [key.public])
    payload = write_simple(OTHER, REFERENCE)
    with pytest.raises(BuilderError, match=f"it is of another digest, {OTHER}"):
        read_simple(payload, encoded(key.sign(payload)), DIGEST, [key.public])


def test_a_signature_of_another_key_does_not_count(key: SigningKey, stranger: SigningKey) -> None:
    with pytest.raises(BuilderError, match=f"none of the keys .*{stranger.public.id[:12]}"):
        read_bundle(write_bundle(DIGEST, stranger), DIGEST, [key.public])
    payload = write_simple(DIGEST, REFERENCE)
    with pytest.raises(BuilderError, match="none of the keys"):
        read_simple(payload, encoded(stranger.sign(payload)), DIGEST, [key.public])


def test_a_bundle_names_its_key_where_cosign_does_not_compare_it(key: SigningKey) -> None:
    """cosign skips a signature whose `keyid` is not of the form that it gives to keys itself."""
    bundle = json.loads(write_bundle(DIGEST, key))
    assert bundle["verificationMaterial"] == {"publicKey": {"hint": key.public.id}}
    assert [*bundle["dsseEnvelope"]["signatures"][0]] == ["sig"]


def test_the_key_that_a_bundle_names_makes_no_difference(
    key: SigningKey, stranger: SigningKey
) -> None:
    """Whoever writes a bundle may write any id into it."""
    bundle = json.loads(write_bundle(DIGEST, stranger))
    bundle["dsseEnvelope"]["signatures"][0]["keyid"] = key.public.id
    bundle["verificationMaterial"]["publicKey"]["hint"] = key.public.id
    with pytest.raises(BuilderError, match="none of the keys"):
        read_bundle(json.dumps(bundle).encode(), DIGEST, [key.public])
    bundle = json.loads(write_bundle(DIGEST, key))
    bundle["dsseEnvelope"]["signatures"][0]["keyid"] = ""
    del bundle["verificationMaterial"]
    assert read_bundle(json.dumps(bundle).encode(), DIGEST, [key.public]).key == key.public


def signed_statement(key: SigningKey, statement: Any) -> bytes:
    """Return a bundle of `key` around another statement than `write_bundle` makes."""
    from securesystemslib.dsse import Envelope

    kind, payload = "application/vnd.in-toto+json", json.dumps(statement).encode()
    bundle = json.loads(write_bundle(DIGEST, key))
    signature = key.sign(Envelope(payload, kind, {}).pae())
    bundle["dsseEnvelope"] |= {
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"sig": base64.b64encode(signature).decode()}],
    }
    return json.dumps(bundle).encode()


GOOD = {
    "_type": "https://in-toto.io/Statement/v1", "predicateType": SIGNED, "predicate": {},
    "subject": [{"digest": {"sha256": "a" * 64}}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"_type": "https://in-toto.io/Statement/v0.1"}, "a statement of the type"),
        ({"subject": [{"digest": {"sha512": "a" * 64}}]}, "of another digest"),
        ({"subject": []}, "of another digest"),
        ({"subject": {}}, "no subject of the right form"),
        ({"subject": [{"digest": ["a" * 64]}]}, "no digest of the right form"),
        ({"subject": [7]}, "no digest of the right form"),
        ({"predicateType": 7}, "no predicateType of the right form"),
        ({"predicate": [7]}, "its predicate is no object"),
    ],
)
def test_a_statement_that_is_signed_must_still_be_one(
    key: SigningKey, change: dict[str, Any], said: str
) -> None:
    assert read_bundle(signed_statement(key, GOOD), DIGEST, [key.public]).predicate_type == SIGNED
    with pytest.raises(BuilderError, match=said):
        read_bundle(signed_statement(key, GOOD | change), DIGEST, [key.public])


def change_envelope(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(bundle: dict[str, Any]) -> None:
        bundle["dsseEnvelope"][name] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda b: b.update(mediaType="text/plain"), "a bundle of the type 'text/plain'"),
        (lambda b: b.pop("dsseEnvelope"), "no dsseEnvelope"),
        (change_envelope("payloadType", "text/\x1b[2J"), r"payload is of the type 'text/\?\[2J'"),
        (change_envelope("payload", "%"), "something else than base64"),
        (change_envelope("payload", "\ud800"), "something else than base64"),
        (change_envelope("signatures", []), "0 signatures and not one"),
        (change_envelope("signatures", [{}] * 9), "9 signatures and not one"),
        (change_envelope("signatures", [7]), "no sig of the right form"),
        (change_envelope("signatures", [{"sig": "AAAA"}]), "none of the keys"),
    ],
)
def test_a_bundle_that_is_none_says_what_is_wrong(
    key: SigningKey, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    bundle = json.loads(write_bundle(DIGEST, key))
    change(bundle)
    with pytest.raises(BuilderError, match=said):
        read_bundle(json.dumps(bundle).encode(), DIGEST, [key.public])


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({}, "no critical"),
        ({"critical": {"type": "other", "image": {}}}, "of the type 'other'"),
        ({"critical": {"type": "cosign container image signature"}}, "no image"),
    ],
)
def test_a_simple_payload_that_is_signed_must_still_be_one(
    key: SigningKey, document: Any, said: str
) -> None:
    payload = json.dumps(document).encode()
    with pytest.raises(BuilderError, match=said):
        read_simple(payload, encoded(key.sign(payload)), DIGEST, [key.public])


@settings(deadline=None)
@given(st.data())
def test_no_change_of_a_bit_is_a_signature_of_something_else(
    key: SigningKey, data: st.DataObject
) -> None:
    """A changed bundle is refused, or says the very same: base64 and JSON have room for that."""
    made = bytearray(write_bundle(DIGEST, key, predicate={"a": 1}))
    bit = data.draw(st.integers(0, len(made) * 8 - 1))
    made[bit // 8] ^= 1 << bit % 8
    try:
        said = read_bundle(bytes(made), DIGEST, [key.public])
    except BuilderError:
        return
    assert (said.key, said.predicate_type, said.predicate) == (key.public, SIGNED, {"a": 1})


@settings(deadline=None)
@given(st.binary(max_size=300) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["dsseEnvelope", "payload", "payloadType", "signatures", "sig"]),
        inner, max_size=4),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_whatever_lies_there_is_refused_by_one_kind_of_error(key: SigningKey, data: bytes) -> None:
    with pytest.raises(BuilderError):
        read_bundle(data, DIGEST, [key.public])
    with pytest.raises(BuilderError):
        read_simple(data, encoded(key.sign(data)), DIGEST, [key.public])
