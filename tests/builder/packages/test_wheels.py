"""A wheel becomes a layer without being compressed again, and without its test suites."""

from __future__ import annotations

import hashlib
import io
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from isal import igzip

from builder.errors import BuilderError
from builder.oci import layer
from builder.oci.entry import Entry
from builder.packages import bytecode
from builder.packages.wheels import SITE, unpack

NOBODY = bytecode.Interpreter(key="none", run=lambda _script, _records: b"")
BIG = b"".join(number.to_bytes(2, "big") for number in range(40_000))


def wheel(folder: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder / "p-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", method) as archive:
        info = {"METADATA": b"Name: p\nVersion: 1.0\n", "WHEEL": b"Wheel-Version: 1.0\n"}
        for name, data in {**files, **{f"p-1.0.dist-info/{n}": d for n, d in info.items()}}.items():
            archive.writestr(name, data)
    return path


def packed(entries: list[Entry]) -> tuple[bytes, dict[str, bytes]]:
    """Return the compressed layer of `entries`, and the files that come out of it."""
    sink = io.BytesIO()
    made = layer.write_layer(entries, sink)
    plain = igzip.decompress(sink.getvalue())
    assert made.blob.size == len(sink.getvalue())
    assert made.diff_id == "sha256:" + hashlib.sha256(plain).hexdigest()
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        files = {m.name: archive.extractfile(m) for m in archive if m.isreg()}
        return sink.getvalue(), {name: stream.read() for name, stream in files.items() if stream}


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_files_come_out_as_they_went_in(tmp_path: Path, method: int) -> None:
    path = wheel(tmp_path, {"p/big": BIG, "p/small": b"x", "p/none": b""}, method)
    _, files = packed(list(unpack(path, "opt", NOBODY)))
    assert files[f"opt/{SITE}/p/big"] == BIG
    assert (files[f"opt/{SITE}/p/small"], files[f"opt/{SITE}/p/none"]) == (b"x", b"")


def test_the_wheels_own_compressed_bytes_are_the_layers(tmp_path: Path) -> None:
    path = wheel(tmp_path, {"p/big": BIG})
    blob, _ = packed(list(unpack(path, "opt", NOBODY)))
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("p/big")
    start = info.header_offset + 30 + len(info.filename)
    raw = path.read_bytes()[start : start + info.compress_size]
    assert raw in blob


@given(data=st.binary(max_size=64).map(lambda part: (part or b"\0") * layer.SPLICE))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_content_survives(tmp_path: Path, data: bytes) -> None:
    _, files = packed(list(unpack(wheel(tmp_path, {"p/data": data}), "opt", NOBODY)))
    assert files[f"opt/{SITE}/p/data"] == data


def test_test_suites_and_the_record_stay_out(tmp_path: Path) -> None:
    names = ["p/tests/test_a.py", "p/sub/tests/data.bin", "tests/a.py", "p/testing/b.py"]
    path = wheel(tmp_path, {**dict.fromkeys(names, b"1"), "p-1.0.dist-info/RECORD": b""})
    _, files = packed(list(unpack(path, "", NOBODY)))
    kept = {name.removeprefix(SITE + "/") for name in files if ".dist-info" not in name}
    assert kept == {"tests/a.py", "p/testing/b.py"}
    assert not any("RECORD" in name for name in files)


@pytest.mark.parametrize("change", [-1, 1])
def test_an_archive_that_promises_another_size_is_refused(tmp_path: Path, change: int) -> None:
    entry = next(
        e for e in unpack(wheel(tmp_path, {"p/big": BIG}), "", NOBODY) if e.path.endswith("big")
    )
    assert entry.deflated
    lie = Entry(entry.path, "file", size=len(BIG) + change, deflated=entry.deflated)
    with pytest.raises(BuilderError, match="does not hold the"):
        layer.write_layer([lie], io.BytesIO())


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_an_archive_that_is_damaged_is_refused(cut: int) -> None:
    raw = zlib.compress(BIG, wbits=-15)
    flipped = bytes(byte ^ 0xFF for byte in raw[:9]) + raw[9:]
    for damaged in (raw[: len(raw) - 1 - cut], raw + b"more", flipped):
        entry = Entry("a", "file", size=len(BIG), deflated=lambda d=damaged: io.BytesIO(d))
        with pytest.raises(BuilderError, match="a: its archive does not hold"):
            layer.write_layer([entry], io.BytesIO())


@pytest.mark.parametrize("name", ["../out", "/out", "p/../../../../../out", "p\\out"])
def test_a_name_that_leaves_the_prefix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BuilderError, match="refused the entry"):
        list(unpack(wheel(tmp_path, {name: b""}), "opt", NOBODY))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    path = wheel(tmp_path, {})
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("p/link")
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(BuilderError, match="refused the entry p/link: not a plain file"):
        list(unpack(path, "opt", NOBODY))


def test_byte_code_is_made_in_batches_and_comes_back_whole() -> None:
    def upper(_script: str, records: bytes) -> bytes:
        return records  # the protocol is the same in both directions

    sources = [Entry(f"a/{n}.py", "file", content=b"%d" % n * 900_000) for n in range(1, 9)]
    made = {
        entry.path: entry.open().read()
        for entry in bytecode.compile_sources(sources, bytecode.Interpreter("", upper))
    }
    assert made == {bytecode.cache_path(s.path): s.content for s in sources}
