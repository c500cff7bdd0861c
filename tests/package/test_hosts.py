"""One digest answers the same on every host that can be started here."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from builder.build.make import build
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.oci.reference import Reference
from builder.registry.client import Registry
from builder.registry.pull import pull
from builder.registry.push import push
from builder.sandbox.engines import choose
from builder.store import Store
from cli.deployment import deploy
from pipeline.definition.plates import sample_tile
from pipeline.errors import PipelineError
from pipeline.serving.function import classify, serving
from tests.conftest import missing

from .conftest import ROOT, Run, write_models_that_answer
from .reading import remove


def model(servable: Path, host: str, run: Run) -> Reference:
    """Package the models of the function's tests over the function image of this checkout."""
    store = Store.open()
    write_models_that_answer(servable)
    function = build(Workspace.load(ROOT), store, ["function"])["function"].image
    with Registry(host) as registry:
        named = push(store, {"function": ("0" * 64, function)}, f"{host}/p", registry)
    base = str(named["function"].reference)
    return Reference.parse(run(function_image=base, model_repo=f"{host}/served/model")["image"])


@pytest.mark.slow
def test_compose_answers_as_serve_does_by_the_same_digest_and_without_rights(
    servable: Path, registry_host: str, run: Run, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if not shutil.which("docker-compose"):
        missing("docker-compose", "apt-get install docker-compose")
    try:
        engine: Any = choose("docker", Store.open())
    except BuilderError as error:
        missing(str(error), "apt-get install docker.io, then start dockerd")
    image = model(servable, registry_host, run)
    capsys.readouterr()
    store = Store.open()
    with Registry(registry_host) as registry:
        whole = pull(store, registry, image)
    with serving(choose("bubblewrap", store), whole) as url:
        expected = classify(url, sample_tile())
    monkeypatch.setattr("cli.deployment.ROOT", tmp_path)
    name = f"model-{uuid.uuid4().hex[:8]}"
    project = ["docker-compose", "--file", str(tmp_path / "dist" / f"{name}.compose.yaml"),
               "--project-name", name]  # fmt: skip
    try:
        for updated in (False, True):
            deploy("compose", image=str(image), function=name, port=0, json=True)
            found = json.loads(capsys.readouterr().out)
            assert (found["image"], found["updated"]) == (str(image), updated)
            assert found["answer"] == expected
        (container,) = engine.client.containers.list(filters={"name": name})
        assert container.attrs["Config"]["Image"] == str(image)
        wanted = {"ReadonlyRootfs": True, "CapDrop": ["ALL"], "Privileged": False,
                  "Memory": 2048 << 20, "NanoCpus": 2 * 10**9}  # fmt: skip
        assert wanted.items() <= container.attrs["HostConfig"].items()
        written = container.exec_run(["python3", "-c", "open('/app/x', 'w')"])
        assert written.exit_code == 1
        assert b"Read-only file system" in written.output
        container.stop()
        assert container.wait()["StatusCode"] == 0, "SIGTERM drains, and nothing is killed"
    finally:
        subprocess.run([*project, "down"], check=False, capture_output=True)
        remove(registry_host)
        engine.client.close()


def test_a_host_that_cannot_be_started_from_here_is_refused_with_the_way() -> None:
    image = "registry.example/served/model@sha256:" + "0" * 64
    with pytest.raises(PipelineError, match=r"by --dry-run > .*model\.container there, then `syst"):
        deploy("quadlet", image=image)
    with pytest.raises(PipelineError, match="there is no target 'nomad'; take one of openfaas, kn"):
        deploy("nomad", image=image)
    with pytest.raises(PipelineError, match="--port means nothing to the target knative; it is fo"):
        deploy("knative", image=image, port=80)
    with pytest.raises(PipelineError, match="--gateway means nothing to the target kserve"):
        deploy("kserve", image=image, gateway="http://127.0.0.1:1")
