"""Receipts: an answer that is signed together with what was asked, of which model and image.

A receipt is an in-toto Statement about the picture, in a DSSE envelope, in a Sigstore bundle:
https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md,
https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md and
https://github.com/sigstore/protobuf-specs/blob/main/protos/sigstore_bundle.proto. The library that
signs is loaded only where there is a key.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import StageError

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PREDICATE = "urn:plateline:receipt:v1"
_STATEMENT = "https://in-toto.io/Statement/v1"
_IN_TOTO = "application/vnd.in-toto+json"
_PINNED = re.compile(r"\S+@sha256:[0-9a-f]{64}")
_MAKE = "make one as docs/function.md says"


@dataclass(frozen=True)
class Receipts:
    """The key that signs, its id (SHA-256 of its public half in DER), and the image's name."""

    key: Any
    id: str
    image: str

    def sign(self, picture: bytes, model: str, outcome: Mapping[str, Any], call: str = "") -> bytes:
        """Return the receipt of an answer to `picture`; `model` is the digest of the models."""
        payload = _json(
            {
                "_type": _STATEMENT,
                "subject": [{"digest": {"sha256": hashlib.sha256(picture).hexdigest()}}],
                "predicateType": PREDICATE,
                "predicate": {
                    "image": self.image,
                    "model": {"digest": {"sha256": model.removeprefix("sha256:")}},
                    "outcome": outcome,
                    "call": call,
                    "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                },
            }
        )
        signed = b"DSSEv1 %d %s %d %s" % (len(_IN_TOTO), _IN_TOTO.encode(), len(payload), payload)
        return _json(
            {
                "mediaType": BUNDLE,
                "verificationMaterial": {"publicKey": {"hint": self.id}},
                "dsseEnvelope": {
                    "payload": base64.b64encode(payload).decode(),
                    "payloadType": _IN_TOTO,
                    "signatures": [{"sig": base64.b64encode(self._sign(signed)).decode()}],
                },
            }
        )

    def _sign(self, data: bytes) -> bytes:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        return bytes(self.key.sign(data, ec.ECDSA(hashes.SHA256())))


def read(path: Path, image: str) -> Receipts:
    """Read the key of a mounted secret: PKCS#8 in PEM, ECDSA on P-256, without a password.

    Raises StageError for another file, and where `image`, which receipts name, is not pinned.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if not _PINNED.fullmatch(image):
        raise StageError(
            f"PLATELINE_IMAGE={image!r} does not name this image by @sha256:…, as receipts do; "
            "`invoke deploy` sets it"
        )
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise StageError(f"RECEIPT_KEY: cannot read {path} ({error.strerror})") from None
    except TypeError:
        raise StageError(f"RECEIPT_KEY: {path} has a password; {_MAKE}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise StageError(f"RECEIPT_KEY: {path} is no private key in PEM; {_MAKE}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise StageError(f"RECEIPT_KEY: {path} is not of the kind ECDSA P-256; {_MAKE}")
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return Receipts(key, hashlib.sha256(public).hexdigest(), image)


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
