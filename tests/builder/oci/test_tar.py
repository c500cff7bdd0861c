"""Headers are read by everything that reads tar, and do not follow this machine's `tarfile`."""

from __future__ import annotations

import hashlib
import io
import tarfile

from hypothesis import given, settings
from hypothesis import strategies as st

from builder.oci import tar

KINDS = (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE)
NAMES = st.lists(st.text("aZ0 µ€\U0001f600", min_size=1, max_size=60), min_size=1, max_size=5).map(
    "/".join
)
NUMBERS = st.integers(0, 8**13)


def info(
    name: str, kind: bytes = tarfile.REGTYPE, target: str = "", **numbers: int
) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    made.linkname = target if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
    for field, value in numbers.items():
        setattr(made, field, value)
    return made


def members(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getmembers()


@settings(max_examples=50, deadline=None)
@given(
    name=NAMES,
    kind=st.sampled_from(KINDS),
    target=NAMES,
    uid=NUMBERS,
    gid=NUMBERS,
    mtime=NUMBERS,
    mode=st.integers(0, 0o7777),
)
def test_what_is_written_is_what_is_read(
    name: str, kind: bytes, target: str, uid: int, gid: int, mtime: int, mode: int
) -> None:
    given_ = info(name, kind, target, uid=uid, gid=gid, mtime=mtime, mode=mode)
    data = tar.encode(given_) + bytes(2 * tar.BLOCK)
    assert len(data) % tar.BLOCK == 0
    (read,) = members(data)
    for field in ("name", "type", "linkname", "uid", "gid", "mtime", "mode", "uname", "gname"):
        assert getattr(read, field) == getattr(given_, field), field


@settings(max_examples=30, deadline=None)
@given(size=st.integers(0, 8**12), name=NAMES)
def test_sizes_are_kept(size: int, name: str) -> None:
    header = tar.encode(info(name, size=size))
    with tarfile.open(fileobj=io.BytesIO(header + bytes(tar.BLOCK))) as archive:
        read = archive.next()
    assert read is not None
    assert read.size == size


def test_a_name_that_is_no_unicode_is_kept() -> None:
    header = tar.encode(info("caf\udce9/" + "x" * 200)) + bytes(2 * tar.BLOCK)
    assert [member.name for member in members(header)] == ["caf\udce9/" + "x" * 200]


def test_the_bytes_are_these_on_every_host() -> None:
    headers = [
        info("usr/bin/python3", tarfile.SYMTYPE, "python3.13", mode=0o777),
        info("usr", tarfile.DIRTYPE, mode=0o755, mtime=1577836800),
        info("d/" * 60 + "µ", size=8**11, uid=8**7, gid=65532),
    ]
    data = b"".join(map(tar.encode, headers))
    assert hashlib.sha256(data).hexdigest() == DIGEST


DIGEST = "ebc2d2c545c2728f1d2bd2ccaa7d71a1fa62fb63fd4bbffb484a287fd5c042a2"
