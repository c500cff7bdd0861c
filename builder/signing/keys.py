"""Key pairs: made, read from files, and used to sign and to verify.

One kind: ECDSA on the curve P-256 with SHA-256, which cosign makes and reads too. A public key is a
PEM file (SubjectPublicKeyInfo), a private one a PEM file of PKCS#8 with a password (RFC 5958). All
the cryptography is that of the library `cryptography`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from builder.errors import BuilderError
from builder.signing import named

# A key file has some hundred bytes.
_LARGEST = 64 << 10
# The library derives a PKCS#8 key's cipher key by 2048 rounds of PBKDF2, and lets nobody choose.
_SHORTEST = 12
_PRIVATE, _PUBLIC = 0o600, 0o644
_KEYGEN = "make a key pair with `invoke keygen`"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key: the name that its owner is known by here, and its id.

    `id` is the SHA-256 of the key's DER form (SubjectPublicKeyInfo), as 64 hexadecimal digits.
    """

    name: str
    id: str
    key: ec.EllipticCurvePublicKey = field(repr=False, compare=False)

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Tell whether `signature` is this key's over `data`."""
        try:
            self.key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True

    def __str__(self) -> str:
        """Return the name, with the first digits of the id."""
        return f"{self.name} ({self.id[:12]})"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and its public half."""

    public: PublicKey
    key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)

    def sign(self, data: bytes) -> bytes:
        """Return this key's signature over `data` (ASN.1 DER); the same data gives the same one.

        ECDSA takes a random number for each signature, as other tools do it; here it follows from
        key and data (RFC 6979), so that a release which is signed again is the same to the bit.
        """
        return self.key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def generate(path: Path, password: bytes) -> PublicKey:
    """Write a new key pair as `path`.key, for its owner only, and `path`.pub; return the latter.

    Raises BuilderError where one of the files is there, cannot be written, or the password is
    short.
    """
    if len(password) < _SHORTEST:
        raise BuilderError(
            f"the password has {len(password)} bytes; take {_SHORTEST} or more, since whoever gets "
            "the file can try passwords as fast as machines can"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    files = [(path.with_name(f"{path.name}.key"), private, _PRIVATE),
             (path.with_name(f"{path.name}.pub"), public, _PUBLIC)]  # fmt: skip
    written: list[Path] = []
    try:
        for file, data, mode in files:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            written.append(file)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
    except OSError as error:
        for made in written:
            made.unlink(missing_ok=True)
        advice = (
            "a key is never written over; choose another name"
            if isinstance(error, FileExistsError)
            else "choose a folder that you may write to"
        )
        raise BuilderError(f"writing the key {file} failed ({error.strerror}); {advice}") from None
    return _named(path.name, key.public_key())


def read_public(path: Path) -> PublicKey:
    """Read a public key from a PEM file; its name is the file's without the suffix.

    Raises BuilderError where it cannot be read, and for keys of another kind, which are named.
    """
    data = _file(path)
    if b"PRIVATE KEY" in data:
        raise BuilderError(f"{path} holds a private key; name the public one, which ends with .pub")
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise BuilderError(f"{path} is no public key in the PEM format; {_KEYGEN}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise _other_kind(path, key)
    return _named(path.stem, key)


def read_signing(path: Path, password: Callable[[], bytes]) -> SigningKey:
    """Read a private key from a PEM file; `password` is asked once the file can be one.

    Raises BuilderError where it cannot be read or others may read it, for a wrong password, for a
    key that has none, and for keys of another kind, which are named.
    """
    data = _file(path)
    check_private(path)
    if b"-----BEGIN ENCRYPTED SIGSTORE" in data or b"-----BEGIN ENCRYPTED COSIGN" in data:
        raise BuilderError(
            f"{path} is in cosign's own format, which only cosign reads; {_KEYGEN}, and cosign "
            "imports it (docs/signatures.md)"
        )
    if b"-----BEGIN ENCRYPTED PRIVATE KEY-----" not in data:
        if b"PRIVATE KEY-----" in data:
            raise BuilderError(
                f"{path} is a private key without a password; give it one with "
                f"`openssl pkcs8 -topk8 -in {path} -out NEW`"
            )
        raise BuilderError(f"{path} is no private key in the PEM format (PKCS#8); {_KEYGEN}")
    try:
        key = serialization.load_pem_private_key(data, password())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BuilderError(
            f"{path} could not be opened: the password is wrong, or the file is damaged"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise _other_kind(path, key)
    return SigningKey(_named(path.stem, key.public_key()), key)


def check_private(path: Path) -> None:
    """Raise BuilderError where others than the owner may read or write the file at `path`."""
    if path.stat().st_mode & 0o077:
        raise BuilderError(f"others may read {path}; run `chmod 600 {path}`")


def trusted(root: Path) -> tuple[PublicKey, ...]:
    """Return the keys that the workspace at `root` trusts, `keys/*.pub`; none without the folder.

    Raises BuilderError for a file there that is no key, and for a key that is revoked as well.
    """
    found = tuple(read_public(path) for path in named.files(root))
    for key in found:
        check_revoked(root, key)
    return found


def check_revoked(root: Path, key: PublicKey) -> None:
    """Raise BuilderError where `keys/revoked/*.pub` of the workspace holds `key`, by any name."""
    for path in sorted((root / named.FOLDER / "revoked").glob("*.pub")):
        if read_public(path).id == key.id:
            raise BuilderError(
                f"the key {key} is revoked: {path} is the same; take another key, or remove that "
                "file if it was put there by mistake"
            )


def signer(keys: Iterable[PublicKey], signature: bytes, data: bytes) -> PublicKey | None:
    """Return the one of `keys` whose signature over `data` this is, or None."""
    return next((key for key in keys if key.verifies(signature, data)), None)


def _file(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
    except OSError as error:
        raise BuilderError(f"the key {path} cannot be read ({error.strerror})") from None
    if len(data) > _LARGEST:
        raise BuilderError(f"{path} is larger than any key; {_KEYGEN}")
    return data


def _named(name: str, key: ec.EllipticCurvePublicKey) -> PublicKey:
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return PublicKey(name, hashlib.sha256(der).hexdigest(), key)


def _other_kind(path: Path, key: object) -> BuilderError:
    """Return the refusal of a key that is not of the one kind, with what it is."""
    curve = getattr(getattr(key, "curve", None), "name", "")
    kind = curve or type(key).__name__.lstrip("_").removesuffix("Key").removesuffix("Private")
    kind = kind.removesuffix("Public")
    return BuilderError(
        f"{path} is a key of the kind {kind}; plateline signs and verifies with ECDSA on P-256 "
        f"(secp256r1) only: {_KEYGEN}"
    )
