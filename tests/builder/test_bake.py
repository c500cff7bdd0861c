"""The bake file lets BuildKit build the same recipes to the same trees."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from builder.bake import bake, document
from builder.build import build
from builder.download import sha256_file as sha256
from builder.kept import kept
from builder.sandbox.unpack import image_entries
from builder.store import Store
from builder.workspace import Workspace
from tests.builder.conftest import Make
from tests.builder.test_docker_same import Tree, settings, unsave

ROOT = Path(__file__).parents[2]


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


@pytest.mark.slow
def test_buildkit_makes_the_same_tree_and_config(
    baked: tuple[Store, Workspace, bytes], tmp_path: Path
) -> None:
    if subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False).returncode:
        # Never demanded: Debian 12 has no buildx, and its engine's BuildKit no named contexts.
        pytest.skip("docker buildx is missing; Debian 13 has it as docker-buildx")
    store, workspace, data = baked
    changed = json.loads(data)
    tag = f"plateline-bake-{os.getpid()}"
    changed["target"]["prepare"]["tags"] = [tag]
    (tmp_path / "bake.json").write_text(json.dumps(changed))
    command = ["docker", "buildx", "bake", "-f", str(tmp_path / "bake.json"), "--load", "prepare"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    try:
        save = ["docker", "save", "-o", str(tmp_path / "image.tar"), tag]
        subprocess.run(save, check=True, capture_output=True)
    finally:
        subprocess.run(["docker", "rmi", "-f", tag], check=False, capture_output=True)
    theirs, config = unsave(tmp_path / "image.tar")
    image = build(workspace, store, ["prepare"])["prepare"].image
    assert config == settings(image.config["config"])
    assert theirs == tree(store, workspace, "prepare")
