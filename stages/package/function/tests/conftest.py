"""The function as a process on loopback, with two models of some hundred bytes."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MODELS = Path(__file__).parent / "models"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass(frozen=True)
class Function:
    """A running function; `ask` opens a connection a request."""

    port: int
    metrics_port: int
    process: subprocess.Popen
    log: Path

    def ask(self, method="POST", path="/", body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def raw(self, data):
        """Send bytes as they are, and return all that comes back until the end."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(data)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def metrics(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=10)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        lines = (line.rpartition(" ") for line in text.splitlines() if line[0] != "#")
        return {name: float(value) for name, _, value in lines}

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)
    return found


def write_manifest(folder, **more):
    entries = [
        {
            "name": path.stem,
            "file": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.glob("*.onnx"))
    ]
    document = {
        "format": 1,
        "classes": ["negative", "positive"],
        "threshold": 0.5,
        "tile": 256,
        "models": entries,
        **more,
    }
    (folder / "manifest.json").write_text(json.dumps(document))


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    for path in MODELS.glob("*.onnx"):
        shutil.copy(path, folder)
    write_manifest(folder)
    return folder


def launch(folder, log, **env):
    """Start the function; nothing is waited for."""
    ports = free_port(), free_port()
    settings = {
        "MODELS": str(folder),
        "HOST": "127.0.0.1",
        "PORT": str(ports[0]),
        "METRICS_PORT": str(ports[1]),
        "healthcheck_interval": "0.2s",
    }
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "function"],
            env={**os.environ, **settings, **env},
            stdout=stream,
            stderr=stream,
        )
    return Function(*ports, process, log)


def is_ready(function):
    assert function.process.poll() is None, function.log.read_text()
    try:
        return function.ask("GET", "/_/ready").status == 200
    except OSError:
        return False


@contextmanager
def running(folder, log, **env):
    function = launch(folder, log, **env)
    try:
        until(lambda: is_ready(function))
        yield function
    finally:
        function.process.kill()
        function.process.wait()


@pytest.fixture(scope="session")
def function(tmp_path_factory):
    """A function that tests share: they change nothing about it."""
    folder = tmp_path_factory.mktemp("shared")
    for path in MODELS.glob("*.onnx"):
        shutil.copy(path, folder)
    write_manifest(folder)
    with running(folder, folder / "log", exec_timeout="20s") as found:
        yield found


@pytest.fixture
def start(models, tmp_path):
    """Return what starts a function of the test's own, as a context."""
    return lambda **env: running(models, tmp_path / "log", **env)


def encode(array, form="PNG", **options):
    stream = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(stream, form, **options)
    return stream.getvalue()


def tile(green=110, size=(256, 256)):
    array = np.zeros((size[1], size[0], 3), np.uint8)
    array[..., 1] = green
    return array
