"""Debian packages are unpacked, never run, and refused where they reach out of the tree."""

from __future__ import annotations

import datetime
import gzip
import hashlib
import io
import lzma
import re
import tarfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from builder.errors import BuilderError
from builder.oci.entry import Entry
from builder.packages import debian, debian_index, lock_file, pip, wheels

SECRET = "hunter2-secret"


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, mode
    return info


def deb(
    folder: Path, *members: tuple[tarfile.TarInfo, bytes], name: str = "p", more: str = ""
) -> Path:
    """Write a package: an ar archive of a version and two tars (deb(5))."""
    control = packed((entry("./control"), f"Package: {name}\nVersion: 1\n{more}".encode()))
    data = b"!<arch>\n"
    parts = {"debian-binary": b"2.0\n", "control.tar.gz": control, "data.tar.gz": packed(*members)}
    for part, content in parts.items():
        data += f"{part:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        data += content + b"\n" * (len(content) % 2)
    path = folder / f"{name}_1_all.deb"
    path.write_bytes(data)
    return path


def test_files_links_and_the_packages_fields_are_read(tmp_path: Path) -> None:
    path = deb(
        tmp_path,
        (entry("./usr/bin", tarfile.DIRTYPE, mode=0o755), b""),
        (entry("./usr/bin/p", mode=0o4755), b"program"),
        (entry("./usr/bin/q", tarfile.SYMTYPE, "p"), b""),
        (entry("./usr/bin/r", tarfile.LNKTYPE, "./usr/bin/p"), b""),
        (entry("./usr/share/man/man1/p.1"), b"dropped"),
    )
    found = {e.path: e for e in debian.read_deb(path, "p")}
    assert sorted(found) == [
        "usr/bin", "usr/bin/p", "usr/bin/q", "usr/bin/r", "var/lib/dpkg/status.d/p",
    ]  # fmt: skip
    assert (found["usr/bin/p"].mode, found["usr/bin/p"].content) == (0o755, b"program")
    assert (found["usr/bin/q"].target, found["usr/bin/r"].target) == ("p", "usr/bin/p")
    status = found["var/lib/dpkg/status.d/p"].content
    assert status == b"Package: p\nVersion: 1\nStatus: install ok installed\n"


@pytest.mark.parametrize(
    "member",
    [
        entry("../out"),
        entry("./a/../../out"),
        entry("/etc/passwd"),
        entry("./dev/null", tarfile.CHRTYPE),
        entry("./dev/sda", tarfile.BLKTYPE),
        entry("./pipe", tarfile.FIFOTYPE),
        entry("./usr/link", tarfile.SYMTYPE, "../../out"),
        entry("./usr/hard", tarfile.LNKTYPE, "/etc/shadow"),
        entry("./usr/hard", tarfile.LNKTYPE, "../../etc/shadow"),
        entry("./link/file"),
        entry("./link", tarfile.DIRTYPE, mode=0o777),
        entry("./usr/hard", tarfile.LNKTYPE, "./link/file"),
    ],
    ids=lambda info: f"{info.name} {info.type.decode()} {info.linkname}",
)
def test_what_reaches_out_of_the_tree_is_refused(tmp_path: Path, member: tarfile.TarInfo) -> None:
    path = deb(tmp_path, (entry("./link", tarfile.SYMTYPE, "/etc"), b""), (member, b""))
    with pytest.raises(BuilderError, match=r"p_1_all.deb: refused the (entry|link)"):
        list(debian.read_deb(path, "p"))


@pytest.mark.parametrize(
    "data", [b"", b"!<arch>\n", b"no archive at all", b"!<arch>\n" + b"x" * 99]
)
def test_what_is_no_package_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "p_1_all.deb"
    path.write_bytes(data)
    with pytest.raises(BuilderError, match=r"p_1_all.deb: not a Debian package"):
        list(debian.read_deb(path, "p"))


Members = tuple[tuple[tarfile.TarInfo, bytes], ...]


def together(folder: Path, one: Members, two: Members, **says: str) -> dict[str, Entry]:
    """Return what the packages p and q bring together; `says` are more fields of each."""
    paths = [
        deb(folder, *members, name=name, more=says.get(name, ""))
        for name, members in (("p", one), ("q", two))
    ]
    packages = [debian.Package(name, "1:2.0-1", f"pool/{name}.deb", 1, "0" * 64) for name in "pq"]
    return debian.overlaid(packages, paths)


FOLDER = (entry("./usr", tarfile.DIRTYPE, mode=0o755), b"")


@pytest.mark.parametrize(
    ("one", "two", "says"),
    [
        ((entry("./usr/x"), b"p"), (entry("./usr/x"), b"q"), "bring /usr/x"),
        ((entry("./usr/x"), b"p"), (entry("./usr/x", mode=0o755), b"p"), "bring /usr/x"),
        ((entry("./usr/x"), b"p"), (entry("./usr/x", tarfile.SYMTYPE, "y"), b""), "bring /usr/x"),
        ((entry("./usr/x"), b"p"), (entry("./usr/x", tarfile.DIRTYPE), b""), "bring /usr/x"),
        (
            (entry("./lib", tarfile.SYMTYPE, "usr"), b""), (entry("./lib/x"), b"q"),
            "bring /lib/x, where /lib is a symlink, and",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("turned", [False, True])
def test_two_packages_that_bring_one_path_are_refused(
    tmp_path: Path, one: tuple[tarfile.TarInfo, bytes], two: tuple[tarfile.TarInfo, bytes],
    says: str, turned: bool,
) -> None:  # fmt: skip
    pair = ((FOLDER, two), (FOLDER, one)) if turned else ((FOLDER, one), (FOLDER, two))
    with pytest.raises(BuilderError, match=(
        rf"^the Debian packages [pq] and [pq] both {says}.*leave one of them out of debian\.in"
    )):  # fmt: skip
        together(tmp_path, *pair)


def test_packages_are_unpacked_once_for_all_that_is_made_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = deb(tmp_path, (entry("./a"), b"one"), (entry("./b"), b"two"))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    kept = tmp_path / "cache" / sha256
    kept.mkdir(parents=True)
    path.rename(kept / path.name)
    pinned = debian.Package("p", "1", f"pool/{path.name}", 1, sha256)
    monkeypatch.setattr(debian, "read_lock", lambda *_: [pinned])
    unpacked = []
    read_deb = debian.read_deb
    monkeypatch.setattr(
        debian, "read_deb", lambda *given: unpacked.append(given) or read_deb(*given)
    )
    (layer,) = debian.plan(tmp_path, tmp_path / "cache", "/below")
    with ThreadPoolExecutor(4) as pool:
        several = [*pool.map(lambda _: [*layer.entries()], range(4))]
    assert len(unpacked) == 1
    for entries in several:
        contents = {e.path: e.open().read() for e in entries if e.kind == "file"}
        assert (contents["below/a"], contents["below/b"]) == (b"one", b"two")


def test_folders_and_equal_files_may_be_in_two_packages(tmp_path: Path) -> None:
    member = (entry("./usr/x"), b"same")
    found = together(tmp_path, (FOLDER, member), (FOLDER, member))
    assert found["usr/x"].content == b"same"


@pytest.mark.parametrize(
    ("says", "stays"),
    [
        ({"q": "Replaces: p\n"}, b"q"),
        ({"p": "Replaces: z, q (<< 1:2.0-1.1~)\n"}, b"p"),
        ({"q": "Replaces: p (= 1:2.0-1)\n"}, b"q"),
        ({"q": "Replaces: p (<< 2.1)\n"}, b""),
        ({"q": "Replaces: pp, z | y\n"}, b""),
        ({"q": "Breaks: p\n"}, b""),
    ],
)
def test_a_package_that_replaces_another_has_its_files(
    tmp_path: Path, says: dict[str, str], stays: bytes
) -> None:
    pair = ((entry("./usr/x"), b"p"),), ((entry("./usr/x"), b"q"),)
    if stays:
        assert together(tmp_path, *pair, **says)["usr/x"].content == stays
        return
    with pytest.raises(BuilderError, match=r"neither says that it replaces"):
        together(tmp_path, *pair, **says)


def test_a_mirrors_password_is_not_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"http://user:{SECRET}@127.0.0.1:9/debian"
    monkeypatch.setenv("PLATELINE_DEBIAN_MIRROR", address)
    monkeypatch.setattr("builder.packages.download._PAUSE", 0)
    package = debian.Package("p", "1", "pool/p_1_all.deb", 1, "0" * 64)
    with pytest.raises(BuilderError, match=r"127\.0\.0\.1:9") as caught:
        list(debian.unpack([package], tmp_path))
    assert SECRET not in str(caught.value)


def test_an_indexs_password_is_not_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"http://user:{SECRET}@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_RETRIES", "0")
    wheel = wheels.Wheel("nothing", "1", "0" * 64, 1)
    with pytest.raises(BuilderError, match="downloading the wheels of x") as caught:
        pip.fetch([wheel], tmp_path, "x")
    assert SECRET not in str(caught.value)


def test_a_package_that_is_damaged_further_in_is_named_too(tmp_path: Path) -> None:
    """tarfile takes a damaged header for the end of the archive, or raises errors of its own."""
    path = deb(tmp_path, *((entry(f"./{n}"), b"x" * 600) for n in range(9)))
    whole = path.read_bytes()
    data = whole.index(b"data.tar.gz") + 60
    plain = bytearray(zlib.decompressobj(31).decompress(whole[data:]))
    plain[3 * 1536 + 148 : 3 * 1536 + 156] = b"damaged!"
    for broken in (gzip.compress(bytes(plain)), gzip.compress(plain[:2000]), b"\x1f\x8b" * 99):
        size = b"%-10d" % len(broken)
        path.write_bytes(whole[: data - 12] + size + whole[data - 2 : data] + broken)
        with pytest.raises(BuilderError, match=r"p_1_all.deb: not a Debian package"):
            list(debian.read_deb(path, "p"))


def test_a_package_that_unpacks_to_far_more_than_it_is_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = deb(tmp_path, (entry("./zeros"), bytes(100 << 20)))
    monkeypatch.setattr(debian, "_bytes", lambda _, member: pytest.fail(member.name)
                        if member.name.endswith("zeros") else b"")  # fmt: skip
    with pytest.raises(BuilderError, match=r"p_1_all.deb unpacks to more than 200 times its size"):
        list(debian.read_deb(path, "p"))


@pytest.mark.parametrize(
    "line",
    ["../x 1 pool/x_1.deb 9", "x 1 pool/../../x_1.deb 9", "x 1 pool/.. 9",
     "x 1 pool/x_1.deb \u00b2", "x 1 /x_1.deb 9", "x 1 pool/x_1.deb " + "9" * 5000],
)  # fmt: skip
def test_a_lock_that_names_no_package_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "debian.in").write_text("x\n")
    made = lock_file.in_hash(tmp_path, "debian.in")
    (tmp_path / "debian.lock").write_text(f"# made from debian.in {made}\n{line} {'0' * 64}\n")
    with pytest.raises(BuilderError, match=r"debian.lock:2: not `name version path size sha256`"):
        debian.read_lock(tmp_path)


NOW = datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("Date: Sat, 21 Nov 2026 09:15:44 UTC\nValid-Until: Sun, 29 Nov 2026 09:15:44 UTC\n", ""),
        ("Date: Sat, 21 Nov 2020 09:15:44 UTC\n", ""),  # stable says nothing
        ("Valid-Until: Fri, 27 Nov 2026 09:15:44 UTC\n", "valid until Fri, 27 .*lock --expired"),
        ("Date: Tue, 01 Dec 2026 09:15:44 UTC\n", "in the future"),
        ("Valid-Until: tomorrow\n", "its Valid-Until is no date: 'tomorrow'"),
    ],
)
def test_an_index_that_is_over_is_refused(lines: str, says: str) -> None:
    try:
        debian_index.check_valid("Origin: Debian\n" + lines, "sid", NOW)
    except BuilderError as error:
        said = str(error)
    else:
        said = ""
    assert bool(says) == bool(said)
    assert re.search(says, said)


def test_lock_takes_an_index_that_is_over_only_where_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = lzma.compress(b"Package: x\nVersion: 1\nFilename: pool/x.deb\nSize: 1\nSHA256: 0\n")
    release = (
        f"Valid-Until: Fri, 27 Nov 2020 09:15:44 UTC\nSHA256:\n {hashlib.sha256(data).hexdigest()} "
    )
    release += f"{len(data)} main/binary-amd64/Packages.xz\n"
    monkeypatch.setattr(debian_index, "_get", lambda url: data if url.endswith("xz") else b"")
    monkeypatch.setattr(debian_index, "_signed", lambda *_: release)
    monkeypatch.setenv("PLATELINE_DEBIAN_MIRROR", "http://127.0.0.1:9/debian")
    (tmp_path / "debian.in").write_text("x\n")
    with pytest.raises(BuilderError, match="valid until"):
        debian_index.lock(tmp_path)
    assert not (tmp_path / "debian.lock").exists()
    assert [p.name for p in debian_index.lock(tmp_path, expired=True)] == ["x"]
