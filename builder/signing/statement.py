"""What a signature says of an image, and its envelopes, as bytes: made and read back; pure.

Two forms that tools read. A Sigstore bundle with an in-toto Statement in a DSSE envelope:
https://github.com/sigstore/protobuf-specs/blob/main/protos/sigstore_bundle.proto,
https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md and
https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md. And "simple signing":
https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md. Both come from strangers: what
is not as the formats have it is a BuilderError.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from securesystemslib.dsse import Envelope

from builder.errors import BuilderError
from builder.oci import canonical
from builder.registry.http import parse, shown
from builder.signing.keys import PublicKey, SigningKey, signer

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
# The predicate of a plain signature, as cosign writes it.
SIGNED = "https://sigstore.dev/cosign/sign/v1"
_STATEMENT = "https://in-toto.io/Statement/v1"
_IN_TOTO = "application/vnd.in-toto+json"
_SIMPLE_TYPE = "cosign container image signature"


@dataclass(frozen=True, slots=True)
class Statement:
    """What the owner of `key` says of an image: a predicate, and the type that tells its form."""

    predicate_type: str
    predicate: Mapping[str, Any]
    key: PublicKey


def write_bundle(
    digest: str, key: SigningKey, predicate_type: str = SIGNED, predicate: Any = None
) -> bytes:
    """Return a bundle in which `key` says `predicate` of the manifest `digest`."""
    algorithm, _, value = digest.partition(":")
    payload = canonical.dumps(
        {
            "_type": _STATEMENT,
            "subject": [{"digest": {algorithm: value}}],
            "predicateType": predicate_type,
            "predicate": predicate or {},
        }
    )
    signature = key.sign(Envelope(payload, _IN_TOTO, {}).pae())
    return canonical.dumps(
        {
            "mediaType": BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": key.public.id}},
            "dsseEnvelope": {
                "payload": encoded(payload),
                "payloadType": _IN_TOTO,
                # No "keyid": tools form it in ways of their own, and skip a signature of another.
                "signatures": [{"sig": encoded(signature)}],
            },
        }
    )


def read_bundle(data: bytes, digest: str, keys: Iterable[PublicKey]) -> Statement:
    """Return what one of `keys` says of the manifest `digest` in the bundle `data`.

    Raises BuilderError where none of them signed it, where it is of another digest, or no bundle.
    """
    bundle = parse(data, "the bundle")
    if not str(bundle.get("mediaType", "")).startswith("application/vnd.dev.sigstore.bundle"):
        raise BuilderError(f"it is a bundle of the type {shown(bundle.get('mediaType'), 80)!r}")
    envelope = _member(bundle, "dsseEnvelope", dict)
    kind = _member(envelope, "payloadType", str)
    if kind != _IN_TOTO:
        raise BuilderError(f"its payload is of the type {shown(kind, 80)!r} and not {_IN_TOTO}")
    payload = _decoded(_member(envelope, "payload", str))
    signatures = _member(envelope, "signatures", list)
    if len(signatures) != 1:
        raise BuilderError(f"its envelope has {len(signatures)} signatures and not one")
    signature = _decoded(_member(signatures[0], "sig", str))
    key = signer(keys, signature, Envelope(payload, kind, {}).pae())
    if key is None:
        raise BuilderError(_unknown(_hint(bundle)))
    said = parse(payload, "the statement")
    if said.get("_type") != _STATEMENT:
        raise BuilderError(f"it is a statement of the type {shown(said.get('_type'), 80)!r}")
    subjects = _member(said, "subject", list)
    algorithm, _, value = digest.partition(":")
    digests = [_member(subject, "digest", dict) for subject in subjects]
    if value not in [each.get(algorithm) for each in digests]:
        raise BuilderError(f"it is of another digest, {shown(canonical.dumps(digests), 100)}")
    predicate = said.get("predicate") or {}
    if not isinstance(predicate, dict):
        raise BuilderError("its predicate is no object")
    return Statement(_member(said, "predicateType", str), predicate, key)


def write_simple(digest: str, reference: str) -> bytes:
    """Return the payload of a simple signature of the manifest `digest`, named `reference`."""
    return canonical.dumps(
        {
            "critical": {
                "identity": {"docker-reference": reference},
                "image": {"docker-manifest-digest": digest},
                "type": _SIMPLE_TYPE,
            },
            "optional": None,
        }
    )


def read_simple(
    payload: bytes, signature: str, digest: str, keys: Iterable[PublicKey]
) -> PublicKey:
    """Return the one of `keys` that signed the manifest `digest` by `payload`.

    `signature` is in base64. Raises BuilderError where none of them did, where it is of another
    digest, or no such payload.
    """
    key = signer(keys, _decoded(signature), payload)
    if key is None:
        raise BuilderError(_unknown(""))
    critical = _member(parse(payload, "the payload"), "critical", dict)
    if critical.get("type") != _SIMPLE_TYPE:
        raise BuilderError(f"its payload is of the type {shown(critical.get('type'), 80)!r}")
    found = _member(critical, "image", dict).get("docker-manifest-digest")
    if found != digest:
        raise BuilderError(f"it is of another digest, {shown(found, 80)}")
    return key


def _hint(bundle: Any) -> str:
    """Return the key that a bundle says it is of; anybody may write that."""
    for name in ("verificationMaterial", "publicKey", "hint"):
        bundle = bundle.get(name) if isinstance(bundle, dict) else None
    return str(bundle or "")


def _unknown(claimed: str) -> str:
    says = f", though it names the key {shown(claimed, 12)}" if claimed else ""
    return f"none of the keys asked for made it{says}"


def encoded(data: bytes) -> str:
    """Return `data` as both forms write bytes: base64."""
    return base64.b64encode(data).decode()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BuilderError(f"it has something else than base64: {shown(text, 40)!r}") from None


def _member(found: Any, name: str, kind: type) -> Any:
    value = found.get(name) if isinstance(found, dict) else None
    if not isinstance(value, kind):
        raise BuilderError(f"it has no {name} of the right form")
    return value
