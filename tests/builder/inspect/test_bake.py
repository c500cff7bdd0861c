"""The bake file lets BuildKit build the same recipes to the same trees."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.build.make import build
from builder.build.workspace import Workspace
from builder.inspect.bake import bake, document
from builder.packages import debian, debian_index
from builder.packages.download import downloads_folder
from builder.packages.download import sha256_file as sha256
from builder.sandbox.unpack import image_entries
from builder.store import Store
from builder.store.roots import kept
from tests.builder.conftest import Make
from tests.builder.docker_images import Tree, settings, unsave
from tests.conftest import missing

ROOT = Path(__file__).parents[3]


def test_targets_and_what_they_stand_on_are_mapped(make: Make, store: Store) -> None:
    workspace = make(
        "FROM scratch\nCOPY src /\n",
        **{"stages/b/Dockerfile": "FROM a\nCOPY src /b\n", "stages/c/Dockerfile": "FROM b\n"},
        src="x",
    )
    found = json.loads(bake(workspace, store, ["b"]))
    assert found["group"]["default"]["targets"] == ["a", "b"]
    assert found["target"]["b"]["contexts"] == {"a": "target:a"}
    assert found["target"]["b"]["dockerfile"] == "stages/b/Dockerfile"
    assert bake(workspace, store, ["b"]) == bake(workspace, store, ["b"])
    assert set(json.loads(bake(workspace, store))["target"]) == {"a", "b", "c"}
    assert b'"wheels":"/folder"' in document(workspace, {"a": {"wheels": "/folder"}})


@pytest.fixture(scope="module")
def baked() -> tuple[Store, Workspace, bytes]:
    store, workspace = Store.open(), Workspace.load(ROOT)
    return store, workspace, bake(workspace, store, ["prepare"])


def tree(store: Store, workspace: Workspace, name: str) -> Tree:
    found: Tree = {}
    for entry in image_entries(store, build(workspace, store, [name])[name].image):
        content = entry.target
        if entry.kind == "file":
            with entry.open() as stream:
                content = hashlib.sha256(stream.read()).hexdigest()
        found[entry.path] = (entry.kind, oct(entry.mode), entry.uid, entry.gid, content)
    return found


def test_a_context_holds_what_the_image_has_from_it(baked: tuple[Store, Workspace, bytes]) -> None:
    store, workspace, data = baked
    folder = Path(json.loads(data)["target"]["prepare"]["contexts"]["wheels"])
    wanted = {
        path.removeprefix("opt/venv/"): (kind, content)
        for path, (kind, _, _, _, content) in tree(store, workspace, "prepare").items()
        if path.startswith("opt/venv/")
    }
    found = {
        path.relative_to(folder).as_posix(): ("dir", "")
        if path.is_dir()
        else ("file", sha256(path))
        for path in folder.rglob("*")
    }
    assert found.items() <= wanted.items()
    assert {f"opt/venv/{path}" for path in wanted.keys() - found} <= set(
        tree(store, workspace, "base")
    ), "what is missing is not the base's"
    assert "bake prepare wheels" in kept(store)


PACKAGES = ("docker-buildx", "docker.io", "docker-cli", "containerd", "runc")


@pytest.fixture
def buildkit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put a `docker` with buildx on the PATH, and an engine that knows named contexts behind it.

    Debian 12 has none, so those of Debian 13 are fetched, and run from a folder of their own.
    """
    if os.geteuid():
        missing("the right to start an engine", "run the tests as root")
    folder = Path(tempfile.mkdtemp(prefix="plateline-engine-"))
    index = debian_index.packages_index(debian.mirror(), "trixie")
    wanted = [
        debian.Package(name, s["Version"], s["Filename"], int(s["Size"]), s["SHA256"])
        for name, s in ((name, index[name]) for name in PACKAGES)
    ]
    for path in debian.fetch(wanted, downloads_folder()):
        subprocess.run(["dpkg-deb", "-x", str(path), str(folder)], check=True)
    plugins = folder / "config/cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-buildx").symlink_to(folder / "usr/libexec/docker/cli-plugins/docker-buildx")
    path = f"{folder}/usr/bin:{folder}/usr/sbin:{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("DOCKER_CONFIG", str(folder / "config"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/socket")
    # In a network of its own: an engine without a bridge removes docker0, another one's.
    command = ["unshare", "--net", "dockerd", "--bridge=none", "--iptables=false",
               "--ip6tables=false",
               "--storage-driver=vfs", f"--data-root={folder}/data", f"--exec-root={folder}/exec",
               f"--pidfile={folder}/pid", f"--host=unix://{folder}/socket"]  # fmt: skip
    with (folder / "log").open("wb") as log:
        engine = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(120):
            if not subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
                break
            time.sleep(0.5)
        else:
            raise AssertionError((folder / "log").read_text()[-2000:])
        yield
    finally:
        engine.terminate()
        engine.wait(120)
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.usefixtures("buildkit")
def test_buildkit_makes_the_same_tree_and_config(
    baked: tuple[Store, Workspace, bytes], tmp_path: Path
) -> None:
    store, workspace, data = baked
    (tmp_path / "bake.json").write_bytes(data)
    command = ["docker", "buildx", "bake", "-f", str(tmp_path / "bake.json"), "--load"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    save = ["docker", "save", "-o", str(tmp_path / "image.tar"), "plateline/prepare"]
    subprocess.run(save, check=True, capture_output=True)
    theirs, config = unsave(tmp_path / "image.tar")
    image = build(workspace, store, ["prepare"])["prepare"].image
    assert config == settings(image.config["config"])
    assert theirs == tree(store, workspace, "prepare")
