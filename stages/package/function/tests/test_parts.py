"""What the function does not load at its start."""

import os
import subprocess
import sys

SCRIPT = """
import sys
from function.parts import left_out
with left_out():
    import uvicorn, prometheus_client
assert not {"click", "multiprocessing", "http.server", "wsgiref.simple_server"} & set(sys.modules)
import http.server, urllib.request
print(issubclass(http.server.HTTPServer, object), callable(urllib.request.urlopen))
uvicorn.run("app")
"""


LATER_SCRIPT = """
import sys
from types import ModuleType
from function.parts import LATER, left_out
with left_out():
    from function import models, server
assert not [name for name in LATER if type(sys.modules[name]) is ModuleType]
import http.client
from PIL import ExifTags
print(http.client.responses[404], ExifTags.Base.Orientation.name)
assert type(sys.modules["numpy._core._add_newdocs"]) is not ModuleType
"""


def test_what_libraries_hardly_use_is_run_when_it_is_used():
    ended = subprocess.run(
        [sys.executable, "-c", LATER_SCRIPT], check=True, capture_output=True, text=True
    )
    assert ended.stdout == "Not Found Orientation\n"


def test_what_is_left_out_is_there_for_whoever_asks_later():
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], check=False, capture_output=True, text=True
    )
    assert ended.stdout == "True True\n"
    assert "NotImplementedError: uvicorn.main.run was left out" in ended.stderr


def test_the_function_starts_without_command_lines_and_other_servers(tmp_path):
    env = {**os.environ, "MODELS": str(tmp_path), "PORT": "8099", "METRICS_PORT": "8098"}
    command = [sys.executable, "-X", "importtime", "-m", "function"]
    ended = subprocess.run(command, check=False, env=env, capture_output=True, text=True)
    loaded = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert {"uvicorn.server", "prometheus_client", "onnxruntime"} <= loaded
    left = {"click", "multiprocessing", "http.server", "wsgiref", "logging.handlers"}
    assert not (left | {"PIL.JpegPresets"}) & loaded
