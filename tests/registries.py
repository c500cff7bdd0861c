"""Debian's docker-registry as a process on loopback: empty, and configured as a test asks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = "docker-registry"
# It lives for a second and answers one test: it need neither tidy its memory, before there is much
# of it, nor spread over cores. That is a fifth of its processor time (https://pkg.go.dev/runtime).
_LIGHT = {"GOGC": "off", "GOMEMLIMIT": "256MiB", "GOMAXPROCS": "1"}


def free_port() -> int:
    """Return a TCP port of loopback that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def serve(
    folder: Path, *, auth: Mapping[str, Any] | None = None, tls: tuple[Path, Path] | None = None,
    in_memory: bool = False,
) -> Iterator[str]:  # fmt: skip
    """Yield HOST:PORT of a registry that keeps its data in `folder`; it ends with the block.

    `in_memory` takes half the time of a request, and of a blob of many megabytes a multiple:
    it is for small images. `auth` is its member `auth`; `tls` its certificate and key. Its access
    log is `folder/registry.log`. Source:
    https://distribution.github.io/distribution/about/configuration/.
    """
    folder.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{free_port()}"
    http: dict[str, Any] = {"addr": address}
    if tls:
        http["tls"] = {"certificate": str(tls[0]), "key": str(tls[1])}
    disk = {"filesystem": {"rootdirectory": str(folder / "data")}}
    config = {
        "version": "0.1",
        "log": {"level": "info"},
        "storage": {**({"inmemory": {}} if in_memory else disk), "delete": {"enabled": True}},
        "http": http,
        **({"auth": auth} if auth else {}),
    }
    # JSON is YAML.
    (folder / "registry.yml").write_text(json.dumps(config))
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen(
            [PROGRAM, "serve", str(folder / "registry.yml")],
            env={**os.environ, **_LIGHT}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        _wait(address, process, folder)
        yield address
    finally:
        process.terminate()
        process.wait(10)


def _wait(address: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    host, _, port = address.partition(":")
    for _ in range(200):
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"no registry at {address}: {(folder / 'registry.log').read_text()}")
