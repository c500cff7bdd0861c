"""A receipt of the served function, verified by a public key alone, without any network.

Its form is stages/package/function/function/receipts.py's; the two know nothing of each other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from builder.errors import BuilderError
from builder.registry.http import parse
from builder.signing.keys import PublicKey
from builder.signing.statement import read_bundle
from pipeline.errors import PipelineError

PREDICATE = "urn:plateline:receipt:v1"
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a key says: which picture was asked about, of which models and image, what came out.

    `picture` and `model` are SHA-256, the latter of the models' manifest. `call` is the request's
    X-Call-Id, and `time` the function's clock.
    """

    key: PublicKey
    picture: str
    model: str
    image: str
    outcome: Mapping[str, Any]
    call: str
    time: str


def read(data: bytes, keys: Sequence[PublicKey], picture: bytes | None = None) -> Receipt:
    """Return what one of `keys` says in a receipt, about `picture` if that is given.

    Raises PipelineError where none of them signed it, where it is of another picture, or no
    receipt.
    """
    try:
        said = hashlib.sha256(picture).hexdigest() if picture is not None else _subject(data)
        statement = read_bundle(data, f"sha256:{said}", keys)
    except BuilderError as error:
        raise PipelineError(f"the receipt does not count: {error}") from None
    if statement.predicate_type != PREDICATE:
        raise PipelineError(
            f"it is no receipt but a statement of the type {statement.predicate_type[:80]!r}"
        )
    found = statement.predicate
    try:
        model, outcome = found["model"]["digest"]["sha256"], found["outcome"]
        texts = [found[name] for name in ("image", "call", "time")]
    except (KeyError, TypeError):
        model, outcome, texts = "", None, []
    if (
        not isinstance(model, str)
        or not _HEX.fullmatch(model)
        or not isinstance(outcome, dict)
        or not all(isinstance(text, str) for text in texts)
    ):
        raise PipelineError("the receipt is signed, and has another form than the function gives")
    # The function answers with the digest of its models too: both are in what was signed.
    if outcome.get("model_digest") != f"sha256:{model}":
        raise PipelineError("the receipt names other models than the answer in it")
    image, call, time = texts
    return Receipt(statement.key, said, model, image, outcome, call, time)


def _subject(data: bytes) -> str:
    """Return which picture a receipt says that it is of; whether a key says so is asked later."""
    try:
        envelope = parse(data, "the receipt")["dsseEnvelope"]
        statement = parse(base64.b64decode(envelope["payload"]), "its statement")
        return str(statement["subject"][0]["digest"]["sha256"])
    except (KeyError, IndexError, TypeError, ValueError, binascii.Error):
        raise BuilderError("it is no Sigstore bundle with a statement") from None
