"""What runs in an image stays within its limits, whichever way it takes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from builder import oci
from builder.errors import BuilderError
from builder.sandbox import bubblewrap, host
from builder.sandbox.bubblewrap import Bubblewrap
from builder.sandbox.confine import cgroup, landlock, memory, seccomp
from builder.sandbox.confine.limits import Limits
from builder.sandbox.process import Exit, Process, run
from builder.store import Store

LIMIT = 200 << 20
HOLD = """
b = bytearray(600 << 20)
for i in range(0, len(b), 4096): b[i] = 1
import time; time.sleep(20)
"""
CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD!r}])"
ATTACKS = {
    "itself": HOLD,
    "a child": CHILD,
    "a child of another thread": f"""
import threading
t = threading.Thread(target=lambda: exec({CHILD!r})); t.start(); t.join()
""",
    "memory files": """
import os, time
files = [os.memfd_create("m") for _ in range(8)]
for _ in range(100):
    for file in files: os.write(file, b"x" * (1 << 20))
time.sleep(20)
""",
}


@pytest.fixture
def python(store: Store, monkeypatch: pytest.MonkeyPatch):
    """Return what runs a script by this machine's /usr/bin/python3 in a sandbox."""
    if not Path("/usr/bin/python3").exists():
        pytest.skip("python3 is missing; apt-get install python3")
    made, documents = oci.assemble(
        {"architecture": "amd64", "os": "linux", "config": {"User": "65532"}}, ()
    )
    store.add_image(documents)
    links = [word for name in ("bin", "lib", "lib64") for word in ("--symlink", f"usr/{name}",
             f"/{name}")]  # fmt: skip
    found = next(host.programs())
    monkeypatch.setattr(host, "bubblewrap", lambda _: host.Bwrap(found, "", overlay=False))
    monkeypatch.setattr(bubblewrap, "whole", lambda *_: Path("/usr"))
    monkeypatch.setattr(bubblewrap, "_joined", lambda *_: ["--ro-bind", "/usr", "/usr", *links])

    def start(script: str, **members: object) -> tuple[Exit, str]:
        output = store.root / "output"
        command = ("/usr/bin/python3", "-c", script)
        with output.open("wb") as stream:
            process = Process(image=made, command=command, workdir="/", **members)
            ended = run(Bubblewrap(store), process, stream)
        return ended, output.read_text(errors="replace")

    return start


# A machine where no group may be made has only the one way.
@pytest.fixture(params=["watched", *(["cgroup"] if cgroup.here() else [])])
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "watched":
        monkeypatch.setattr(cgroup, "here", lambda: None)
    return request.param


@pytest.mark.parametrize("name", ATTACKS)
def test_memory_is_limited_whoever_takes_it(python, held, name) -> None:
    ended, _ = python(ATTACKS[name], memory=LIMIT, timeout=60)
    assert ended.out_of_memory, str(ended)
    assert ended.code
    assert ended.seconds < 20


def test_files_of_shared_memory_and_tmp_are_limited(python, held) -> None:
    script = """
import sys
for folder in ("/dev/shm", "/tmp"):
    try:
        with open(folder + "/x", "wb") as file:
            for _ in range(400): file.write(b"x" * (1 << 20))
    except OSError as error: print(error.strerror, flush=True)
    else: print("written")
"""
    ended, text = python(script, memory=LIMIT, timeout=60)
    assert "written" not in text
    assert ended.out_of_memory or text.count("No space left") == 2


def test_a_fork_bomb_ends(python, held, monkeypatch) -> None:
    monkeypatch.setenv("PLATELINE_STEP_PROCESSES", "50")
    script = """
import os, time
for n in range(400):
    try:
        if not os.fork(): time.sleep(30); os._exit(0)
    except OSError: print("refused", n); break
else: time.sleep(30)
"""
    ended, text = python(script, memory=LIMIT, timeout=25)
    assert "refused" in text or "processes" in str(ended)
    assert ended.seconds < 20


def test_what_prints_without_end_is_killed(python, monkeypatch) -> None:
    monkeypatch.setenv("PLATELINE_STEP_LOG", "1M")
    ended, _ = python("while True: print('x' * 1000)", timeout=30)
    assert "printed more than 1048576 bytes" in str(ended)
    assert (ended.code, ended.timed_out) == (137, False)


def test_a_full_disk_ends_a_step_that_may_write_there(python, monkeypatch, tmp_path) -> None:
    from builder.sandbox.process import Mount

    monkeypatch.setenv("PLATELINE_STEP_FREE", "900T")
    mounts = (Mount(tmp_path, "/out", writable=True),)
    ended, _ = python("import time; time.sleep(30)", timeout=30, mounts=mounts)
    assert "bytes free" in str(ended)


def test_no_group_is_left(python, held) -> None:
    python("pass", memory=LIMIT)
    place = cgroup.here()
    for folder in {place.pids, place.memory} if place else ():
        assert not list(folder.glob(f"plateline-{os.getpid()}-*"))


CALLS = """
import ctypes, errno, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(*words):
    ctypes.set_errno(0)
    result = libc.syscall(*words)
    return errno.errorcode.get(ctypes.get_errno(), "") if result < 0 else "done"
print("unshare", call(272, 0x10000000), call(272, 0x20000))
print("clone", call(56, 0x10000000 | 17, 0, 0, 0, 0))
print("clone3", call(435, 0, 0))
for number in (%s): print(number, call(number, 0, 0, 0, 0, 0))
for family in (17, 38, 40):
    try: socket.socket(family, socket.SOCK_RAW)
    except OSError as error: print("socket", family, errno.errorcode[error.errno])
print("TIOCSTI", call(16, 0, 0x5412, b"x"))
socket.socket(socket.AF_UNIX); socket.socket(socket.AF_INET)
if not os.fork(): os._exit(0)
print("child", os.wait()[1])
import threading; t = threading.Thread(target=print, args=("thread",)); t.start(); t.join()
"""


@pytest.mark.skipif(not seccomp.program(), reason="only x86-64 has a filter")
def test_calls_that_no_step_needs_are_refused_and_others_work(python) -> None:
    numbers = [number for number in seccomp.REFUSED if number != 169]  # reboot
    ended, text = python(CALLS % ", ".join(map(str, numbers)))
    lines = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
    assert ended.code == 0, text
    assert lines["unshare"] == "EPERM EPERM"
    assert (lines["clone"], lines["clone3"], lines["TIOCSTI"]) == ("EPERM", "ENOSYS", "EPERM")
    assert {lines[str(number)] for number in numbers} == {"EPERM"}
    assert text.count("socket") == 3
    assert "EPERM" in lines["socket"]
    assert lines["child"] == "0"
    assert "thread" in text


def test_ranges_cover_the_refused_calls_and_no_other() -> None:
    covered = {n for low, high in seccomp._ranges(seccomp.REFUSED) for n in range(low, high + 1)}
    assert covered == set(seccomp.REFUSED)


def test_the_tree_of_a_process_has_the_children_of_all_its_threads() -> None:
    script = """
import subprocess, sys, threading
def start(): subprocess.Popen(["sleep", "60"])
t = threading.Thread(target=start); t.start(); t.join()
keep = threading.Event()
def hold(): start(); print("ready", flush=True); keep.wait()
threading.Thread(target=hold, daemon=True).start(); sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as started:  # fmt: skip
        assert started.stdout is not None
        started.stdout.readline()
        found = memory.tree(started.pid)
        for pid in found[1:]:
            os.kill(pid, 9)
        assert len(found) == 3


def proc(folder: Path, *, cgroups: str, mounts: list[str]) -> Path:
    (folder / "cgroup").write_text(cgroups)
    (folder / "mountinfo").write_text("".join(f"1 0 0:1 {line}\n" for line in mounts))
    return folder


def test_the_nearest_delegated_group_of_version_2_is_taken(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    own = mount / "user.slice/app.slice/shell.scope"
    own.mkdir(parents=True)
    for folder, given in ((mount, "memory pids"), (own.parent, "cpu memory pids"), (own, "")):
        (folder / "cgroup.subtree_control").write_text(given)
        (folder / "cgroup.procs").write_text("")
    found = cgroup.find(
        proc(tmp_path, cgroups="0::/user.slice/app.slice/shell.scope\n",
             mounts=[f"/ {mount} rw - cgroup2 cgroup2 rw"])
    )  # fmt: skip
    assert found == cgroup.Place(2, own.parent, own.parent)
    group = cgroup.Group(found, 1000, 7)
    (made,) = own.parent.glob("plateline-*")
    texts = {path.name: path.read_text() for path in made.iterdir()}
    assert texts == {
        "memory.max": "1000", "pids.max": "7", "memory.swap.max": "0", "memory.oom.group": "1",
    }  # fmt: skip
    (made / "memory.events").write_text("oom 1\noom_kill 1\n")
    assert group.ran_out()


def test_there_is_no_place_without_controllers(tmp_path: Path) -> None:
    (tmp_path / "cgroup.subtree_control").write_text("cpu")
    mounts = [f"/ {tmp_path} rw - cgroup2 cgroup2 rw"]
    assert cgroup.find(proc(tmp_path, cgroups="0::/\n", mounts=mounts)) is None
    assert cgroup.find(tmp_path / "missing") is None


def test_limits_are_read_from_the_environment() -> None:
    assert Limits.read({"PLATELINE_STEP_LOG": "2K"}) == Limits(log=2048)
    with pytest.raises(BuilderError, match="PLATELINE_STEP_FREE"):
        Limits.read({"PLATELINE_STEP_FREE": "much"})


def test_an_image_runs_the_same_where_nothing_can_be_laid_over(store, monkeypatch, tmp_path):
    from builder.oci import layer
    from builder.oci.entry import Entry
    from builder.sandbox.process import Mount

    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is missing; apt-get install busybox-static")
    entries = [
        Entry("bin/busybox", "file", 0o755, content=Path(busybox)),
        Entry("bin/sh", "symlink", 0o777, target="busybox"),
        Entry("etc/mine", "file", 0o644, content=b"mine"),
    ]
    with store.writing() as (stream, keep):
        made = layer.write_layer(entries, stream)
        keep(made.blob.digest)
    image, documents = oci.assemble(
        {"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"]}}, (made,)
    )
    store.add_image(documents)
    (tmp_path / "out").mkdir()
    (tmp_path / "in").write_text("in")
    mounts = (Mount(tmp_path / "out", "/mnt/a/out", writable=True),
              Mount(tmp_path / "in", "/etc/in"))  # fmt: skip
    code = ("busybox cat /etc/mine /etc/in; echo out >/mnt/a/out/x; echo x >/etc/new || echo; "
            "echo x >/new || busybox ls /")  # fmt: skip
    texts = []
    program = next(host.programs())
    for overlay in (True, False):
        monkeypatch.setattr(
            host, "bubblewrap", lambda _, o=overlay: host.Bwrap(program, "", overlay=o)
        )
        with (tmp_path / "log").open("wb") as stream:
            process = Process(image=image, command=("sh", "-c", code), mounts=mounts, user="7:7")
            assert run(Bubblewrap(store), process, stream).code == 0
        texts.append((tmp_path / "log").read_text().split())
        assert (tmp_path / "out/x").read_text() == "out\n"
        (tmp_path / "out/x").unlink()
    assert texts[0] == texts[1]
    assert "minein" in "".join(texts[0])


REACH = """
import socket
for address in ("\\0plateline-{}", "/tmp/no-such-socket"):
    s = socket.socket(socket.AF_UNIX)
    try: s.connect(address); print("REACHED")
    except OSError as error: print(type(error).__name__)
with socket.socket(socket.AF_UNIX) as own, socket.socket(socket.AF_UNIX) as other:
    own.bind("\\0own"); own.listen(); other.connect("\\0own"); print("its own")
"""


def test_a_step_with_the_network_reaches_no_abstract_socket_of_the_host(python) -> None:
    if not landlock.works():
        pytest.skip("this kernel has no scopes of Landlock; they came with Linux 6.12")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0plateline-{os.getpid()}")
        server.listen()
        ended, said = python(REACH.format(os.getpid()), network=True)
    assert (ended.code, said.split("\n")[:3]) == (
        0, ["PermissionError", "FileNotFoundError", "its own"],
    ), said  # fmt: skip
