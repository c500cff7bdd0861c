"""What lies below a folder is opened without following a link out of it, on every kernel."""

import contextlib
import errno
import os
import socket
import stat
import string
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.run import beneath
from pipeline.run.beneath import Refused

SECRET = b"not for steps"


@pytest.fixture(params=["openat2", "part by part"])
def kernel(request, monkeypatch):
    """Use the kernel's own resolution, or do as on a kernel (or in a container) without it."""

    def missing(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    if request.param == "part by part":
        monkeypatch.setattr(beneath, "_openat2", missing)


@pytest.fixture
def tree(tmp_path):
    """Make a folder with files and links of every kind beside a secret."""
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "f").write_bytes(SECRET)
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "f").write_bytes(b"inside")
    (root / "file").symlink_to(tmp_path / "secret")
    (root / "up").symlink_to("../outside")
    (root / "a" / "same").symlink_to("b")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as made:
        here = os.open(root, os.O_RDONLY)
        made.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
    return root


@pytest.mark.usefixtures("kernel")
def test_a_file_below_is_read(tree):
    assert beneath.read(tree, "a/b/f", 100) == b"inside"
    assert [beneath.kind(tree, name) for name in ("a", "a/b/f", "no", "a/b/f/x")] == [
        "folder", "file", "", "",
    ]  # fmt: skip


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize(
    "name",
    ["file", "up/f", "a/same/f", "a/same", "../secret", "a/../../secret", "/etc/passwd", "a//b/f",
     "./a/b/f", "", "pipe", "a/b", "a/b/f\0x"],
)  # fmt: skip
def test_a_link_a_way_up_and_what_is_no_file_are_refused(tree, name):
    with pytest.raises(Refused):
        beneath.read(tree, name, 100)


@pytest.mark.usefixtures("kernel")
def test_a_socket_is_not_opened(tree):
    with pytest.raises((Refused, OSError)):
        beneath.read(tree, "socket", 100)
    with pytest.raises(Refused, match="a socket"):
        beneath.kind(tree, "socket")


def test_more_than_the_limit_is_refused(tree):
    with pytest.raises(Refused, match="larger"):
        beneath.read(tree, "a/b/f", 5)


NAMES = st.lists(
    st.sampled_from(["a", "b", "f", "file", "up", "same", "..", ".", "", "pipe", "secret"]),
    min_size=1, max_size=6,
).map("/".join)  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=NAMES | st.text(string.printable, max_size=20))
def test_no_path_whatever_reads_what_lies_outside(tree, name):
    with contextlib.suppress(Refused, OSError):
        assert beneath.read(tree, name, 100) == b"inside"


def test_folders_are_made_and_never_through_a_link(tree, tmp_path):
    beneath.make_folder(tree, "new/x/y")
    assert (tree / "new" / "x" / "y").is_dir()
    for name in ("up/new", "a/same/new", "../new", "a/b/f/new"):
        with pytest.raises((Refused, OSError)):
            beneath.make_folder(tree, name)
    assert sorted(path.name for path in (tmp_path / "outside").iterdir()) == ["f"]


@pytest.mark.parametrize("kind", ["link", "folder link", "dead link", "pipe", "socket"])
def test_an_output_may_hold_files_and_folders_only(tmp_path, kind):
    out = tmp_path / "out"
    (out / "deep").mkdir(parents=True)
    made = out / "deep" / "odd"
    if kind == "pipe":
        os.mkfifo(made)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as found:
            found.bind(str(made))
    else:
        made.symlink_to({"link": "/etc/passwd", "folder link": "/etc", "dead link": "no"}[kind])
    with pytest.raises(Refused, match=r"deep/odd, which is a (symbolic link to|named pipe|socket)"):
        beneath.check_tree(out)


def test_special_bits_are_stripped_and_what_nobody_could_read_becomes_readable(tmp_path):
    out = tmp_path / "out"
    (out / "shut" / "inner").mkdir(parents=True)
    (out / "program").write_text("x")
    (out / "program").chmod(0o6755)
    (out / "shut" / "inner" / "f").write_text("x")
    (out / "shut" / "inner" / "f").chmod(0)
    (out / "shut" / "inner").chmod(0o3000)
    (out / "shut").chmod(0)
    beneath.check_tree(out)
    assert stat.S_IMODE((out / "program").stat().st_mode) == 0o755
    assert stat.S_IMODE((out / "shut" / "inner").stat().st_mode) == 0o700
    assert (out / "shut" / "inner" / "f").read_text() == "x"


def test_special_bits_go_from_what_changed_and_stay_on_what_was_there(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("x")
    old.chmod(0o4755)
    mark = old.stat().st_ctime + 0.000001
    while new.exists() is False or new.stat().st_ctime <= mark:
        new.write_text("x")
        new.chmod(0o4755)
    beneath.strip_special_bits(tmp_path, mark)
    assert stat.S_IMODE(old.stat().st_mode) == 0o4755
    assert stat.S_IMODE(new.stat().st_mode) == 0o755


def test_folders_within_folders_without_end_are_refused(tmp_path):
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    with pytest.raises(Refused, match="too many to walk"):
        beneath.check_tree(tmp_path)
    subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # which pytest could not


def test_everything_is_removed_and_nothing_behind_a_link(tree, tmp_path):
    (tree / "a").chmod(0)
    beneath.empty(tree)
    assert list(tree.iterdir()) == []
    assert (tmp_path / "outside" / "f").read_bytes() == SECRET
    assert (tmp_path / "secret").read_bytes() == SECRET
