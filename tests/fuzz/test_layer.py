"""Fuzz jobs: the tar of a layer, a Debian package, and a wheel; none writes outside its folder."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import strategies as st
from isal import igzip

from builder import oci
from builder.errors import BuilderError
from builder.oci.entry import Entry
from builder.oci.layer import write_layer
from builder.packages import bytecode, debian, wheel_layout
from builder.sandbox.unpack import image_entries, unpacked
from builder.store import Store

pytestmark = pytest.mark.slow

_NAMES = ["a", "a/b", "./a", "..", "../out", "/out", "a//b", "a/../../out", "b", ".wh.a", "a/.wh..wh..opq",
          "é", "\udcff", "n" * 300, "usr/share/man/x"]  # fmt: skip
_KINDS = [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE,
          tarfile.FIFOTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, b"Z"]  # fmt: skip
_TAR_WORDS = [b"ustar", b"\x80" + b"\xff" * 11, b"path=../x\n", b"L", b"K", b"x", b"g", b"S",
              b"GNU.sparse.size=99999999999\n", b"size=99999999999999\n", b"0" * 11]  # fmt: skip


def tar(rows: list[tuple[str, bytes, str, int, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=form) as archive:
        for name, kind, target, mode, content in rows:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, target, mode
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def tars(fuzz) -> st.SearchStrategy[bytes]:
    name = st.sampled_from(_NAMES)
    row = st.tuples(
        name,
        st.sampled_from(_KINDS),
        name,
        st.sampled_from([0o644, 0o7777, 0]),
        st.binary(max_size=9),
    )
    form = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
    made = st.builds(tar, st.lists(row, max_size=6), form)
    samples = [
        tar([("a", tarfile.DIRTYPE, "", 0o755, b""), ("a/b", tarfile.REGTYPE, "", 0o644, b"x" * 600),
             ("c", tarfile.SYMTYPE, "a/b", 0o777, b""), ("d", tarfile.LNKTYPE, "a/b", 0o644, b""),
             ("n" * 150 + "/é", tarfile.REGTYPE, "", 0o4755, b"y")], form)
        for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)
    ]  # fmt: skip
    return made | fuzz.mutated(samples, _TAR_WORDS)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Yield a check that nothing beside `tmp_path/store` is there or has changed."""
    (tmp_path / "secret").write_bytes(b"of the host")

    def unchanged() -> None:
        assert sorted(path.name for path in tmp_path.iterdir()) == ["secret", "store"]
        assert (tmp_path / "secret").read_bytes() == b"of the host"

    yield unchanged
    unchanged()


def write(entries: Iterable[Entry]) -> None:
    """Write a layer, as a build does."""
    found = list(entries)
    check(found)
    write_layer(found, io.BytesIO())


def check(entries: Iterable[Entry]) -> None:
    for entry in entries:
        assert not entry.path.startswith("/")
        assert ".." not in entry.path.split("/")


def test_the_tar_of_a_layer(fuzz, store: Store, outside: Callable[[], None]) -> None:
    def read(plain: bytes) -> None:
        blob = store.add(igzip.compress(plain, 1), oci.LAYER)
        layer = oci.Layer(diff_id=oci.describe("", plain).digest, blob=blob)
        made, documents = oci.assemble({"architecture": "amd64", "os": "linux"}, (layer,))
        store.add_image(documents)
        try:
            write(image_entries(store, made))
            unpacked(store, layer)
        finally:
            outside()

    fuzz.run(read, tars(fuzz), refusal=BuilderError, names="layer sha256:")


def test_the_compressed_layer(fuzz, store: Store, outside: Callable[[], None]) -> None:
    plain = tar([("a", tarfile.REGTYPE, "", 0o644, b"x" * 600)])

    def read(data: bytes) -> None:
        layer = oci.Layer(diff_id=oci.describe("", plain).digest, blob=store.add(data, oci.LAYER))
        try:
            unpacked(store, layer)
        finally:
            outside()

    bomb = igzip.compress(bytes(200 << 20), 2)
    inputs = fuzz.mutated([igzip.compress(plain, 1), igzip.compress(plain, 1) * 2, bomb])
    fuzz.run(read, inputs, refusal=BuilderError, names="layer sha256:")


def test_a_debian_package(fuzz, tmp_path: Path, store: Store, outside: Callable[[], None]) -> None:
    path = tmp_path / "store/p_1_all.deb"
    control = tar([("control", tarfile.REGTYPE, "", 0o644, b"Package: p\nVersion: 1\n")])

    def ar(*members: tuple[bytes, bytes]) -> bytes:
        data = b"!<arch>\n"
        for name, content in members:
            data += b"%-16s%-12d%-6d%-6d%-8o%-10d`\n" % (name, 0, 0, 0, 0o100644, len(content))
            data += content + b"\n" * (len(content) % 2)
        return data

    def package(data: bytes) -> bytes:
        return ar((b"debian-binary", b"2.0\n"), (b"control.tar.gz", igzip.compress(control, 1)),
                  (b"data.tar.gz", igzip.compress(data, 1)))  # fmt: skip

    def read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            write(debian.read_deb(path, "p"))
        finally:
            outside()

    whole = package(tar([("./a", tarfile.REGTYPE, "", 0o644, b"x" * 99)]))
    words = [
        b"data.tar.xz",
        b"data.tar.zst",
        b"data.tar",
        b"control.tar",
        b"debian-binary",
        b"`\n",
        b"//",
    ]
    inputs = tars(fuzz).map(package) | fuzz.mutated([whole], words)
    fuzz.run(read, inputs, refusal=BuilderError, names="p_1_all.deb")


# Byte-code is made from what was read, in an image.
NO_INTERPRETER = bytecode.Interpreter("none", lambda *_: b"")


def test_a_wheel(fuzz, tmp_path: Path, store: Store, outside: Callable[[], None],
                 monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(bytecode, "compile_sources", lambda *_: iter(()))
    path = tmp_path / "store/p-1-py3-none-any.whl"
    metadata = b"Metadata-Version: 2.1\nName: p\nVersion: 1\n"
    about = b"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"

    def wheel(rows: list[tuple[str, bytes, int]], method: int) -> bytes:
        data = io.BytesIO()
        files = [("p-1.dist-info/METADATA", metadata, 0o644), ("p-1.dist-info/WHEEL", about, 0o644),
                 ("p-1.dist-info/RECORD", b"", 0o644)]  # fmt: skip
        with zipfile.ZipFile(data, "w", method) as archive:
            for name, content, mode in {row[0]: row for row in [*files, *rows]}.values():
                info = zipfile.ZipInfo(name)
                info.external_attr, info.compress_type = mode << 16, method
                archive.writestr(info, content)
        return data.getvalue()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            write(wheel_layout.unpack([wheel_layout.installed(path, "opt/venv")], NO_INTERPRETER))
        finally:
            outside()

    names = st.sampled_from(["p.py", "p-1.data/scripts/run", "p-1.data/data/../../x", "p-1.dist-info/WHEEL",
                             "p-1.dist-info/RECORD", "p-1.dist-info/entry_points.txt", "a\\b", "../x",
                             "/x", "q.data/purelib/x", "p-1.dist-info/METADATA", "é"])  # fmt: skip
    texts = st.sampled_from([b"", b"#!python\n", b"[console_scripts]\nx = p:y\n", b"p.py,sha256=AA,1\n",
                             b"[console_scripts\n", b"\xff", b"p.py,md5=,x\n,,,,\n", b"Wheel-Version: 9\n",
                             b"[console_scripts]\n../x = p:y\n"])  # fmt: skip
    modes = st.sampled_from([0o100644, 0o120777, 0o100755, 0])
    rows = st.lists(st.tuples(names, texts, modes), max_size=5)
    made = st.builds(wheel, rows, st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    whole = wheel([("p.py", b"x = 1\n", 0o100644)], zipfile.ZIP_DEFLATED)
    words = [
        b"PK\x01\x02",
        b"PK\x03\x04",
        b"PK\x05\x06",
        b"\xff\xff\xff\xff",
        b"\x08\0",
        b"\x0e\0",
        b"\x01",
    ]
    inputs = made | fuzz.mutated([whole], words)
    fuzz.run(read, inputs, refusal=BuilderError, names="p-1-py3-none-any.whl")
