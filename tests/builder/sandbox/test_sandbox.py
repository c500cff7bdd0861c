"""A process in an image sees that image, what was mounted, and nothing else."""

from __future__ import annotations

import io
import shutil
import socket
import tarfile
import threading
import time
from pathlib import Path

import pytest

from builder import oci
from builder.errors import BuilderError
from builder.oci import layer
from builder.oci.entry import Entry
from builder.sandbox.engines import choose
from builder.sandbox.gpu import Gpus
from builder.sandbox.process import Mount, Process, run
from builder.sandbox.unpack import unpacked
from builder.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(tmp_path_factory.mktemp("sandbox") / "store")


@pytest.fixture(scope="module")
def image(store: Store) -> oci.Image:
    found = shutil.which("busybox")
    if found is None:
        pytest.skip("busybox is missing; apt-get install busybox-static")
    names = ("sh", "cat", "echo", "sleep", "id", "ls", "touch", "wget", "pwd")
    entries = [
        Entry("bin/busybox", "file", 0o755, content=Path(found)),
        Entry("tmp", "dir", 0o1777),  # runc gives a tmpfs the mode of the folder it covers
        *(Entry(f"bin/{name}", "symlink", 0o777, target="busybox") for name in names),
        *(Entry(name, "dir", 0o755) for name in ("proc", "dev", "work")),
    ]
    with store.writing() as (stream, keep):
        made = layer.write_layer(entries, stream)
        keep(made.blob.digest)
    config = {"User": "65532:65532", "Env": ["PATH=/bin", "A=1"], "WorkingDir": "/work"}
    image, documents = oci.assemble(
        {"architecture": "amd64", "os": "linux", "config": config}, (made,)
    )
    store.add_image(documents)
    return image


@pytest.fixture(params=["bubblewrap", "docker"])
def sandbox(request, store):
    try:
        return choose(request.param, store)
    except BuilderError as error:
        pytest.skip(str(error))


def shell(sandbox, image, code, tmp_path, **members):
    output = tmp_path / "output"
    with output.open("wb") as stream:
        ended = run(sandbox, Process(image=image, command=("sh", "-c", code), **members), stream)
    return ended, output.read_text()


def test_user_environment_and_folder_are_the_images(sandbox, image, tmp_path):
    ended, text = shell(sandbox, image, "id -u; pwd; echo $A$B", tmp_path, env={"B": "2"})
    assert ended.code == 0
    assert text.split() == ["65532", "/work", "12"]


def test_the_root_is_read_only_and_tmp_is_not(sandbox, image, tmp_path):
    ended, text = shell(sandbox, image, "touch /tmp/x && touch /bin/x", tmp_path)
    assert ended.code == 1
    assert "Read-only" in text


def test_a_docker_engine_without_a_gpu_says_so(store, image):
    if Path("/dev/nvidia0").exists():
        pytest.skip("a GPU is here")
    try:
        sandbox = choose("docker", store)
    except BuilderError as error:
        pytest.skip(str(error))
    process = Process(image=image, command=("true",), gpus=Gpus({}, {}))
    with pytest.raises(
        BuilderError, match=r"no NVIDIA GPU to hand on; install .* leave out --gpus"
    ):
        run(sandbox, process)


def test_there_is_no_network_unless_asked(sandbox, image, tmp_path):
    _, text = shell(sandbox, image, "ls /sys/class/net || cat /proc/net/dev", tmp_path)
    assert "eth0" not in text


def test_mounts_are_as_writable_as_asked(sandbox, image, tmp_path):
    for name in ("read", "write"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
    mounts = (
        Mount(tmp_path / "read", "/new/read"),
        Mount(tmp_path / "write", "/new/write", writable=True),
    )
    ended, _ = shell(sandbox, image, "touch /new/write/a; touch /new/read/a", tmp_path,
                     mounts=mounts)  # fmt: skip
    assert ended.code == 1
    assert (tmp_path / "write" / "a").exists()
    assert not (tmp_path / "read" / "a").exists()


def test_a_time_limit_kills_the_whole_tree(sandbox, image, tmp_path):
    began = time.monotonic()
    ended, _ = shell(sandbox, image, "sleep 50 & sleep 50", tmp_path, timeout=1.0)
    assert ended.timed_out
    assert time.monotonic() - began < 15


def test_nothing_of_the_host_is_seen(sandbox, image, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_HOST", "1")
    code = "ls /; ls /tmp; cat /proc/self/environ; ls /proc | grep -c '^[0-9]*$' || true"
    ended, text = shell(sandbox, image, code, tmp_path)
    assert ended.code == 0
    assert {"bin", "dev", "proc", "tmp", "work"} <= set(text.split())
    assert not {"home", "root", "etc/shadow", "usr"} & set(text.split())
    assert "SECRET_OF_THE_HOST" not in text
    assert str(tmp_path.parent.name) not in text


def test_tmp_is_empty_and_private_each_time(sandbox, image, tmp_path):
    for _ in range(2):
        ended, text = shell(sandbox, image, "ls -A /tmp; touch /tmp/mine; ls /tmp", tmp_path)
        assert (ended.code, text.split()) == (0, ["mine"])


def test_the_user_cannot_become_root_nor_change_what_is_mounted(sandbox, image, tmp_path):
    paths = ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/domainname", "/work/a", "/a")
    code = "id -u; " + "; ".join(f"(echo >>{path}) && echo WRITTEN {path}" for path in paths)
    _, text = shell(sandbox, image, code, tmp_path)
    assert "65532" in text
    assert "WRITTEN" not in text


def test_a_user_and_a_folder_may_be_asked_for(sandbox, image, tmp_path):
    ended, text = shell(sandbox, image, "id -u; id -g; pwd", tmp_path, user="7:8", workdir="/bin")
    assert (ended.code, text.split()) == (0, ["7", "8", "/bin"])


def test_a_host_port_of_loopback_is_out_of_reach(sandbox, image, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"wget -q -T 2 http://127.0.0.1:{port}/"
        ended, _ = shell(sandbox, image, code, tmp_path, timeout=20)
        assert ended.code != 0
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_background_process_does_not_outlive_the_command(sandbox, image, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(0o777)
    code = "(sleep 3; touch /out/late) >/dev/null 2>&1 & exit 0"
    mounts = (Mount(tmp_path / "out", "/out", writable=True),)
    ended, _ = shell(sandbox, image, code, tmp_path, mounts=mounts)
    assert ended.code == 0
    time.sleep(4)
    assert not (tmp_path / "out/late").exists()


@pytest.mark.parametrize("wrapped", [False, True])
def test_peak_memory_is_that_of_what_ran_inside(store, image, tmp_path, wrapped):
    sandbox = choose("bubblewrap", store)
    fill = "x=a; while [ ${#x} -lt 67108864 ]; do x=$x$x; done"
    ended, _ = shell(sandbox, image, f"sh -c '{fill}'; true" if wrapped else fill, tmp_path)
    assert ended.code == 0
    assert 64 << 20 < ended.max_rss < 1 << 30
    small, _ = shell(sandbox, image, "true", tmp_path)
    assert small.max_rss < 32 << 20


def test_peak_memory_is_known_of_what_was_killed(store, image, tmp_path):
    sandbox = choose("bubblewrap", store)
    fill = "x=a; while [ ${#x} -lt 67108864 ]; do x=$x$x; done; sleep 60; true"
    ended, _ = shell(sandbox, image, fill, tmp_path, timeout=5)
    assert ended.timed_out
    assert ended.max_rss > 64 << 20


def test_one_thread_may_stop_what_another_waits_for(sandbox, image):
    running = sandbox.start(Process(image=image, command=("sleep", "50")))
    ends = []
    waiting = threading.Thread(target=lambda: ends.append(running.wait()))
    waiting.start()
    time.sleep(0.2)
    assert running.stop(grace=0).code != 0
    waiting.join(10)
    assert ends[0].signal == 9


@pytest.mark.timeout(40)
def test_what_is_stopped_as_soon_as_it_started_ends(sandbox, image):
    for _ in range(3):
        running = sandbox.start(Process(image=image, command=("sleep", "600")))
        assert running.stop(grace=0).code != 0


def test_the_command_replaces_the_entry_point(image):
    config = {**image.config, "config": {"Entrypoint": ["a"], "Cmd": ["b"]}}
    other = oci.Image(
        manifest=image.manifest, config_blob=image.config_blob, config=config, layers=image.layers
    )
    assert Process(image=other).words() == ["a", "b"]
    assert Process(image=other, command=("c",)).words() == ["c"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("../out", tarfile.REGTYPE), ("/out", tarfile.REGTYPE), ("dev/null", tarfile.CHRTYPE),
     ("link/out", tarfile.REGTYPE)],
)  # fmt: skip
def test_a_layer_that_reaches_out_is_refused(store, tmp_path, name, kind):
    from isal import igzip

    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
        member = tarfile.TarInfo(name)
        member.type = kind
        archive.addfile(member)
    blob = store.add(igzip.compress(data.getvalue()), oci.LAYER)
    bad = oci.Layer(diff_id=oci.describe("", data.getvalue()).digest, blob=blob)
    with pytest.raises(BuilderError, match="refused"):
        unpacked(store, bad)
    assert list(tmp_path.iterdir()) == []
