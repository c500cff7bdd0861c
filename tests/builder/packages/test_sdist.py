"""Sdists: pinned by hash without being executed, and refused where they are not what they seem."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from builder.errors import BuilderError
from builder.packages import lock_file, sdist
from builder.packages.download import sha256_file
from builder.packages.wheels import Wheel

PYPROJECT = '[build-system]\nrequires = ["flit-core"]\nbuild-backend = "flit_core.buildapi"\n'


def archive(path: Path, **files: str) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


def test_an_index_gives_address_and_hash_and_nothing_is_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    index = tmp_path / "index"
    index.mkdir()
    files = {"p-1.0/setup.py": f"open({str(ran)!r}, 'w')", "p-1.0/PKG-INFO": "Name: p\n"}
    path = archive(index / "p-1.0.tar.gz", **files)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    found = sdist.bring("p", "1.0", "", tmp_path / "cache")
    assert found == tmp_path / "cache" / sha256_file(path) / "p-1.0.tar.gz"
    assert not ran.exists()
    with pytest.raises(BuilderError, match=r"no sdist .* of p 2\.0"):
        sdist.bring("p", "2.0", "", tmp_path / "cache")
    with pytest.raises(BuilderError, match="was expected"):
        sdist.bring("p", "1.0", "0" * 64, tmp_path / "cache")


def test_what_a_build_needs_is_read_from_the_archive(tmp_path: Path) -> None:
    path = archive(tmp_path / "p.tar.gz", **{"p-1/pyproject.toml": PYPROJECT})
    assert sdist.build_system(path) == ("flit_core.buildapi", ["flit-core"])
    plain = archive(tmp_path / "q.tar.gz", **{"p-1/setup.py": ""})
    assert sdist.build_system(plain)[0] == "setuptools.build_meta:__legacy__"


@pytest.mark.parametrize("name", ["p-1/../../x", "/x", "q/x", "../x"])
def test_a_path_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "p.tar.gz", **{"p-1/a": "", name: ""})
    with pytest.raises(BuilderError, match="leads out of its folder"):
        sdist.build_system(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "p.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo("p-1/x")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(BuilderError, match="neither file nor folder"):
        sdist.build_system(tmp_path / "p.tar.gz")


def test_one_too_large_and_one_damaged_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdist, "BYTES", 10)
    with pytest.raises(BuilderError, match="holds more than"):
        sdist.build_system(archive(tmp_path / "p.tar.gz", **{"p-1/a": "x" * 11}))
    (tmp_path / "p.tar.gz").write_bytes(b"\x1f\x8bno")
    with pytest.raises(BuilderError, match="not an sdist that can be read"):
        sdist.build_system(tmp_path / "p.tar.gz")


def test_a_lock_is_read_as_it_was_written_and_refused_once_stale(tmp_path: Path) -> None:
    (tmp_path / "sdists.in").write_text("P_a==1.0  # why\n")
    assert sdist.asked(tmp_path) == sdist.Asked((("p-a", "1.0"),))
    needs = (Wheel("setuptools", "80", "c" * 64, 5),)
    pins = [sdist.Sdist("p-a", "1.0", "a" * 64, "p_a-1.0-py3-none-any.whl", "b" * 64, needs)]
    sdist.write_lock(tmp_path, pins)
    assert sdist.read_lock(tmp_path) == pins
    (tmp_path / "sdists.lock").open("a").write("what\n")
    with pytest.raises(BuilderError, match="not a line of this lock"):
        sdist.read_lock(tmp_path)
    for wrong in ("p>=1\n", "image a b\n", "image a\nimage b\n"):
        (tmp_path / "sdists.in").write_text(wrong)
        with pytest.raises(BuilderError, match=r"not `name==version`, nor .* the one line `image"):
            sdist.asked(tmp_path)
    with pytest.raises(BuilderError, match=f"run `{lock_file.lock_command(tmp_path)}`"):
        sdist.read_lock(tmp_path)


def test_a_wheel_that_may_differ_needs_its_line_and_its_reason(tmp_path: Path) -> None:
    wanted = tmp_path / "sdists.in"
    wanted.write_text("My_Pkg==1\nallow my-pkg:  it writes the time  # seen in 1\n")
    assert sdist.asked(tmp_path).allowed == {"my-pkg": "it writes the time"}
    needs = (Wheel("flit-core", "3", "b" * 64, 9),)
    made = sdist.Sdist("my-pkg", "1", "a" * 64, "my_pkg-1-py3-none-any.whl", "c" * 64, needs,
                       "it writes the time")  # fmt: skip
    sdist.write_lock(tmp_path, [made])
    assert "need not be reproducible: it writes the time" in (tmp_path / "sdists.lock").read_text()
    assert sdist.read_lock(tmp_path) == [made]

    lock = (tmp_path / "sdists.lock").read_text()
    (tmp_path / "sdists.lock").write_text(lock.replace("it writes the time", "no matter"))
    with pytest.raises(BuilderError, match=r"my-pkg 1 need not .* does not allow that for this"):
        sdist.read_lock(tmp_path)
    (tmp_path / "sdists.lock").write_text(lock)
    wanted.write_text("My_Pkg==1\n")
    with pytest.raises(BuilderError, match="invoke lock"):
        sdist.read_lock(tmp_path)


@pytest.mark.parametrize(
    ("line", "says"),
    [("allow q: why", "`allow q` is for no sdist"), ("allow p", "nor `allow NAME: REASON`"),
     ("allow p:", "nor `allow NAME: REASON`")],
)  # fmt: skip
def test_a_line_that_allows_nothing_is_refused(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "sdists.in").write_text(f"p==1\n{line}\n")
    with pytest.raises(BuilderError, match=says):
        sdist.asked(tmp_path)
