"""A layer of a stranger is unpacked below its folder, as what it hashes to, or refused."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import threading
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isal import igzip

from builder import oci
from builder.errors import BuilderError
from builder.oci.tree import Bounds
from builder.sandbox import docker, extract, layer_index
from builder.sandbox.unpack import folders, image_entries, unpacked, whole
from builder.store import Store

FILE, DIR, SYM, LINK = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
SECRET = b"a secret of the host"


def member(name, kind=FILE, *, target="", data=b"", mode=0o644, **members):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, target, mode, len(data)
    for key, value in members.items():
        setattr(info, key, value)
    return info, data


def tar(*members):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def add(store, plain, *, diff_id="", blob=None):
    """Put a layer into `store`, which claims `diff_id` or else says the truth."""
    blob = igzip.compress(plain, 1) if blob is None else blob
    return oci.Layer(
        diff_id=diff_id or oci.describe("", plain).digest, blob=store.add(blob, oci.LAYER)
    )


def image(store, *layers):
    made, documents = oci.assemble({"architecture": "amd64", "os": "linux", "config": {}}, layers)
    store.add_image(documents)
    return made


def host(folder):
    """Make a folder of the host with a secret."""
    (folder / "dir").mkdir(parents=True)
    (folder / "dir").chmod(0o700)
    (folder / "dir/secret").write_bytes(SECRET)
    return folder


def state(folder):
    """Return all that a layer could change below `folder`."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        seen = path.lstat()
        data = path.read_bytes() if path.is_file() else b""
        found[path] = (seen.st_mode, seen.st_nlink, seen.st_mtime_ns, data)
    return found


REFUSED = {
    "climbs": lambda v: [member("../../out")],
    "absolute": lambda v: [member(f"{v}/out")],
    "file behind a link": lambda v: [member("a", SYM, target=str(v)), member("a/out")],
    "folders behind a link": lambda v: [member("a", SYM, target=str(v)), member("a/b/c/out")],
    "folder in a link's place": lambda v: [
        member("a", SYM, target=f"{v}/dir"), member("a", DIR, mode=0o4777)],
    "link by the parent folder": lambda v: [
        member("x", DIR), member("x/a", SYM, target="../" * 40 + str(v)), member("x/a/out")],
    "link to a link": lambda v: [
        member("a", SYM, target="b"), member("b", SYM, target=str(v)), member("a/out")],
    "link inside": lambda v: [
        member("real", DIR), member("a", SYM, target="real"), member("a/out")],
    "hard link through a link": lambda v: [
        member("a", SYM, target=f"{v}/dir"), member("leak", LINK, target="a/secret")],
    "absolute hard link": lambda v: [member("leak", LINK, target=f"{v}/dir/secret")],
    "climbing hard link": lambda v: [member("leak", LINK, target=f"../../..{v}/dir/secret")],
    "hard link to nothing": lambda v: [member("leak", LINK, target="nothing")],
    "hard link to itself": lambda v: [member("x"), member("x", LINK, target="x")],
    "hard link to a folder": lambda v: [member("d", DIR), member("x", LINK, target="d")],
    "file in a folder's place": lambda v: [member("d", DIR), member("d")],
    "folder in a file's place": lambda v: [member("d"), member("d", DIR)],
    "file in a file": lambda v: [member("x"), member("x/y")],
    "character device": lambda v: [member("n", tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "block device": lambda v: [member("n", tarfile.BLKTYPE, devmajor=254)],
    "pipe": lambda v: [member("n", tarfile.FIFOTYPE)],
    "long name": lambda v: [member("n" * 256)],
    "long path": lambda v: [member("/".join(["d" * 200] * 30))],
    "deep path": lambda v: [member("/".join(["d"] * 2000))],
    "name that is not UTF-8": lambda v: [member("a\udcff")],
    "link that is not UTF-8": lambda v: [member("a", SYM, target="\udcff")],
    "whiteout of the folder above": lambda v: [member("a/.wh...")],
    "whiteout of nothing": lambda v: [member("a/.wh.")],
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_layer_is_refused_and_leaves_nothing(
    store: Store, tmp_path: Path, name: str
) -> None:
    victim = host(tmp_path / "host")
    before = state(victim)
    layer = add(store, tar(member("first", data=b"x"), *REFUSED[name](victim)))
    with pytest.raises(BuilderError, match="refused"):
        unpacked(store, layer)
    with pytest.raises(BuilderError, match="refused"):
        layer_index.below(store, [layer])
    assert state(victim) == before
    assert "unpacking" not in {thread.name for thread in threading.enumerate()}
    assert list((store.root / "unpacked").iterdir()) == []
    assert list((store.root / "tmp").iterdir()) == []


_NAMES = st.sampled_from(["a", "b", "a/b", "a/c", "b/a", "a/b/c", "c"])


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            _NAMES,
            st.sampled_from([FILE, DIR, SYM, LINK]),
            st.sampled_from(["a", "b", "a/b", "../a", "c", "{host}", "{host}/dir",
                             "{host}/dir/secret", "a/secret", "a/dir/secret"]),
            st.sampled_from([0o644, 0o777, 0o4755, 0o000]),
        ), max_size=6,
    )
)  # fmt: skip
def test_no_order_of_entries_reaches_the_host(tmp_path_factory, rows) -> None:
    folder = tmp_path_factory.mktemp("order")
    try:
        store, victim = Store.open(folder / "store"), host(folder / "host")
        before = state(victim)
        members = [
            member(name, kind, target=target.format(host=victim), mode=mode,
                   data=b"own %d" % n if kind == FILE else b"")
            for n, (name, kind, target, mode) in enumerate(rows)
        ]  # fmt: skip
        made = image(store, add(store, tar(*members)))
        with suppress(BuilderError):
            for entry in image_entries(store, made):
                if entry.kind == "file":
                    with entry.open() as stream:
                        assert stream.read().startswith(b"own")
        assert state(victim) == before
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    "members",
    [
        [member("a", SYM, target="HOST/dir"), member("a/out")],
        [member("a", SYM, target="HOST/dir"), member("a", DIR, mode=0o777)],
        [member("a", SYM, target="HOST/dir"), member("leak", LINK, target="a/secret")],
        [member("a", SYM, target="HOST/dir/secret"), member("leak", LINK, target="a")],
    ],
)
def test_what_writes_follows_no_link_even_where_nothing_was_checked(tmp_path, members) -> None:
    victim = host(tmp_path / "host")
    before = state(victim)
    kinds = {FILE: "file", DIR: "dir", SYM: "symlink", LINK: "hardlink"}
    entries = [
        layer_index.Entry(info.name, kinds[info.type], info.mode, content=b"",
                          target=info.linkname.replace("HOST", str(victim)))
        for info, _ in members
    ]  # fmt: skip
    (tmp_path / "root").mkdir()
    with pytest.raises(OSError, match=r"."):
        extract.extract(tmp_path / "root", entries)
    assert state(victim) == before


def test_reading_back_follows_no_link(tmp_path: Path) -> None:
    host(tmp_path / "host")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a").symlink_to(tmp_path / "host/dir")
    (tmp_path / "root/b").symlink_to(tmp_path / "host/dir/secret")
    os.mkfifo(tmp_path / "root/pipe")
    for path in ("a/secret", "b", "pipe"):
        with pytest.raises(OSError, match=r"."):
            extract.open_below(tmp_path / "root", path)


def test_a_hard_link_to_a_link_is_that_link(store: Store, tmp_path: Path) -> None:
    victim = host(tmp_path / "host")
    target = f"{victim}/dir/secret"
    plain = tar(member("a", SYM, target=target), member("b", LINK, target="a"), member("b2"))
    found = {e.path: e for e in image_entries(store, image(store, add(store, plain)))}
    assert (found["b"].kind, found["b"].target) == ("symlink", target)


def test_files_links_and_modes_are_those_of_the_layer(store: Store) -> None:
    plain = tar(
        member("d", DIR, mode=0o2750), member("d/run", data=b"#!", mode=0o6755),
        member("d/again", LINK, target="d/run"), member("tmp", DIR, mode=0o1777),
        member("up", SYM, target="../../etc"), member("made/by/need", data=b"1"),
        member("made/by/need", data=b"2"), member("none", mode=0),
    )  # fmt: skip
    folder = unpacked(store, add(store, plain))
    modes = {str(p.relative_to(folder)): p.lstat().st_mode & 0o7777 for p in folder.rglob("*")}
    assert modes == {
        "d": 0o750, "d/run": 0o755, "d/again": 0o755, "tmp": 0o1777, "up": 0o777,
        "made": 0o755, "made/by": 0o755, "made/by/need": 0o644, "none": 0o400,
    }  # fmt: skip
    assert (folder / "d/again").samefile(folder / "d/run")
    assert (folder / "made/by/need").read_bytes() == b"2"
    assert (folder / "up").readlink() == Path("../../etc")


def test_a_folder_above_takes_the_place_of_a_link_below(store: Store, tmp_path: Path) -> None:
    victim = host(tmp_path / "host")
    before = state(victim)
    low = add(store, tar(member("a", SYM, target=str(victim)), member("gone")))
    high = add(store, tar(member("a/out", data=b"x"), member(".wh.gone")))
    made = image(store, low, high)
    found = {entry.path: entry.kind for entry in image_entries(store, made)}
    assert found == {"a": "dir", "a/out": "file"}
    (folder,) = folders(store, made)
    assert (folder / "a/out").read_bytes() == b"x"
    assert state(victim) == before


def test_a_layer_that_claims_anothers_diff_id_gives_nothing(store: Store) -> None:
    good = tar(member("run", data=b"good"))
    claimed = oci.describe("", good).digest
    evil = add(store, tar(member("run", data=b"evil")), diff_id=claimed)
    for use in (lambda: unpacked(store, evil), lambda: layer_index.below(store, [evil]),
                lambda: folders(store, image(store, evil))):  # fmt: skip
        with pytest.raises(BuilderError, match="not what its image's config says"):
            use()
    assert (unpacked(store, add(store, good)) / "run").read_bytes() == b"good"
    assert store.get_result(layer_index.key(claimed)) is None


def test_bytes_after_the_end_of_the_tar_count(store: Store) -> None:
    plain = tar(member("run"))
    layer = add(store, plain + b"more", diff_id=oci.describe("", plain).digest)
    with pytest.raises(BuilderError, match="not what its image's config says"):
        unpacked(store, layer)


def test_a_folder_of_a_name_that_was_never_hashed_is_not_used(store: Store) -> None:
    layer = add(store, tar(member("run", data=b"good")))
    old = store.root / "unpacked" / layer.diff_id.removeprefix("sha256:")[:24]
    old.mkdir()
    (old / "run").write_bytes(b"evil")
    assert (unpacked(store, layer) / "run").read_bytes() == b"good"


def test_an_image_of_many_layers_is_one_folder(store: Store) -> None:
    layers = [add(store, tar(member(f"d{n}/f", data=b"%d" % n))) for n in range(90)]
    made = image(store, *layers)
    (folder,) = folders(store, made)
    assert sorted(p.read_text() for p in folder.glob("*/f")) == sorted(map(str, range(90)))
    assert folder == whole(store, made)


def sparse():
    """Return a tar of 2 KB whose one file claims 3 GiB (GNU's old sparse header)."""
    info = tarfile.TarInfo("sparse")
    info.size = 512
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[156:157] = b"S"
    head[386:410] = b"%011o\0%011o\0" % ((3 << 30) - 512, 512)
    head[482] = 0
    head[483:495] = b"%011o\0" % (3 << 30)
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + b"x" * 512 + b"\0" * 1024


def zeros(count):
    """Return a gzip of a tar of one file of `count` MiB of zeros, without holding it."""
    data = io.BytesIO()
    with igzip.IGzipFile(fileobj=data, mode="wb", compresslevel=1) as stream:
        info = tarfile.TarInfo("big")
        info.size = count << 20
        stream.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(count):
            stream.write(b"\0" * (1 << 20))
        stream.write(b"\0" * 1024)
    return data.getvalue()


def test_a_file_of_holes_is_refused(store: Store) -> None:
    with pytest.raises(BuilderError, match="sparse"):
        unpacked(store, add(store, sparse()))


@pytest.mark.parametrize(
    ("variable", "value", "match"),
    [("PLATELINE_UNPACK_RATIO", "20", "20 times its size.*PLATELINE_UNPACK_RATIO"),
     ("PLATELINE_UNPACK_TOTAL", "10M", "10485760 bytes.*PLATELINE_UNPACK_TOTAL"),
     ("PLATELINE_UNPACK_ENTRIES", "0", "0 entries.*PLATELINE_UNPACK_ENTRIES"),
     ("PLATELINE_UNPACK_FREE", "900T", "MB free.*PLATELINE_UNPACK_FREE")],
)  # fmt: skip
def test_what_unpacks_to_too_much_is_refused_and_the_bound_can_be_set(
    store, monkeypatch, variable, value, match
) -> None:
    layer = add(store, b"", diff_id="sha256:" + "1" * 64, blob=zeros(100))
    if variable == "PLATELINE_UNPACK_FREE":
        layer = add(store, tar(member("x", data=b"x")))
    monkeypatch.setenv(variable, value)
    with pytest.raises(BuilderError, match=match):
        unpacked(store, layer)
    assert list((store.root / "unpacked").iterdir()) == []
    assert list((store.root / "tmp").iterdir()) == []


def test_the_disk_is_watched_while_a_layer_is_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = add(store, tar(*[member(f"f{n}", data=b"x" * 200) for n in range(3)]))
    kept, free = Bounds().free, iter([300, 100])  # another process takes some meanwhile
    monkeypatch.setattr(
        "builder.sandbox.unpack.shutil.disk_usage",
        lambda _: SimpleNamespace(free=kept + next(free)),
    )
    with pytest.raises(BuilderError, match=r"does not fit.*'f1'.*PLATELINE_UNPACK_FREE"):
        unpacked(store, layer)
    assert list((store.root / "unpacked").iterdir()) == []
    assert list((store.root / "tmp").iterdir()) == []


def test_a_thousandfold_bomb_is_refused_without_being_told(store: Store) -> None:
    layer = add(store, b"", diff_id="sha256:" + "1" * 64, blob=zeros(300))
    assert layer.blob.size < 3 << 20
    with pytest.raises(BuilderError, match="200 times its size"):
        unpacked(store, layer)


def test_a_header_record_cannot_take_memory(store: Store) -> None:
    info = tarfile.TarInfo("x" * 200)
    info.type, info.size = tarfile.XHDTYPE, 48 << 20
    plain = info.tobuf(tarfile.USTAR_FORMAT if len(info.name) < 100 else tarfile.GNU_FORMAT)
    layer = add(store, plain + b"\0" * (48 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(BuilderError, match="header record"):
            unpacked(store, layer)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("cut", [100, 700, 1500, 5000])
def test_a_layer_that_is_cut_or_spoilt_is_refused(store: Store, cut: int) -> None:
    plain = tar(*[member(f"f{n}", data=b"x" * 2000) for n in range(3)])
    spoilt = bytearray(plain)
    at = 512 + 2048  # the second header
    spoilt[at : at + 50] = b"\xff" * 50
    for data in (plain[:cut], bytes(spoilt)):
        with pytest.raises(BuilderError, match="cannot be unpacked"):
            unpacked(store, add(store, data))
    for blob in (b"\x1f\x8b\x08\0garbage", igzip.compress(plain)[:60], b"", b"plain"):
        with pytest.raises(BuilderError, match="cannot be unpacked"):
            unpacked(store, add(store, b"", diff_id="sha256:" + "1" * 64, blob=blob))


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "1KB", "9" * 30, " 1"])
def test_a_bound_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(BuilderError, match="PLATELINE_UNPACK_TOTAL"):
        Bounds.read({"PLATELINE_UNPACK_TOTAL": text})


def test_bounds_are_read_from_the_environment() -> None:
    environ = {"PLATELINE_UNPACK_TOTAL": "2G", "PLATELINE_UNPACK_RATIO": "7"}
    assert Bounds.read(environ) == Bounds(total=2 << 30, ratio=7)


def test_a_flipped_bit_is_noticed_where_the_layer_is_used_whatever_its_time_says(
    store: Store, rot: Callable[[Store, str], None]
) -> None:
    for use in (lambda made: whole(store, made), lambda made: list(docker._archive(store, made))):
        layer = add(store, tar(member("a", data=os.urandom(5000))))
        made = image(store, layer)
        rot(store, layer.blob.digest)
        with pytest.raises(BuilderError, match=f"the blob {layer.blob.digest} .* was damaged"):
            use(made)
        assert not store.path(layer.blob.digest).exists()
