"""What an image in a registry holds, whoever made it; and what an engine has of a registry."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from typing import Any

from builder import oci
from builder.oci.reference import Reference
from builder.registry.client import Registry


def read(reference: Reference) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return manifest, config and files of an image: path -> type, mode, owner, content."""
    with Registry(reference.host) as registry:
        found = registry.get_manifest(reference.repository, reference.digest)
        assert found
        document = json.loads(found[1])

        def blob(entry: dict[str, Any]) -> bytes:
            found = oci.Descriptor.from_json(entry)
            return registry.get_blob(reference.repository, found, found.size)

        config = json.loads(blob(document["config"]))
        files: dict[str, Any] = {}
        for entry in document["layers"]:
            with tarfile.open(fileobj=io.BytesIO(blob(entry))) as tar:
                for member in tar:
                    stream = tar.extractfile(member) if member.isfile() else None
                    content = stream.read() if stream else b""
                    facts = (member.type, oct(member.mode & 0o7777), member.uid, member.gid)
                    files[member.name.strip("/")] = (*facts, content)
    return document, config, files


def meaning(config: dict[str, Any]) -> dict[str, Any]:
    """Return what a container sees of a config: the engine writes out what is empty."""
    own = {"Image", "Hostname", "Domainname"}
    inner = {k: v for k, v in config["config"].items() if v and k not in own}
    return {"config": inner, "os": config["os"], "architecture": config["architecture"]}


def remove(host: str) -> None:
    """Remove what came from or went to `host` from the engine."""
    import docker

    client = docker.from_env()
    for kind in ("RepoTags", "RepoDigests"):  # what is built before what it is built on
        for image in client.images.list():
            for name in image.attrs[kind] or []:
                if name.startswith(host):
                    with contextlib.suppress(docker.errors.ImageNotFound):
                        client.images.remove(name)
    client.close()
