"""MLServer, BentoML and LitServe, each as its documentation sets it up, in a venv of its own.

Each loads the same ONNX file with the same session options, takes a PNG and answers with the
probability; each gets as many workers as there are cores, by its own setting for that.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
import urllib.request
import venv
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving_load import request
from builder.sandbox.bubblewrap import free_port

COMMON = ("onnxruntime==1.32.0", "numpy", "Pillow")
SESSION = """
import io, os
import numpy as np
import onnxruntime
from PIL import Image

def make_session():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

def predict(session, image):
    tile = np.asarray(image.convert("RGB"))[None]
    return float(session.run(None, {"tiles": tile})[0][0, 0])
"""


@dataclass(frozen=True, eq=False)
class Peer:
    """A server: what to install, its files, its command, where it is ready, and what to send."""

    name: str
    packages: tuple[str, ...]
    files: dict[str, str]
    command: Callable[[Path, int], list[str]]
    ready: str
    message: Callable[[bytes], bytes]


def form(path: str, field: str, png: bytes) -> bytes:
    """Return a request with the picture as a form's file."""
    body = (
        f'--cut\r\nContent-Disposition: form-data; name="{field}"; filename="a.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    ).encode() + png + b"\r\n--cut--\r\n"  # fmt: skip
    return request(path, body, Content_Type="multipart/form-data; boundary=cut")


def _mlserver_message(png: bytes) -> bytes:
    tensor = {
        "name": "image", "shape": [1], "datatype": "BYTES",
        "parameters": {"content_type": "base64"}, "data": [base64.b64encode(png).decode()],
    }  # fmt: skip
    body = json.dumps({"inputs": [tensor]}).encode()
    return request("/v2/models/tile/infer", body, Content_Type="application/json")


CORES = len(os.sched_getaffinity(0))
PEERS = (
    Peer(
        "BentoML",
        ("bentoml>=1.4", "python-multipart"),
        {
            "service.py": SESSION
            + f"""
import bentoml
from PIL.Image import Image as Picture

@bentoml.service(workers={CORES}, traffic={{"timeout": 60}})
class Tile:
    def __init__(self) -> None:
        self.session = make_session()

    @bentoml.api
    def classify(self, image: Picture) -> float:
        return predict(self.session, image)
"""
        },
        lambda bin_, port: [str(bin_ / "bentoml"), "serve", "service:Tile", "--port", str(port)],
        "/readyz",
        lambda png: form("/classify", "image", png),
    ),
    Peer(
        "LitServe",
        ("litserve==0.2.19", "python-multipart"),
        {
            "server.py": SESSION
            + f"""
import sys
import litserve

class Tile(litserve.LitAPI):
    def setup(self, device):
        self.session = make_session()

    def decode_request(self, request):
        return Image.open(io.BytesIO(request["image"].file.read()))

    def predict(self, image):
        return predict(self.session, image)

    def encode_response(self, output):
        return {{"probability": output}}

if __name__ == "__main__":
    server = litserve.LitServer(Tile(), accelerator="cpu", workers_per_device={CORES})
    server.run(port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
"""
        },
        lambda bin_, port: [str(bin_ / "python"), "server.py", str(port)],
        "/health",
        lambda png: form("/predict", "image", png),
    ),
    Peer(
        "MLServer",
        ("mlserver==1.7.1", "uvloop<0.22"),  # its workers ask for an event loop there is not
        {
            "runtime.py": SESSION
            + """
from mlserver import MLModel
from mlserver.codecs import Base64Codec
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

class Tile(MLModel):
    async def load(self) -> bool:
        self.session = make_session()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        (data,) = Base64Codec.decode_input(payload.inputs[0])
        value = predict(self.session, Image.open(io.BytesIO(data)))
        output = ResponseOutput(name="probability", shape=[1], datatype="FP32", data=[value])
        return InferenceResponse(model_name=self.name, outputs=[output])
""",
            "model-settings.json": json.dumps({"name": "tile", "implementation": "runtime.Tile"}),
            "settings.json": json.dumps({"parallel_workers": CORES, "debug": False}),
        },
        lambda bin_, _: [str(bin_ / "mlserver"), "start", "."],
        "/v2/models/tile/ready",
        _mlserver_message,
    ),
)


def install(peer: Peer, folder: Path) -> Path:
    """Return the bin folder of the peer's venv, made at first use; raises RuntimeError."""
    home = folder / peer.name.lower()
    done = home / "installed"
    wanted = "\n".join((*peer.packages, *COMMON))
    if not done.is_file() or done.read_text() != wanted:
        venv.create(home, clear=True, with_pip=True)
        made = subprocess.run(
            [home / "bin/python", "-m", "pip", "install", "-q", *peer.packages, *COMMON],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        if made.returncode:
            raise RuntimeError(f"not installable: {made.stderr.strip().splitlines()[-1][:200]}")
        done.write_text(wanted)
    return home / "bin"


@contextmanager
def serving(peer: Peer, programs: Path, work: Path, model: Path) -> Iterator[tuple[int, int]]:
    """Start the peer and yield its port and process once it is ready; it is ended after."""
    work.mkdir(parents=True, exist_ok=True)
    for name, text in peer.files.items():
        (work / name).write_text(text)
    port = free_port()
    env = {
        **os.environ, "MODEL": str(model), "BENTOML_DO_NOT_TRACK": "1", "BENTOML_HOME": str(work),
        "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(work),
        "MLSERVER_HTTP_PORT": str(port), "MLSERVER_GRPC_PORT": str(free_port()),
        "MLSERVER_METRICS_PORT": str(free_port()), "MLSERVER_HOST": "127.0.0.1",
    }  # fmt: skip
    with (work / "log").open("wb") as log:
        process = subprocess.Popen(
            peer.command(programs, port),
            cwd=work, env=env, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        end = time.monotonic() + 90
        while not _answers(f"http://127.0.0.1:{port}{peer.ready}"):
            if time.monotonic() > end or process.poll() is not None:
                words = (work / "log").read_text(errors="replace").strip().splitlines()[-3:]
                raise RuntimeError(f"did not become ready: {' / '.join(words)[:400]}")
            time.sleep(0.1)
        yield port, process.pid
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def cpu_seconds(root: int) -> float:
    """Return the processor time so far of a process and what descends from it, ended ones too."""
    used, children = {}, defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # From the third field on: state, ppid, …; 14 to 17 are utime, stime, cutime, cstime.
            fields = path.read_text().rpartition(")")[2].split()
            used[int(path.parent.name)] = sum(map(int, fields[11:15]))
            children[int(fields[1])].append(int(path.parent.name))
    ticks, waiting = 0, [root]
    while waiting:
        process = waiting.pop()
        ticks += used.get(process, 0)
        waiting += children[process]
    return ticks / os.sysconf("SC_CLK_TCK")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
