"""A wheel becomes a layer as pip installs it, without being compressed again."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import io
import posixpath
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
from builder.packages import bytecode, exclude, lock_file, wheel_layout, wheels
from builder.packages.python import DEFAULT
from builder.packages.wheel_layout import LayerDestination, lost_modules
from builder.platform import ARM64
from tests.builder import locks

NOBODY = bytecode.Interpreter(key="none", run=lambda _script, _records: b"")
BIG = b"".join(number.to_bytes(2, "big") for number in range(40_000))
DIGEST = base64.urlsafe_b64encode(hashlib.sha256(BIG).digest()).rstrip(b"=")


def wheel(
    folder: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, name: str = "p"
) -> Path:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", method) as archive:
        about = {"METADATA": b"Name: p\nVersion: 1.0\n", "WHEEL": b"Wheel-Version: 1.0\n"}
        info = {f"{name}-1.0.dist-info/{part}": data for part, data in about.items()}
        for member, data in {**files, **info}.items():
            archive.writestr(member, data)
    return path


def unpack(
    path: Path, prefix: str, interpreter: bytecode.Interpreter, patterns: tuple[str, ...] = ()
) -> list[Entry]:
    """Return what one wheel brings into a layer."""
    laid = wheel_layout.installed(path, prefix, interpreter.python)
    return list(wheel_layout.unpack([laid.less(patterns)], interpreter))


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
    _, files = packed(unpack(path, "opt", NOBODY))
    assert files[f"opt/{SITE}/p/big"] == BIG
    assert (files[f"opt/{SITE}/p/small"], files[f"opt/{SITE}/p/none"]) == (b"x", b"")


def test_the_wheels_own_compressed_bytes_are_the_layers(tmp_path: Path) -> None:
    path = wheel(tmp_path, {"p/big": BIG})
    blob, _ = packed(unpack(path, "opt", NOBODY))
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("p/big")
    start = info.header_offset + 30 + len(info.filename)
    raw = path.read_bytes()[start : start + info.compress_size]
    assert raw in blob


@given(data=st.binary(max_size=64).map(lambda part: (part or b"\0") * layer.SPLICE))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_content_survives(tmp_path: Path, data: bytes) -> None:
    _, files = packed(unpack(wheel(tmp_path, {"p/data": data}), "opt", NOBODY))
    assert files[f"opt/{SITE}/p/data"] == data


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
        unpack(wheel(tmp_path, {name: b""}), "opt", NOBODY)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    path = wheel(tmp_path, {})
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("p/link")
        info.external_attr = (kind | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(BuilderError, match="refused the entry p/link: not a plain file"):
        unpack(path, "opt", NOBODY)


def test_byte_code_is_made_in_batches_and_comes_back_whole() -> None:
    def upper(_script: str, records: bytes) -> bytes:
        return records  # the protocol is the same in both directions

    sources = [Entry(f"a/{n}.py", "file", content=b"%d" % n * 900_000) for n in range(1, 9)]
    made = {
        entry.path: entry.open().read()
        for entry in bytecode.compile_sources(sources, bytecode.Interpreter("", upper))
    }
    assert made == {bytecode.cache_path(s.path): s.content for s in sources}


def test_what_two_layers_hold_is_compiled_once(tmp_path: Path) -> None:
    asked: list[bytes] = []

    def upper(_script: str, records: bytes) -> bytes:
        asked.append(records)
        return records.replace(b"z.py\0", b"y.py\0")  # it could not compile z.py

    python = bytecode.Interpreter("upper", upper)
    both = {"both.py": b"1", "z.py": b"2"}
    layers: list[dict[str, bytes]] = []
    for name, own in (("p", {"p.py": b"3"}), ("q", {"q.py": b"4", "p.py": b"of another"})):
        found = [wheel(tmp_path, both), wheel(tmp_path, own, name=name * 2)]
        laid = [wheel_layout.installed(path, "opt") for path in found]
        made = wheel_layout.unpack(laid, python)
        layers.append({entry.path: entry.open().read() for entry in made})
    code = [
        {
            Path(path).name.split(".")[0]: data
            for path, data in layer.items()
            if path.endswith(".pyc")
        }
        for layer in layers
    ]
    assert code == [{"both": b"1", "p": b"3"}, {"both": b"1", "q": b"4", "p": b"of another"}]
    assert [b"both" in records for records in asked] == [True, False]
    assert [b"z.py" in records for records in asked] == [True, False], "a failure is kept too"


@pytest.mark.parametrize("prefix", ["opt", "srv/tests/venv"])
def test_tests_of_a_wheel_are_there_and_are_not_compiled(tmp_path: Path, prefix: str) -> None:
    names = ["p/a.py", "p/tests/b.py", "p/in/tests/deep/c.py", "tests/d.py", "p/testing/e.py"]
    found = unpack(wheel(tmp_path, dict.fromkeys(names, b"1")), prefix, UPPER)
    paths = {entry.path for entry in found}
    assert {f"{prefix}/{SITE}/{name}" for name in names} <= paths
    compiled = [f"{prefix}/{SITE}/{name}" for name in ("p/a.py", "p/testing/e.py")]
    assert {path for path in paths if path.endswith(".pyc")} == {
        bytecode.cache_path(path) for path in compiled
    }
    record = next(text(entry) for entry in found if entry.path.endswith("/RECORD"))
    assert "__pycache__/a." in record
    assert "__pycache__/b." not in record


def installed(path: Path, prefix: str = "opt/venv") -> dict[str, Entry]:
    return {entry.path.removeprefix(f"{prefix}/"): entry for entry in unpack(path, prefix, UPPER)}


def upper(_script: str, records: bytes) -> bytes:
    return records  # the protocol is the same in both directions


SITE = DEFAULT.site
UPPER = bytecode.Interpreter(key="upper", run=upper)


def text(entry: Entry) -> str:
    with entry.open() as stream:
        return stream.read().decode()


def test_folders_of_tests_stay_whole(tmp_path: Path) -> None:
    names = {"p/tests/__init__.py", "p/tests/helpers.py", "p/data/tests/cases.json", "tests/a.py"}
    found = installed(wheel(tmp_path, dict.fromkeys(names, b"1")))
    assert {f"{SITE}/{name}" for name in names} <= found.keys()


@pytest.mark.parametrize(
    ("archive", "lost"),
    [
        (["a.py", "b/__init__.py", "space/inner/x.py", "c.abi3.so", "d.so"], []),
        (["a-1.0.dist-info/METADATA", "a-stubs/__init__.pyi", "a.pth", "README"], []),
        ([f"a.cpython-{v}-x86_64-linux-gnu.so" for v in (312, 313)], []),
        (["a.cpython-312-x86_64-linux-gnu.so", "b.py"], ["a"]),
        (["a.cpython-313-aarch64-linux-gnu.so"], ["a"]),
        (["a.pypy310-pp73-x86_64-linux-gnu.so", "a/__init__.py"], []),
    ],
)
def test_a_module_that_the_images_python_would_not_find_is_lost(
    archive: list[str], lost: list[str]
) -> None:
    assert lost_modules(archive, archive) == lost


@given(
    st.lists(st.sampled_from(["a.py", "b/__init__.py", "c/x.so", "d.abi3.so"]), unique=True),
    st.data(),
)
def test_what_is_not_installed_is_lost(archive: list[str], data: st.DataObject) -> None:
    kept = data.draw(st.lists(st.sampled_from(archive), unique=True)) if archive else []
    gone = {path.partition("/")[0].partition(".")[0] for path in {*archive} - {*kept}}
    assert lost_modules(archive, kept) == sorted(gone)


def test_a_wheel_for_another_python_stops_the_build(tmp_path: Path) -> None:
    path = wheel(tmp_path, {"p/__init__.py": b"", "_p.cpython-312-x86_64-linux-gnu.so": b""})
    with pytest.raises(BuilderError, match=r"^p-1.0-py3-none-any.whl: Python .* not find _p in"):
        unpack(path, "opt", NOBODY)


@pytest.mark.parametrize("name", ["p/tests/__init__.py", "p-1.0.data/purelib/q.py"])
def test_a_file_of_a_wheel_that_does_not_arrive_stops_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    add = LayerDestination._add

    def forget(self: LayerDestination, entry: Entry, path: str, sha256: bytes = b"") -> object:
        found = add(self, entry, path, sha256)
        if entry.path.endswith(("tests/__init__.py", "q.py")):
            del self.entries[entry.path]
        return found

    path = wheel(tmp_path, {"p/__init__.py": b"", name: b""})
    assert any(e.path.endswith(name.rpartition("/")[2]) for e in unpack(path, "opt", NOBODY))
    monkeypatch.setattr(LayerDestination, "_add", forget)
    with pytest.raises(BuilderError, match="would not find "):
        unpack(path, "opt", NOBODY)


def test_the_record_is_true(tmp_path: Path) -> None:
    files = {
        "p/big.py": BIG, "p/µ, two.py": b"x = 1\n", "p-1.0.data/scripts/tool": b"#!python\nx = 1\n",
        "p-1.0.dist-info/entry_points.txt": b"[console_scripts]\nrun = p:main\n",
        "p-1.0.dist-info/RECORD": b"p/big.py,sha256=" + DIGEST + b",1\nnot/there.py,,\n",
        "p/__pycache__/big.cpython-313.pyc": b"of somebody",
    }  # fmt: skip
    found = installed(wheel(tmp_path, files))
    rows = list(csv.reader(text(found[f"{SITE}/p-1.0.dist-info/RECORD"]).splitlines()))
    named = {posixpath.normpath(posixpath.join(SITE, path)): rest for path, *rest in rows}
    assert named.keys() == found.keys(), "every file is in it, and nothing else"
    for path, (value, size) in named.items():
        with found[path].open() as stream:
            data = stream.read()
        if path.endswith((".pyc", "/RECORD")):
            assert (value, size) == ("", "")
        else:
            sha256 = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            assert (value, size) == (f"sha256={sha256}", str(len(data))), path
    with found[bytecode.cache_path(f"{SITE}/p/big.py")].open() as stream:
        assert stream.read() == BIG, "byte-code that a wheel brings is not taken"


def test_a_file_that_is_left_out_is_nowhere_and_the_record_stays_true(tmp_path: Path) -> None:
    files = {
        "p/__init__.py": b"", "p/a/b.py": b"x = 1\n", "p/libp.so.1.2": BIG, "p/libp.so": b"",
        "p-1.0.dist-info/entry_points.txt": b"[console_scripts]\nrun = p:main\nstay = p:main\n",
    }  # fmt: skip
    patterns = ("p/a/*", "p/libp.so.*", "../../../bin/run")
    path = wheel(tmp_path, files)
    whole = {entry.path for entry in unpack(path, "opt", UPPER)}
    less = {entry.path: entry for entry in unpack(path, "opt", UPPER, patterns)}
    gone = {f"opt/{SITE}/p/a/b.py", f"opt/{SITE}/p/libp.so.1.2", "opt/bin/run"}
    compiled = {bytecode.cache_path(f"opt/{SITE}/p/a/b.py")}
    assert whole - less.keys() == gone | compiled
    record = text(less[f"opt/{SITE}/p-1.0.dist-info/RECORD"])
    rows = {posixpath.normpath(f"opt/{SITE}/{row[0]}") for row in csv.reader(record.splitlines())}
    assert rows == less.keys()


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("p p/none/*", r"p-1\.0-py3-none-any\.whl has no file of the path p/none/\*"),
        ("p p/a.py\np p/tests/*", "no file of the path p/tests/"),
        ("p p*", r"leaves out p-1\.0\.dist-info/METADATA of p-1\.0"),
        ("p */RECORD", "no file of the path"),
        ("q q/*", r"exclude\.in:1: q is not among the wheels that are locked; take the line out"),
        ("p", r"exclude\.in:1: not `PACKAGE PATTERN`: 'p'; write for example"),
        ("# why\np p/a b", r"exclude\.in:2: not `PACKAGE PATTERN`"),
        ("p p/*\nP p/*  # again", r"exclude\.in:2: this is there twice"),
    ],
)
def test_a_line_of_exclude_in_that_means_nothing_or_too_much_is_refused(
    tmp_path: Path, lines: str, says: str
) -> None:
    with pytest.raises(BuilderError, match=says):
        pinned(tmp_path, wheel(tmp_path, {"p/a.py": b""}), excluded=lines)


def test_a_variant_has_an_exclude_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "exclude.in").write_text("p p/a\n")
    (tmp_path / "exclude.gpu.in").write_text("q-gpu q/*  # why\n")
    read = exclude.read(lock_file.Requirements(tmp_path, "gpu"), ["p", "Q_GPU"])
    assert read == {"Q_GPU": ("q/*",)}
    assert exclude.read(lock_file.Requirements(tmp_path), ["p"]) == {"p": ("p/a",)}


def test_a_package_that_only_another_platform_has_may_be_in_an_exclude_file(tmp_path: Path) -> None:
    asked = lock_file.Requirements(tmp_path)
    (tmp_path / asked.lock(ARM64)).write_text(
        f"# q\np-arm==1 --hash=sha256:{'0' * 64}  # 9 bytes\n"
    )
    path = tmp_path / "exclude.in"
    path.write_text("p p/a\nP_Arm p/a\n")
    assert exclude.read(asked, ["p"]) == {"p": ("p/a",)}
    assert exclude.read(asked, ["p", "p-arm"]) == {"p": ("p/a",), "p-arm": ("p/a",)}
    path.write_text("p-arm p/a\np.arm p/a\n")
    with pytest.raises(BuilderError, match=r"exclude\.in:2: this is there twice"):
        exclude.read(asked, ["p"])
    path.write_text("q p/a\n")
    with pytest.raises(BuilderError, match=r"exclude\.in:1: q is not among the wheels"):
        exclude.read(asked, ["p"])


def test_layers_without_excluded_files_keep_their_key_and_others_tell_them(tmp_path: Path) -> None:
    one, two = wheel(tmp_path, {"p/a.py": b"", "p/b": b""}), wheel(tmp_path, {"q": b""}, name="q")
    entries = pinned(tmp_path, one, two, excluded="P p/b\n")
    assert not any(entry.path.endswith("p/b") for entry in entries)
    asked = lock_file.Requirements(tmp_path / "stage")
    plans = wheels.plan(asked, tmp_path / "cache", "/venv/", UPPER)
    assert [plan.inputs.get("exclude") for plan in plans] == [{"p": ["p/b"]}, None]
    assert [plan.name for plan in plans] == ["p 1.0 less exclude.in", "q 1.0"]


def test_importlib_finds_the_files_and_the_packages(tmp_path: Path) -> None:
    path = wheel(tmp_path, {"p/__init__.py": b"", "p/tests/__init__.py": b"", "q.py": b""})
    for entry in unpack(path, "venv", NOBODY):
        target = tmp_path / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with entry.open() as stream:
            target.write_bytes(stream.read())
    (found,) = importlib.metadata.distributions(path=[str(tmp_path / "venv" / SITE)])
    assert found.files is not None
    assert {str(file) for file in found.files} >= {"p/__init__.py", "p/tests/__init__.py", "q.py"}
    assert all(file.locate().exists() for file in found.files)


@pytest.mark.parametrize("folder", ["p-1.0.data", "P-1.0.data", "p-1.data", "P.p_p-1.0.0.data"])
def test_a_data_folder_of_any_spelling_is_laid_out(tmp_path: Path, folder: str) -> None:
    files = {
        f"{folder}/scripts/tool": b"#!pythonw -x\nprint(1)\n",
        f"{folder}/scripts/plain": b"#!/bin/sh",
        f"{folder}/data/share/settings": b"s", f"{folder}/purelib/extra.py": b"e",
        f"{folder}/platlib/p/native.so": b"n", f"{folder}/headers/p.h": b"h",
    }  # fmt: skip
    found = installed(wheel(tmp_path, files))
    assert {"bin/tool", "bin/plain", "share/settings", f"{SITE}/extra.py", f"{SITE}/p/native.so",
            f"include/site/{SITE.split('/')[1]}/p/p.h"} <= found.keys()  # fmt: skip
    assert text(found["bin/tool"]) == "#!/opt/venv/bin/python3\nprint(1)\n"
    assert (found["bin/tool"].mode, found["bin/plain"].mode) == (0o755, 0o755)
    assert not any(".data/" in path for path in found)


def test_a_data_folder_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    path = wheel(tmp_path, {"p-1.0.data/elsewhere/x": b""})
    with pytest.raises(BuilderError, match=r"p-1\.0-py3-none-any\.whl: not a wheel that can be"):
        unpack(path, "opt", NOBODY)


SCRIPTS = """
[console_scripts]
cli = p.q:App.run [extra]
Upper.Case=p:main
[gui_scripts]
gui = p:main
[other]
x = y
"""


def test_scripts_of_entry_points_are_there(tmp_path: Path) -> None:
    path = wheel(tmp_path, {"p-1.0.dist-info/entry_points.txt": SCRIPTS.encode()})
    found = installed(path)
    assert {name for name in found if name.startswith("bin/")} == {
        "bin/cli", "bin/Upper.Case", "bin/gui",
    }  # fmt: skip
    assert text(found["bin/cli"]).startswith("#!/opt/venv/bin/python3\n")
    assert "from p.q import App\n" in text(found["bin/cli"])
    assert "sys.exit(App.run())" in text(found["bin/cli"])


@pytest.mark.parametrize(
    "lines", ["[console_scripts]\nrun = p\n", "[console_scripts]\nrun\n", "run = p:main\n"]
)
def test_entry_points_that_mean_nothing_are_one_message(tmp_path: Path, lines: str) -> None:
    path = wheel(tmp_path, {"p-1.0.dist-info/entry_points.txt": lines.encode()})
    with pytest.raises(BuilderError, match=r"p-1\.0-py3-none-any\.whl: not a wheel that can be"):
        unpack(path, "opt", NOBODY)


def test_a_script_that_leaves_the_prefix_is_refused(tmp_path: Path) -> None:
    lines = b"[console_scripts]\n../../../usr/bin/env = p:main\n"
    path = wheel(tmp_path, {"p-1.0.dist-info/entry_points.txt": lines})
    with pytest.raises(BuilderError, match="refused the entry"):
        unpack(path, "opt", NOBODY)


def test_of_two_files_of_one_name_the_last_counts(tmp_path: Path) -> None:
    path = wheel(tmp_path, {"p/a.py": b"first"})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("p/a.py", b"second")
    found = installed(path)
    assert text(found[f"{SITE}/p/a.py"]) == "second"
    assert text(found[f"{SITE}/p-1.0.dist-info/RECORD"]).count("p/a.py,") == 1


@pytest.mark.parametrize("content", [BIG, b"short"])
def test_content_that_is_not_what_the_record_promises_is_refused(
    tmp_path: Path, content: bytes
) -> None:
    lie = base64.urlsafe_b64encode(hashlib.sha256(b"else").digest()).rstrip(b"=")
    path = wheel(
        tmp_path, {"p/a.dat": content, "p-1.0.dist-info/RECORD": b"p/a.dat,sha256=" + lie + b",4"}
    )
    with pytest.raises(BuilderError, match=r"p/a\.dat: its content is not what the RECORD"):
        packed(unpack(path, "opt", NOBODY))


def pinned(folder: Path, *found: Path, excluded: str = "") -> list[Entry]:
    """Plan wheels that a lock pins, their downloads at hand, and return what the first layer is."""
    lines = ""
    for path in found:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        (folder / "cache" / sha256).mkdir(parents=True)
        path.rename(folder / "cache" / sha256 / path.name)
        lines += (
            f"{path.name.split('-')[0]}==1.0 --hash=sha256:{sha256}  # {wheels.OWN_LAYER} bytes\n"
        )
    (folder / "stage").mkdir()
    locks.lock(folder / "stage", "requirements.in", wheels.LOCK, lines)
    if excluded:
        (folder / "stage/exclude.in").write_text(excluded)
    first, *_ = wheels.plan(
        lock_file.Requirements(folder / "stage"), folder / "cache", "/venv/", UPPER
    )
    return list(first.entries())


SHARED = "space/__init__.py"
CLASHES = {
    "a module": ({"a.py": b"1"}, {"a.py": b"2"}, f"{SITE}/a.py, with different content"),
    "data": ({"p-1.0.data/data/x": b"1"}, {"q-1.0.data/data/x": b"2"}, "x, with different content"),
    "a program": (
        {"p-1.0.dist-info/entry_points.txt": b"[console_scripts]\nrun = p:main\n"},
        {"q-1.0.data/scripts/run": b"#!python\n"}, "bin/run, with different content",
    ),
    "a folder": ({"m": b""}, {"m/x": b""}, f"{SITE}/m, one as a file and one as a folder"),
}  # fmt: skip


@pytest.mark.parametrize(("one", "two", "says"), CLASHES.values(), ids=list(CLASHES))
def test_two_wheels_that_write_one_file_are_refused(
    tmp_path: Path, one: dict[str, bytes], two: dict[str, bytes], says: str
) -> None:
    """Also where each has a layer of its own, and whichever comes first in the lock."""
    found = [wheel(tmp_path, {SHARED: b"", **one}), wheel(tmp_path, {SHARED: b"", **two}, name="q")]
    with pytest.raises(BuilderError, match=(
        r"^p-1\.0-py3-none-any\.whl and q-1\.0-py3-none-any\.whl of stage/requirements\.linux-amd64"
        rf"\.lock both write /venv/{says}.*; leave one of them out of requirements\.in, or lock it"
    )):  # fmt: skip
        pinned(tmp_path, *reversed(found))


def test_wheels_may_write_the_same_content_to_one_path(tmp_path: Path) -> None:
    files = {SHARED: b"", "space/both.py": b"x = 1\n"}
    found = pinned(tmp_path, wheel(tmp_path, files), wheel(tmp_path, files, name="q"))
    assert {f"venv/{SITE}/{path}" for path in files} <= {entry.path for entry in found}
