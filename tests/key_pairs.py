"""Key pairs for tests, of plateline and of other kinds."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from builder.signing.keys import SigningKey, generate, read_signing

PASSWORD = b"correct horse battery"


def key_pair(folder: Path, name: str = "lab") -> SigningKey:
    """Write NAME.key and NAME.pub into `folder` and return the private one."""
    folder.mkdir(parents=True, exist_ok=True)
    generate(folder / name, PASSWORD)
    return read_signing(folder / f"{name}.key", lambda: PASSWORD)


OTHER_KINDS = {
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "secp384r1": lambda: ec.generate_private_key(ec.SECP384R1()),
}


def write_other_kind(path: Path, kind: str) -> None:
    """Write a private key of another kind as `path`.key, with the password, and `path`.pub."""
    key = OTHER_KINDS[kind]()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(PASSWORD),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    path.with_suffix(".key").write_bytes(private)
    path.with_suffix(".key").chmod(0o600)
    path.with_suffix(".pub").write_bytes(public)
