"""Images as a tree of files and a config that tests compare: ours, and those that Docker makes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from builder.build.make import build
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.sandbox.unpack import image_entries
from builder.store import Store

DOCKER = "/usr/bin/docker"
# Path -> kind, mode, uid, gid, and the content's hash or the link's target.
Tree = dict[str, tuple[Any, ...]]
_KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.DIRTYPE: "dir",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
}


def unsave(path: Path) -> tuple[Tree, dict[str, Any]]:
    """Read what `docker save` wrote: the layers laid over each other, and the config."""
    tree: Tree = {}
    with tarfile.open(path) as archive:

        def member(name: str) -> Any:
            stream = archive.extractfile(name)
            assert stream
            return stream

        (manifest,) = json.load(member("manifest.json"))
        config = json.load(member(manifest["Config"]))
        for name in manifest["Layers"]:
            with tarfile.open(fileobj=member(name)) as layer:
                for info in layer:
                    data = info.linkname
                    if info.isreg():
                        content = layer.extractfile(info)
                        assert content
                        data = hashlib.sha256(content.read()).hexdigest()
                    kind = _KINDS[info.type]
                    where = info.name.strip("/")
                    for below in [p for p in tree if kind != "dir" and p.startswith(where + "/")]:
                        del tree[below]
                    tree[where] = (kind, oct(info.mode & 0o7777), info.uid, info.gid, data)
    return tree, settings(config["config"])


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without what is empty: null on one side is nothing on the other."""
    engine = ("Hostname", "Domainname", "Image", "ArgsEscaped")
    return {name: value for name, value in config.items() if value and name not in engine}


def ours(store: Store, workspace: Workspace) -> tuple[Tree, dict[str, Any]]:
    """Return the tree and the config of target `a` as the builder makes them."""
    image = build(workspace, store, ["a"])["a"].image
    tree: Tree = {}
    for entry in image_entries(store, image):
        data = entry.target
        if entry.kind == "file":
            with entry.open() as stream:
                data = hashlib.sha256(stream.read()).hexdigest()
        tree[entry.path] = (entry.kind, oct(entry.mode), entry.uid, entry.gid, data)
    return tree, settings(image.config["config"])


def theirs(root: Path, folder: Path) -> tuple[Tree, dict[str, Any]]:
    """Return the tree and the config of target `a` below `root` as BuildKit makes them.

    Raises BuilderError with BuildKit's last words where it refuses.
    """
    tag = f"plateline-same-{uuid.uuid4().hex[:12]}"
    command = [DOCKER, "build", "-q", "-t", tag, "-f", str(root / "stages/a/Dockerfile")]
    done = subprocess.run(
        [*command, str(root)],
        env={**os.environ, "DOCKER_BUILDKIT": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise BuilderError(done.stderr.strip().splitlines()[-1])
    try:
        saved = folder / f"{tag}.tar"
        subprocess.run([DOCKER, "save", "-o", str(saved), tag], check=True, capture_output=True)
        return unsave(saved)
    finally:
        subprocess.run([DOCKER, "rmi", "-f", tag], check=False, capture_output=True)
