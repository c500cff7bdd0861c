"""Open Inference Protocol v2 as Triton's own client speaks it, in a venv of its own."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.conftest import missing

CLIENT = "tritonclient[http]==2.73.0"
SCRIPT = """
import sys
import numpy as np
import tritonclient.http as http

client = http.InferenceServerClient(sys.argv[1])
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("A")
assert client.is_model_ready("mean", "1") and not client.is_model_ready("C")
assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
(described,) = client.get_model_metadata("A")["inputs"]
tiles = np.zeros((2, 256, 256, 3), np.uint8)
tiles[0, ..., 1], tiles[1, ..., 1] = 100, 120
wanted = 1 / (1 + np.exp([[0.0], [-2.0]]))
for sent in (True, False):
    for asked in (True, False):
        one = http.InferInput(described["name"], list(tiles.shape), described["datatype"])
        one.set_data_from_numpy(tiles, binary_data=sent)
        outputs = [http.InferRequestedOutput("probability", binary_data=asked)]
        found = client.infer("A", [one], outputs=outputs, request_id="5")
        assert found.get_response()["id"] == "5"
        values = found.as_numpy("probability")
        assert values.dtype == np.float32 and np.allclose(values, wanted, atol=1e-5), values
assert np.allclose(client.infer("A", [one]).as_numpy("probability"), wanted, atol=1e-5)
wait = client.async_infer("mean", [one], model_version="1")
assert wait.get_result().as_numpy("probability").shape == (2, 1)
try:
    client.infer("A", [http.InferInput("tiles", [1, 2], "UINT8").set_data_from_numpy(
        np.zeros((1, 2), np.uint8))])
except http.InferenceServerException as error:
    assert "shape" in str(error)
else:
    raise AssertionError("a wrong shape was answered")
"""


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Python that has the client; skip where PyPI does not answer."""
    folder = tmp_path_factory.mktemp("client") / "venv"
    venv.create(folder, with_pip=True)
    program = folder / "bin/python"
    done = subprocess.run(
        [program, "-m", "pip", "install", "-q", "--only-binary", ":all:", CLIENT],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        missing(CLIENT, f"make PyPI reachable ({done.stderr.strip().splitlines()[-1:]})")
    return program


@pytest.mark.slow
def test_tritons_client_is_answered_in_json_and_in_bytes(function, python):
    done = subprocess.run(
        [python, "-W", "ignore", "-c", SCRIPT, f"127.0.0.1:{function.port}"],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    print(done.stderr, file=sys.stderr)
    assert done.returncode == 0
