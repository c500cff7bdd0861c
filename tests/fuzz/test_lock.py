"""Fuzz jobs: the locks of wheels and of Debian packages, and their index."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import BuilderError
from builder.packages import debian, wheels
from builder.packages.lock_file import Requirements, in_hash

pytestmark = pytest.mark.slow

_HEX = b"0123456789abcdef" * 4


def test_a_lock_of_wheels(fuzz, tmp_path: Path) -> None:
    (tmp_path / "requirements.in").write_text("numpy\n")
    head = b"# made from requirements.in " + in_hash(tmp_path, "requirements.in").encode() + b"\n"
    sample = head + b"numpy==2.4.6 --hash=sha256:" + _HEX + b"  # 1234 bytes\n" * 2

    def read(data: bytes) -> None:
        (tmp_path / wheels.LOCK).write_bytes(data)
        wheels.check_one_version([Requirements(tmp_path)])
        wheels.read_lock(Requirements(tmp_path))

    inputs = fuzz.mutated(
        [sample], [b"==", b" --hash=sha256:", b"# made from ", b"\r", "é".encode()]
    )
    fuzz.run(read, inputs, refusal=BuilderError, names=wheels.LOCK)


def test_a_lock_of_debian_packages(fuzz, tmp_path: Path) -> None:
    (tmp_path / "debian.in").write_text("libc6\n")
    head = b"# made from debian.in " + in_hash(tmp_path, "debian.in").encode() + b"\n"
    line = b"libc6 2.41-12 pool/main/g/glibc/libc6_2.41-12_amd64.deb 2846344 " + _HEX + b"\n"

    def read(data: bytes) -> None:
        (tmp_path / "debian.lock").write_bytes(data)
        debian.read_lock(tmp_path)

    inputs = fuzz.mutated(
        [head + line * 2], [b"../", "²".encode(), b"9" * 5000, b"suite ", b"\x0b"]
    )
    fuzz.run(read, inputs, refusal=BuilderError, names="debian.lock")


def test_a_requirements_file(fuzz, tmp_path: Path) -> None:
    (tmp_path / "other.in").write_text("numpy\n-r requirements.in\n")

    def read(data: bytes) -> None:
        (tmp_path / "requirements.in").write_bytes(data)
        in_hash(tmp_path, "requirements.in")

    inputs = fuzz.mutated(
        [b"-r other.in\n-c other.in\nnumpy>=2\n"], [b"-r ", b"-c=", b"://", b"../", b"'"]
    )
    fuzz.run(read, inputs, refusal=BuilderError, names=str(tmp_path))
