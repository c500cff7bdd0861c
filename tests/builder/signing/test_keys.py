"""A key pair is written once, opened by its owner alone, and of one kind."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import BuilderError
from builder.signing.keys import (
    SigningKey,
    generate,
    read_public,
    read_signing,
    signer,
    trusted,
)
from tests.conftest import missing
from tests.key_pairs import OTHER_KINDS, PASSWORD, key_pair, write_other_kind


def no_password() -> bytes:
    raise AssertionError("the password was asked for")


def test_what_a_key_signs_its_public_half_verifies_and_no_other(tmp_path: Path) -> None:
    mine, other = key_pair(tmp_path), key_pair(tmp_path, "other")
    public = read_public(tmp_path / "lab.pub")
    assert public == mine.public
    signature = mine.sign(b"data")
    assert signer([other.public, public], signature, b"data") == public
    assert signer([public], signature, b"other data") is None
    assert signer([other.public], signature, b"data") is None


def test_the_same_data_gives_the_same_signature(tmp_path: Path) -> None:
    key = key_pair(tmp_path)
    assert key.sign(b"data") == key.sign(b"data") != key.sign(b"date")


def test_the_id_is_the_hash_of_the_public_key_as_openssl_writes_it(tmp_path: Path) -> None:
    key_pair(tmp_path)
    if not shutil.which("openssl"):
        missing("openssl", "apt-get install openssl")
    words = ["openssl", "pkey", "-pubin", "-in", str(tmp_path / "lab.pub"), "-outform", "DER"]
    der = subprocess.run(words, check=True, capture_output=True).stdout
    assert read_public(tmp_path / "lab.pub").id == hashlib.sha256(der).hexdigest()


def test_a_private_key_is_for_its_owner_only_and_the_password_is_not_in_it(tmp_path: Path) -> None:
    key_pair(tmp_path)
    private = tmp_path / "lab.key"
    assert private.stat().st_mode & 0o777 == 0o600
    text = private.read_bytes()
    assert text.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    assert PASSWORD not in text


@pytest.mark.parametrize("there", ["lab.key", "lab.pub"])
def test_a_key_is_never_written_over(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("dear")
    with pytest.raises(BuilderError, match=rf"{there} failed .*never written over"):
        generate(tmp_path / "lab", PASSWORD)
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "dear"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuilderError, match=r"nowhere/lab.key failed \(No such file"):
        generate(tmp_path / "nowhere/lab", PASSWORD)


@pytest.mark.parametrize("password", [b"", b"short", b"x" * 11])
def test_a_short_password_is_refused(tmp_path: Path, password: bytes) -> None:
    with pytest.raises(BuilderError, match=f"the password has {len(password)} bytes"):
        generate(tmp_path / "lab", password)
    assert not list(tmp_path.iterdir())


def test_a_wrong_password_is_said(tmp_path: Path) -> None:
    key_pair(tmp_path)
    with pytest.raises(BuilderError, match=r"lab.key could not be opened: the password is wrong"):
        read_signing(tmp_path / "lab.key", lambda: b"another password")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_private_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    key_pair(tmp_path)
    (tmp_path / "lab.key").chmod(mode)
    with pytest.raises(BuilderError, match=r"others may read .*lab.key; run `chmod 600"):
        read_signing(tmp_path / "lab.key", no_password)


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_a_key_of_another_kind_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    write_other_kind(tmp_path / "x", kind)
    with pytest.raises(BuilderError, match=rf"x.key is a key of the kind {kind}; .*P-256"):
        read_signing(tmp_path / "x.key", lambda: PASSWORD)
    with pytest.raises(BuilderError, match=rf"x.pub is a key of the kind {kind}; .*P-256"):
        read_public(tmp_path / "x.pub")


def pem(kind: str) -> bytes:
    return f"-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n".encode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (pem("ENCRYPTED SIGSTORE PRIVATE KEY"), "in cosign's own format"),
        (pem("ENCRYPTED COSIGN PRIVATE KEY"), "in cosign's own format"),
        (pem("PRIVATE KEY"), "without a password; give it one with `openssl pkcs8 -topk8"),
        (pem("EC PRIVATE KEY"), "without a password"),
        (pem("PUBLIC KEY"), "is no private key"),
        (b"", "is no private key"),
        (b"x" * 70_000, "larger than any key"),
    ],
)
def test_what_is_no_private_key_is_refused_before_a_password_is_asked_for(
    tmp_path: Path, data: bytes, said: str
) -> None:
    path = tmp_path / "lab.key"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(BuilderError, match=said):
        read_signing(path, no_password)


@pytest.mark.parametrize(
    ("data", "said"),
    [(pem("ENCRYPTED PRIVATE KEY"), "holds a private key"), (pem("CERTIFICATE"), "no public key"),
     (pem("PUBLIC KEY"), "no public key"), (b"\xff" * 9, "no public key")],
)  # fmt: skip
def test_what_is_no_public_key_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "x.pub").write_bytes(data)
    with pytest.raises(BuilderError, match=rf"x.pub .*{said}"):
        read_public(tmp_path / "x.pub")


def test_a_key_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuilderError, match=r"the key .*x.key cannot be read \(No such file"):
        read_signing(tmp_path / "x.key", no_password)


def test_a_workspace_trusts_the_keys_in_its_folder_and_refuses_what_is_none(tmp_path: Path) -> None:
    assert trusted(tmp_path) == ()
    made = [key_pair(tmp_path / "keys", name).public for name in ("b", "a")]
    assert trusted(tmp_path) == (made[1], made[0])
    (tmp_path / "keys" / "c.pub").write_text("no key")
    with pytest.raises(BuilderError, match=r"keys/c.pub is no public key"):
        trusted(tmp_path)


def test_openssl_makes_the_password_harder_to_try_and_the_key_stays_readable(
    tmp_path: Path,
) -> None:
    if not shutil.which("openssl"):
        missing("openssl", "apt-get install openssl")
    key = key_pair(tmp_path)
    words = ["openssl", "pkcs8", "-topk8", "-scrypt", "-in", "lab.key", "-out", "strong.key"]
    environment = {"PATH": "/usr/bin:/bin", "P": PASSWORD.decode()}
    words += ["-passin", "env:P", "-passout", "env:P"]
    subprocess.run(words, cwd=tmp_path, env=environment, check=True)
    (tmp_path / "strong.key").chmod(0o600)
    found = read_signing(tmp_path / "strong.key", lambda: PASSWORD)
    assert found.public.id == key.public.id


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return key_pair(tmp_path_factory.mktemp("keys"))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_signature_verify_nothing(key: SigningKey, data: bytes) -> None:
    assert signer([key.public], data, b"data") is None
