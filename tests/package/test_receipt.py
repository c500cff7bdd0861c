"""A receipt of the function is verified by the public key alone, or said not to count."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from builder.signing.keys import SigningKey
from builder.signing.statement import write_bundle
from cli.serving import trace
from pipeline.errors import PipelineError
from pipeline.release import receipt
from tests.key_pairs import key_pair

from .conftest import ROOT

sys.path.append(str(ROOT / "stages" / "package" / "function"))

IMAGE = "r.example/served/model@sha256:" + "1" * 64
MODEL = "sha256:" + "2" * 64
PICTURE = b"a picture"
OUTCOME = {"class": "positive", "probability": 0.9, "model_digest": MODEL}


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return key_pair(tmp_path / "keys", "function")


@pytest.fixture
def signed(key: SigningKey, tmp_path: Path) -> bytes:
    """Return a receipt as the function itself makes it."""
    from function import receipts

    private = key.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (tmp_path / "plain.pem").write_bytes(private)
    signer = receipts.read(tmp_path / "plain.pem", IMAGE)
    assert signer.id == key.public.id
    return signer.sign(PICTURE, MODEL, OUTCOME, "call-7")


def test_what_the_function_signs_is_read_back(signed: bytes, key: SigningKey) -> None:
    found = receipt.read(signed, [key.public], PICTURE)
    assert (found.key, found.image, found.call) == (key.public, IMAGE, "call-7")
    assert f"sha256:{found.model}" == MODEL
    assert found.outcome == OUTCOME
    assert receipt.read(signed, [key.public]) == found


def test_another_key_or_picture_or_one_changed_byte_does_not_count(
    signed: bytes, key: SigningKey, tmp_path: Path
) -> None:
    stranger = key_pair(tmp_path / "keys", "stranger").public
    with pytest.raises(PipelineError, match="none of the keys asked for made it"):
        receipt.read(signed, [stranger], PICTURE)
    with pytest.raises(PipelineError, match="it is of another digest"):
        receipt.read(signed, [key.public], PICTURE + b"x")
    document = json.loads(signed)
    payload = base64.b64decode(document["dsseEnvelope"]["payload"])
    changed = payload.replace(b"positive", b"negative")
    assert changed != payload
    document["dsseEnvelope"]["payload"] = base64.b64encode(changed).decode()
    with pytest.raises(PipelineError, match="none of the keys asked for made it"):
        receipt.read(json.dumps(document).encode(), [key.public], PICTURE)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"dsseEnvelope": {"payload": "!"}}'])
def test_what_is_no_receipt_is_said_so(data: bytes, key: SigningKey) -> None:
    with pytest.raises(PipelineError, match="the receipt does not count"):
        receipt.read(data, [key.public])


def test_another_statement_of_the_same_key_is_no_receipt(key: SigningKey) -> None:
    """An image that the key signed is not an answer that it gave."""
    image = "sha256:" + "3" * 64
    with pytest.raises(PipelineError, match="no receipt but a statement of the type"):
        receipt.read(write_bundle(image, key), [key.public])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda said: said.pop("model"),
        lambda said: said.update(model={"digest": {"sha256": "short"}}),
        lambda said: said.update(model={"digest": {"sha256": "4" * 64}}),
        lambda said: said.update(outcome=[]),
        lambda said: said.update(image=3),
        lambda said: said.pop("time"),
    ],
)
def test_a_receipt_of_another_form_is_refused_though_it_is_signed(
    key: SigningKey, spoil: Callable[[dict[str, Any]], object]
) -> None:
    said = {
        "image": IMAGE, "model": {"digest": {"sha256": "2" * 64}}, "outcome": dict(OUTCOME),
        "call": "", "time": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    spoil(said)
    data = write_bundle("sha256:" + "3" * 64, key, receipt.PREDICATE, said)
    with pytest.raises(PipelineError, match=r"another form|other models"):
        receipt.read(data, [key.public])


def test_trace_says_what_a_receipt_holds(
    signed: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "receipt.json").write_bytes(signed)
    (tmp_path / "well.png").write_bytes(PICTURE)
    public = [str(tmp_path / "keys/function.pub")]
    trace(receipt=str(tmp_path / "receipt.json"), picture=str(tmp_path / "well.png"), key=public,
          json=True)  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert found["image"] == IMAGE
    assert found["outcome"]["class"] == "positive"
    with pytest.raises(PipelineError, match="give one of these"):
        trace(IMAGE, receipt="x")
    with pytest.raises(PipelineError, match="--picture and --key are of --receipt"):
        trace(IMAGE, key=public)
