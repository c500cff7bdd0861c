"""Builds and pushes that are killed, run side by side, meet damage or a full disk."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.build.make import build
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.oci.reference import Reference
from builder.registry.client import Registry
from builder.registry.pull import pull
from builder.store import Store
from tests.builder.conftest import Make

ROOT = Path(__file__).parents[3]
# A build of several images and layers, and a push where a registry is named.
SCRIPT = """
import sys
from pathlib import Path
from builder.build.make import build
from builder.registry.push import push
from builder.registry.client import Registry
from builder.store import Store
from builder.build.workspace import Workspace
root, folder, registry = sys.argv[1:4]
store = Store.open(Path(folder))
print("ready", flush=True)
built = build(Workspace.load(Path(root)), store)
if registry:
    with Registry(registry) as client:
        push(store, {n: (b.key, b.image) for n, b in built.items()}, registry + "/p", client)
print({n: b.image.digest for n, b in built.items()})
"""
RECIPES = {
    "stages/b/Dockerfile": "FROM a\nCOPY more /more\nCOPY --from=a /app/0 /zero\n",
    "stages/c/Dockerfile": "FROM b\nCOPY src/ /again/\n",
    "more": "m" * 200_000,
}


@pytest.fixture
def workspace(make: Make) -> Workspace:
    """Three targets with layers of random bytes, which take a moment to write."""
    made = make("FROM scratch\nCOPY src/ /app/\n", **RECIPES, **{"src/0": "zero"})
    for number in range(1, 9):
        (made.root / f"src/{number}").write_bytes(random.Random(number).randbytes(300_000))
    return made


def start(workspace: Workspace, store: Path, registry: str = "") -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(workspace.root), str(store), registry],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def check(store: Store) -> None:
    """Every blob of the store is what its name says."""
    for path in (store.root / "blobs/sha256").iterdir():
        store.verify(f"sha256:{path.name}")


def check_registry(host: str, folder: Path) -> int:
    """Whatever has a tag is there whole; return how many tags there are."""
    seen = 0
    with Registry(host) as registry:
        for name in "abc":
            for tag in registry.tags(f"p/{name}"):
                found = registry.head_manifest(f"p/{name}", tag)
                assert found
                reference = Reference(host, f"p/{name}", digest=found.digest)
                pull(Store.open(folder), registry, reference)
                seen += 1
    return seen


@pytest.mark.slow
def test_fifty_killed_builds_and_pushes_leave_nothing_wrong(
    workspace: Workspace, tmp_path: Path, registry_host: str
) -> None:
    whole = build(workspace, Store.open(tmp_path / "undisturbed"))
    chance = random.Random(20)
    killed, longest = 0, 0.6
    for _ in range(500):
        if killed == 50:
            break
        process = start(workspace, tmp_path / "store", registry_host)
        assert process.stdout
        process.stdout.readline()
        time.sleep(chance.uniform(0, longest))
        process.kill()
        hit = process.wait() == -signal.SIGKILL
        killed += hit
        longest *= 1.05 if hit else 0.9  # as long as work takes on this machine, now
        process.communicate()
        check(Store.open(tmp_path / "store"))
        for path in (tmp_path / "store/results").iterdir():
            assert Store(tmp_path / "store").get_result(path.stem) is not None
        if chance.random() < 0.5:  # begin again from nothing now and then
            target = random.Random(chance.random()).choice(["src/1", "more", "src/8"])
            (workspace.root / target).write_bytes(random.Random(chance.random()).randbytes(300_000))
    assert killed == 50, "most ended before they were killed; the test shows too little"
    for number in (1, 8):
        (workspace.root / f"src/{number}").write_bytes(random.Random(number).randbytes(300_000))
    (workspace.root / "more").write_text(RECIPES["more"])
    last = start(workspace, tmp_path / "store", registry_host)
    out, error = last.communicate()
    assert last.returncode == 0, error.decode()
    for built in whole.values():
        assert built.image.digest.encode() in out
    check(Store.open(tmp_path / "store"))
    assert check_registry(registry_host, tmp_path / "pulled") >= 3


def test_two_builds_at_once_on_one_store_agree(workspace: Workspace, tmp_path: Path) -> None:
    running = [start(workspace, tmp_path / "store") for _ in range(3)]
    ends = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], ends
    assert len({out for out, _ in ends}) == 1
    store = Store.open(tmp_path / "store")
    check(store)
    assert not list((store.root / "tmp").iterdir())


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
def test_damage_to_any_file_of_the_store_is_mended_by_the_next_build(
    workspace: Workspace, store: Store, damage: Callable[[Path], None]
) -> None:
    first = {name: b.image for name, b in build(workspace, store).items()}
    files = [*(store.root / "blobs/sha256").iterdir(), *(store.root / "results").iterdir()]
    for path in sorted(files):
        was = path.read_bytes()
        damage(path)
        assert {name: b.image for name, b in build(workspace, store).items()} == first
        if path.parent.name == "sha256":
            assert path.read_bytes() == was, "what an image needs is there again"
        check(store)


def test_a_blob_that_only_was_touched_is_kept(workspace: Workspace, store: Store) -> None:
    blob = build(workspace, store)["a"].image.layers[0].blob
    inode = store.path(blob.digest).stat().st_ino
    os.utime(store.path(blob.digest))
    assert store.has(blob)
    assert build(workspace, store)["a"].cached
    assert store.path(blob.digest).stat().st_ino == inode


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of one megabyte."""
    if os.geteuid():
        pytest.skip("only root can mount a small tmpfs")
    with tempfile.TemporaryDirectory() as name:
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", name]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("this machine does not let root mount a tmpfs")
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", name], check=True)


def test_a_full_disk_is_said_and_leaves_nothing_half_made(
    workspace: Workspace, small_disk: Path
) -> None:
    store = Store.open(small_disk / "store")
    with pytest.raises(BuilderError, match=r"No space left on device.*PLATELINE_STORE"):
        build(workspace, store)
    check(store)
    assert not list((store.root / "tmp").iterdir())


def test_a_full_disk_while_pulling_is_said(
    workspace: Workspace, tmp_path: Path, registry_host: str, small_disk: Path
) -> None:
    process = start(workspace, tmp_path / "store", registry_host)
    assert process.communicate()[0]
    store = Store.open(small_disk / "store")
    image = build(workspace, Store.open(tmp_path / "store"))["c"].image
    with (
        Registry(registry_host) as registry,
        pytest.raises(BuilderError, match="No space left on device"),
    ):
        pull(store, registry, Reference(registry_host, "p/c", digest=image.digest))
    check(store)
