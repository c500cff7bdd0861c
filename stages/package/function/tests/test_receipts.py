"""A receipt says under a key what was asked, of which models and image, and what came out."""

import base64
import hashlib
import json
from pathlib import Path

import pytest
from common.errors import StageError
from conftest import encode, launch, tile
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from function import receipts

IMAGE = "r.example/served/model@sha256:" + "1" * 64
PICTURE = encode(tile())


def pem(key, password=None):
    encryption = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, encryption)


@pytest.fixture
def key(tmp_path):
    made = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "receipt.key").write_bytes(pem(made))
    return made


@pytest.fixture
def signing(start, key, tmp_path):
    with start(RECEIPT_KEY=str(tmp_path / "receipt.key"), PLATELINE_IMAGE=IMAGE) as function:
        yield function


def verified(data, public):
    """Return the statement of a receipt whose signature is that of `public`."""
    envelope = json.loads(data)["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    (signature,) = envelope["signatures"]
    public.verify(base64.b64decode(signature["sig"]), signed, ec.ECDSA(hashes.SHA256()))
    return json.loads(payload)


def test_who_accepts_a_receipt_gets_the_answer_in_one(signing, key):
    plain = signing.ask(body=PICTURE)
    assert plain.headers["content-type"] == "application/json"
    answer = signing.ask(body=PICTURE, Accept=receipts.BUNDLE, X_Call_Id="call-7")
    assert (answer.status, answer.headers["content-type"]) == (200, receipts.BUNDLE)
    statement = verified(answer.body, key.public_key())
    assert statement["subject"] == [{"digest": {"sha256": hashlib.sha256(PICTURE).hexdigest()}}]
    said = statement["predicate"]
    assert said["outcome"] == plain.json
    assert said["model"]["digest"]["sha256"] == plain.json["model_digest"].removeprefix("sha256:")
    assert (said["image"], said["call"]) == (IMAGE, "call-7")
    with pytest.raises(InvalidSignature):
        verified(answer.body, ec.generate_private_key(ec.SECP256R1()).public_key())


def test_the_picture_counts_and_not_what_carried_it(signing, key):
    body = json.dumps({"image": base64.b64encode(PICTURE).decode()})
    answer = signing.ask(body=body, Accept=receipts.BUNDLE, Content_Type="application/json")
    (subject,) = verified(answer.body, key.public_key())["subject"]
    assert subject["digest"]["sha256"] == hashlib.sha256(PICTURE).hexdigest()


def test_a_refusal_has_no_receipt(signing):
    answer = signing.ask(body=b"no picture", Accept=receipts.BUNDLE)
    assert (answer.status, answer.headers["content-type"]) == (400, "application/json")


def test_without_a_key_there_is_none_and_nothing_else_changes(function):
    answer = function.ask(body=PICTURE, Accept=receipts.BUNDLE)
    assert answer.status == 406
    assert answer.json == {"error": "this function has no key to sign receipts with"}
    assert function.ask(body=PICTURE, Accept="application/json, */*").status == 200
    maps = Path(f"/proc/{function.process.pid}/maps").read_text()
    assert "cryptography" not in maps, "what signs is not even loaded"


@pytest.mark.parametrize(
    ("content", "image", "says"),
    [
        (b"", IMAGE, "is no private key in PEM"),
        (pem(ed25519.Ed25519PrivateKey.generate()), IMAGE, "is not of the kind ECDSA P-256"),
        (pem(ec.generate_private_key(ec.SECP384R1())), IMAGE, "is not of the kind ECDSA P-256"),
        (pem(ec.generate_private_key(ec.SECP256R1()), b"secret"), IMAGE, "has a password"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "", "does not name this image"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "model:v1", "does not name this image"),
    ],
)
def test_a_key_that_cannot_sign_is_named_and_its_content_is_not(tmp_path, content, image, says):
    (tmp_path / "receipt.key").write_bytes(content)
    with pytest.raises(StageError, match=says) as caught:
        receipts.read(tmp_path / "receipt.key", image)
    lines = content.decode().splitlines()[1:-1]
    assert not any(line in str(caught.value) for line in lines)


def test_a_key_that_is_not_there_ends_the_function(models, tmp_path):
    lost = str(tmp_path / "lost.key")
    function = launch(models, tmp_path / "log", RECEIPT_KEY=lost, PLATELINE_IMAGE=IMAGE)
    assert function.process.wait(20) == 1
    assert "RECEIPT_KEY: cannot read" in function.log.read_text()
    assert "Traceback" not in function.log.read_text()
