"""What `docker save` writes, as a tree of files and a config that tests compare."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
