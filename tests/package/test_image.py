"""The stage in its own image, as a pipeline runs it: credentials from the secret, little memory."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.build.make import build
from builder.build.workspace import Workspace
from builder.oci.reference import Reference
from builder.registry.client import Registry
from builder.registry.push import push
from builder.sandbox.engines import choose
from builder.sandbox.process import Mount, Process
from builder.sandbox.process import run as run_process
from builder.store import Store
from tests import registries
from tests.builder.logins import HTPASSWD, PASSWORD, USER

from .conftest import ROOT, base_image

MEGABYTES = 300
MEASURED = """
import resource
from common.stage_io import run_stage
from package.stage import package_models
run_stage("package", package_models, ["--executor-input", open("/task/input.json").read()])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.fixture
def locked_host(tmp_path: Path) -> Iterator[str]:
    """Yield a registry that wants a password."""
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}}
    with registries.serve(tmp_path / "locked", auth=auth) as host:
        yield host


@pytest.mark.slow
def test_a_large_model_is_packaged_with_the_secret_and_little_memory(
    store: Store, locked_host: str, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (secret / "config.json").write_text(json.dumps({"auths": {locked_host: {"auth": token}}}))
    with Registry(locked_host, docker_config=secret / "config.json") as registry:
        images = {"function": ("0" * 64, base_image(store))}
        base = push(store, images, f"{locked_host}/p", registry)["function"].reference

    task, out, servable = (tmp_path / name for name in ("task", "out", "servable"))
    for folder in (task, out, servable):
        folder.mkdir()
    out.chmod(0o777)
    seen = hashlib.sha256()
    with (servable / "m.onnx").open("wb") as file:
        for _ in range(MEGABYTES):
            chunk = os.urandom(1_000_000)
            seen.update(chunk)
            file.write(chunk)
    entry = {"file": "m.onnx", "sha256": seen.hexdigest()}
    (servable / "manifest.json").write_text(json.dumps({"models": [entry]}))
    document = {
        "inputs": {
            "parameterValues": {
                "function_image": str(base),
                "model_repo": f"{locked_host}/served/model",
                "workspace_name": "w",
            },
            "artifacts": {"servable": {"artifacts": [{"name": "s", "uri": "/servable"}]}},
        },
        "outputs": {
            "outputFile": "/out/executor.json",
            "artifacts": {
                n: {"artifacts": [{"name": n, "uri": f"/out/{n}"}]} for n in ("stack", "digests")
            },
        },
    }
    (task / "input.json").write_text(json.dumps(document))

    built = Store.open()
    image = build(Workspace.load(ROOT), built, ["package"])["package"].image

    def packaged(*mounts: Mount) -> tuple[int, str]:
        process = Process(
            image=image,
            command=("python3", "-c", MEASURED),
            mounts=(Mount(task, "/task"), Mount(servable, "/servable"),
                    Mount(out, "/out", writable=True), *mounts),
            network=True,
        )  # fmt: skip
        with tempfile.TemporaryFile() as output:
            ended = run_process(choose("bubblewrap", built), process, output)
            output.seek(0)
            return ended.code, output.read().decode()

    code, text = packaged()
    assert code == 1
    assert "answered 401" in text
    assert "secret dockercreds, /var/run/secrets/dockercreds/config.json" in text
    code, text = packaged(Mount(secret, "/var/run/secrets/dockercreds"))
    assert code == 0, text
    assert int(re.findall(r"peak (\d+)", text)[0]) < 150
    assert PASSWORD not in text
    pinned = json.loads((out / "executor.json").read_text())["parameterValues"]["image"]
    with Registry(locked_host, docker_config=secret / "config.json") as registry:
        found = Reference.parse(pinned)
        assert registry.head_manifest(found.repository, found.digest)
