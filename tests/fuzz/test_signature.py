"""Fuzz jobs: what a stranger's registry or folder gives for a signature, a statement, and a key."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope

from builder.errors import BuilderError
from builder.signing import keys, statement

pytestmark = pytest.mark.slow

_DIGEST = "sha256:" + "0123456789abcdef" * 4
_WORDS = [b"null", b"[]", b"{}", b"1e999", b"true", b"NaN", b"[" * 5000, b"9" * 5000, b'"\\ud800"',
          b'"subject":', b'"signatures":', b'"payload":', b'"sig":', b"=", b'"critical":']  # fmt: skip


@pytest.fixture
def key(tmp_path: Path) -> keys.SigningKey:
    keys.generate(tmp_path / "me", b"a long password")
    return keys.read_signing(tmp_path / "me.key", lambda: b"a long password")


def test_a_bundle_that_anybody_may_have_written(fuzz, key) -> None:
    whole = statement.write_bundle(_DIGEST, key, predicate={"a": [1]})

    def read(data: bytes) -> None:
        found = statement.read_bundle(data, _DIGEST, [key.public])
        assert found.key == key.public
        assert found.predicate == {"a": [1]}, "the key never said that"

    fuzz.run(read, fuzz.mutated([whole], _WORDS), refusal=BuilderError, names="")


def test_a_statement_and_a_payload_that_a_trusted_key_did_sign(fuzz, key) -> None:
    bundle = json.loads(statement.write_bundle(_DIGEST, key))
    said = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    kind = bundle["dsseEnvelope"]["payloadType"]

    def read(made: tuple[bytes, bytes]) -> None:
        payload, simple = made
        envelope = bundle["dsseEnvelope"]
        envelope["payload"] = statement.encoded(payload)
        signature = key.sign(Envelope(payload, kind, {}).pae())
        envelope["signatures"] = [{"sig": statement.encoded(signature)}]
        try:
            found = statement.read_bundle(json.dumps(bundle).encode(), _DIGEST, [key.public])
            assert isinstance(found.predicate_type, str)
        except BuilderError:
            pass
        statement.read_simple(simple, statement.encoded(key.sign(simple)), _DIGEST, [key.public])

    simple = statement.write_simple(_DIGEST, "a.example/b")
    inputs = st.tuples(fuzz.mutated([said], _WORDS), fuzz.mutated([simple], _WORDS))
    fuzz.run(read, inputs, refusal=BuilderError, names="")


@pytest.mark.parametrize("reader", ["public", "private"])
def test_a_file_of_a_key(fuzz, key, tmp_path: Path, reader: str) -> None:
    path = tmp_path / "other.pub"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        path.chmod(0o600)
        if reader == "public":
            keys.read_public(path)
        else:
            keys.read_signing(path, lambda: b"a long password")

    samples = [(tmp_path / name).read_bytes() for name in ("me.pub", "me.key")]
    words = [b"-----BEGIN PUBLIC KEY-----\n", b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n",
             b"-----BEGIN EC PRIVATE KEY-----\n", b"-----END PUBLIC KEY-----\n", b"MIIB"]  # fmt: skip
    fuzz.run(read, fuzz.mutated(samples, words), refusal=BuilderError, names="other.pub")
