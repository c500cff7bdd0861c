"""A process in an image sees that image, what was mounted, and nothing else."""

from __future__ import annotations

import io
import shutil
import tarfile
import threading
import time
from pathlib import Path

import pytest

from builder import layer, oci
from builder.errors import BuilderError
from builder.sandbox import choose
from builder.sandbox.process import Mount, Process, run
from builder.sandbox.unpack import unpacked
from builder.store import Store
from builder.tree import Entry


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


def test_one_thread_may_stop_what_another_waits_for(sandbox, image):
    running = sandbox.start(Process(image=image, command=("sleep", "50")))
    ends = []
    waiting = threading.Thread(target=lambda: ends.append(running.wait()))
    waiting.start()
    time.sleep(0.2)
    assert running.stop(grace=0).code != 0
    waiting.join(10)
    assert ends[0].signal == 9


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
