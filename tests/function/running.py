"""The function's image as a server on loopback, and what is sent to it."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import shutil
import struct
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from builder import oci
from builder.sandbox.process import Mount, Process, Running, Sandbox

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "stages/package/function/tests/models"


def png(width: int = 256, height: int = 256, green: int = 110, *, noise: bool = False) -> bytes:
    """Return an RGB PNG, green all over or as random as a picture is."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    row = b"\0" + bytes((0, green, 0)) * width
    dice = random.Random(0)
    rows = b"".join(b"\0" + dice.randbytes(3 * width) if noise else row for _ in range(height))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def servable(folder: Path) -> Path:
    """Lay the tiny models and their manifest into `folder`, as validate writes them."""
    entries = []
    for path in sorted(MODELS.glob("*.onnx")):
        shutil.copy(path, folder)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        entries.append({"name": path.stem, "file": path.name, "sha256": digest})
    document = {"format": 1, "classes": ["negative", "positive"], "threshold": 0.5}
    (folder / "manifest.json").write_text(json.dumps(document | {"models": entries}))
    return folder


@dataclass(frozen=True)
class Answer:
    """A response that was read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """One connection after the other to one port; kept open while the server likes it."""

    port: int
    _connection: http.client.HTTPConnection | None = field(default=None, init=False)

    def ask(self, method: str = "POST", path: str = "/", body: Any = None) -> Answer:
        """Return the answer; raises OSError or HTTPException, then with a closed connection."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            self._connection.request(method, path, body)
            response = self._connection.getresponse()
            answer = Answer(response.status, dict(response.getheaders()), response.read())
        except BaseException:
            self.close()
            raise
        if self._connection.sock is None:  # the server said "close"
            self._connection = None
        return answer

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@dataclass(frozen=True)
class Function:
    """A started function."""

    running: Running
    port: int
    metrics_port: int

    def ask(self, method: str = "POST", path: str = "/", body: Any = None) -> Answer:
        client = Client(self.port)
        try:
            return client.ask(method, path, body)
        finally:
            client.close()

    def metrics(self) -> dict[str, float]:
        client = Client(self.metrics_port)
        text = client.ask("GET", "/metrics").body.decode()
        client.close()
        lines = (line.rpartition(" ") for line in text.splitlines() if line[0] != "#")
        return {name: float(value) for name, _, value in lines}

    def ready(self) -> bool:
        try:
            return self.ask("GET", "/_/ready").status == 200
        except (OSError, http.client.HTTPException):
            return False


@contextmanager
def serving(
    sandbox: Sandbox,
    image: oci.Image,
    models: Path,
    *,
    user: str = "",
    log: BinaryIO | None = None,
    **env: str,
) -> Iterator[Function]:
    """Start the image with `models` at /models, wait until it is ready, and end it in the end."""
    # bubblewrap shares the host's addresses, an engine publishes on loopback.
    host = {"HOST": "127.0.0.1"} if sandbox.name == "bubblewrap" else {}
    process = Process(
        image=image,
        env={**host, "healthcheck_interval": "0.2s", **env},
        mounts=(Mount(models, "/models"),),
        user=user,
        network=True,
        ports={8080: "PORT", 8081: "METRICS_PORT"},
    )
    with tempfile.TemporaryFile() as own:
        running = sandbox.start(process, log or own)
        try:
            function = Function(running, running.ports[8080], running.ports[8081])
            end = time.monotonic() + 30
            while not function.ready():
                assert time.monotonic() < end, "the function did not become ready"
                time.sleep(0.01)
            yield function
        finally:
            running.stop(grace=0)
