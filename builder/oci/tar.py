"""Tar headers, byte for byte by this module's own rule.

`tarfile` has changed what it writes for the same header from one Python to the next, and a layer's
digest may not follow. Source: POSIX.1-2024, pax, "ustar Interchange Format" and "pax Extended
Header"; the choices that it leaves open are those of CPython 3.11.
"""

from __future__ import annotations

import tarfile
from typing import Any

BLOCK = 512
_NAME, _LINK = 100, 100
# Longest name or header record of a tar that is read into memory.
_RECORD = 1 << 20


def encode(info: tarfile.TarInfo) -> bytes:
    """Return the header of `info`, an extended one before it where a field does not fit.

    Only files, folders and links are written: device numbers and user names stay empty.
    """
    name = info.name + "/" if info.isdir() and not info.name.endswith("/") else info.name
    texts = (("path", name, _NAME), ("linkpath", info.linkname, _LINK))
    extended = {key: text for key, text, width in texts if not text.isascii() or len(text) > width}
    numbers = {"uid": info.uid, "gid": info.gid, "size": info.size, "mtime": int(info.mtime)}
    for keyword, width in (("uid", 8), ("gid", 8), ("size", 12), ("mtime", 12)):
        if not 0 <= numbers[keyword] < 8 ** (width - 1):
            extended[keyword] = str(numbers[keyword])
            numbers[keyword] = 0
    before = _extended(extended) if extended else b""
    return before + _ustar(name, info.type, info.linkname, info.mode & 0o7777, **numbers)


def pad(size: int) -> bytes:
    """Return the zeros that follow `size` bytes of content."""
    return bytes(-size % BLOCK)


def _ustar(
    name: str, kind: bytes, link: str = "", mode: int = 0,
    uid: int = 0, gid: int = 0, size: int = 0, mtime: int = 0,
) -> bytes:  # fmt: skip
    fields = (
        _text(name, _NAME), _octal(mode, 8), _octal(uid, 8), _octal(gid, 8), _octal(size, 12),
        _octal(mtime, 12), b" " * 8, kind, _text(link, _LINK), b"ustar\x0000", bytes(32 + 32 + 16),
    )  # fmt: skip
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _extended(records: dict[str, str]) -> bytes:
    """Return a pax extended header: `length keyword=value` lines, each length its own line's."""
    encoded = {k: v.encode("utf-8", "surrogateescape") for k, v in records.items()}
    binary = any("\udc80" <= letter <= "\udcff" for v in records.values() for letter in v)
    data = b"21 hdrcharset=BINARY\n" if binary else b""
    for keyword, value in encoded.items():
        rest = b" %b=%b\n" % (keyword.encode(), value)
        length = len(rest)
        while length != len(rest) + len(str(length)):
            length = len(rest) + len(str(length))
        data += b"%d%b" % (length, rest)
    return _ustar("././@PaxHeader", tarfile.XHDTYPE, size=len(data)) + data + pad(len(data))


def _text(text: str, width: int) -> bytes:
    return text.encode("ascii", "replace")[:width].ljust(width, b"\0")


def _octal(number: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, number)


class Header(tarfile.TarInfo):
    """A header of a stranger's tar: it neither ends the archive by being damaged nor takes memory
    as it likes.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Header:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if buf.strip(b"\0"):  # the library takes it for the end of the archive
                raise tarfile.ReadError(f"a damaged header ({error})") from None
            raise

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        long = not self.isreg() and not self.issparse() and self.size > _RECORD
        if long and self.type not in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE):
            raise tarfile.ReadError(f"a header record of {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]

    def _no_holes(self, *_: object) -> Any:
        raise tarfile.ReadError("a sparse file, which can claim any size")

    _proc_sparse = _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _no_holes
