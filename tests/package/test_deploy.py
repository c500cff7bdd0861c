"""A stack file becomes a function that has answered, or one message says why not."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from builder.build.make import build
from builder.build.workspace import Workspace
from builder.oci.reference import Reference
from builder.sandbox.engines import choose
from builder.store import Store
from pipeline.definition.plates import sample_tile
from pipeline.errors import PipelineError
from pipeline.serving.function import classify, serving
from pipeline.serving.openfaas import Gateway, deploy, find_password, read_stack

from . import gateway
from .conftest import ROOT, Run, base_image, write_models_that_answer

STACK = ROOT / "deploy" / "openfaas" / "stack.yaml"
IMAGE = "registry.example/served/model@sha256:" + "0" * 64


@pytest.fixture
def fake() -> Iterator[gateway.Fake]:
    with gateway.serve() as state:
        yield state


@pytest.fixture
def where(fake: gateway.Fake) -> Gateway:
    return Gateway(fake.url, "admin", fake.password, timeout=5, pause=0.01)


def test_it_is_created_then_updated_and_asked_when_ready(
    fake: gateway.Fake, where: Gateway
) -> None:
    body = read_stack(STACK, IMAGE)
    first = deploy(where, body, sample_tile())
    assert fake.asked == [
        "PUT /system/functions",
        "POST /system/functions",
        *["GET /system/function/model"] * 3,
        "POST /function/model",
    ]
    assert not first.updated
    assert first.answer["probability"] == 0.9
    assert fake.tiles == [sample_tile()]
    assert fake.functions["model"] == {
        "service": "model",
        "image": IMAGE,
        "envVars": {
            "PLATELINE_IMAGE": IMAGE,
            "exec_timeout": "30s",
            "read_timeout": "35s",
            "write_timeout": "35s",
        },
        "requests": {"cpu": "500m", "memory": "512Mi"},
        "limits": {"memory": "2Gi"},
        "readOnlyRootFilesystem": True,
    }
    assert deploy(where, body, b"tile").updated


def test_a_namespace_is_part_of_every_address(
    fake: gateway.Fake, where: Gateway, tmp_path: Path
) -> None:
    document = yaml.safe_load(STACK.read_text())
    document["functions"]["model"] |= {"namespace": "lab", "labels": {"team": 7}}
    stack = tmp_path / "stack.yaml"
    stack.write_text(yaml.safe_dump(document))
    found = deploy(where, read_stack(stack, IMAGE), b"tile")
    assert found.url == f"{fake.url}/function/model.lab"
    assert fake.functions["model"]["labels"] == {"team": "7"}


def test_a_gateway_that_is_busy_is_asked_again(fake: gateway.Fake, where: Gateway) -> None:
    fake.busy = 4
    assert deploy(where, read_stack(STACK, IMAGE), b"tile").answer["class"] == "positive"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"password": "wrong"}, "answered 401 .*; set OPENFAAS_PASSWORD or run `faas-cli login`"),
        ({"url": "http://127.0.0.1:9"}, "check that the gateway runs"),
        ({"url": "gateway"}, "no http or https address"),
        ({"url": "http://gateway.example"}, "in the clear; use https, or --insecure"),
    ],
)
def test_a_gateway_that_cannot_be_used_is_named_with_the_way_out(
    where: Gateway, change: dict[str, str], message: str
) -> None:
    with pytest.raises(PipelineError, match=message):
        deploy(replace(where, timeout=0.05, **change), read_stack(STACK, IMAGE), b"tile")  # type: ignore[arg-type]


def test_a_function_that_does_not_become_ready_is_told_with_its_state(
    fake: gateway.Fake, where: Gateway
) -> None:
    fake.not_ready = 10**6
    with pytest.raises(PipelineError, match=r"not ready after 0.2 s \(0 of 1 replicas of .*pull"):
        deploy(replace(where, timeout=0.2), read_stack(STACK, IMAGE), b"tile")


def test_what_the_community_edition_refuses_is_told_and_not_asked_by_default(
    where: Gateway,
) -> None:
    body = read_stack(STACK, IMAGE)
    assert gateway.fault(body) == ""
    with pytest.raises(PipelineError, match=r"400 \(com.openfaas.scale.zero is not available"):
        deploy(where, {**body, "labels": {"com.openfaas.scale.zero": "true"}}, b"tile")


def test_an_answer_that_is_no_functions_is_told(fake: gateway.Fake, where: Gateway) -> None:
    fake.answer = b"<html>"
    with pytest.raises(PipelineError, match="no JSON: '<html>'; is it the function's image"):
        deploy(where, read_stack(STACK, IMAGE), b"tile")


@pytest.mark.parametrize(
    ("text", "image", "message"),
    [
        ("functions: {a: {image: '${IMAGE}'}}", "", "names no image; give --image"),
        ("functions: {a: {image: x}}", "host.example/a:latest", "name it by @sha256"),
        ("functions: {a: {image: x}}", "localhost/a@sha256:" + "0" * 64, "no host pulls"),
        ("functions: {a: {}, b: {}}", IMAGE, "name one with --function"),
        ("functions: {a: {build_args: {}}}", IMAGE, "build_args of a cannot be deployed"),
        ("[1]", IMAGE, "is no stack file"),
        (": :", IMAGE, "is no stack file"),
    ],
)
def test_a_stack_file_that_cannot_be_deployed_is_refused(
    tmp_path: Path, text: str, image: str, message: str
) -> None:
    path = tmp_path / "stack.yaml"
    path.write_text(text)
    with pytest.raises(PipelineError, match=message):
        read_stack(path, image)


def test_the_stage_puts_out_the_same_stack_file_with_its_image(
    store: Store, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PLATELINE_STORE", str(store.root))
    base = f"localhost/function@{base_image(store).digest}"
    image = run(function_image=base, model_repo="localhost/served/model")["image"]
    lines = [line for line in STACK.read_text().splitlines(True) if "#" not in line]
    expected = "".join(lines).replace("${IMAGE}", image)
    assert (tmp_path / "out" / "stack").read_text() == expected


def test_the_password_comes_from_the_environment_or_faas_cli(tmp_path: Path) -> None:
    known = {"OPENFAAS_PASSWORD": "p", "OPENFAAS_CONFIG": str(tmp_path)}
    assert find_password("http://g", known) == ("admin", "p")
    assert find_password("http://g", {**known, "OPENFAAS_USERNAME": "u"}) == ("u", "p")
    del known["OPENFAAS_PASSWORD"]
    assert find_password("http://g", known) == ("", "")
    token = base64.b64encode(b"me:a:b").decode()
    entry = {"gateway": "http://g", "auth": "basic", "token": token}
    (tmp_path / "config.yml").write_text(yaml.safe_dump({"auths": [entry]}))
    assert find_password("http://g/", known) == ("me", "a:b")
    assert find_password("http://other", known) == ("", "")
    (tmp_path / "config.yml").write_text("auths: [{gateway: 1}]")
    with pytest.raises(PipelineError, match="run `faas-cli login` again"):
        find_password("http://g", known)


def test_the_task_deploys_and_prints_the_answer(fake: gateway.Fake) -> None:
    command = [sys.executable, "-m", "cli", "deploy", "--gateway", fake.url, "--image", IMAGE]
    env = {**os.environ, "OPENFAAS_PASSWORD": fake.password}
    done = subprocess.run(
        [*command, "--json"], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["answer"]["class"] == "positive"
    assert fake.password not in done.stdout + done.stderr


@pytest.mark.slow
def test_what_was_packaged_answers_the_tile_that_deploy_sends(
    run: Run, servable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open()
    write_models_that_answer(servable)
    function = build(Workspace.load(ROOT), store, ["function"])["function"].image
    base = f"localhost/plateline/function@{function.digest}"
    image = run(function_image=base, model_repo="localhost/served/model")["image"]
    with serving(choose("bubblewrap", store), store.image(Reference.parse(image).digest)) as url:
        answer = classify(url, sample_tile())
    digest = hashlib.sha256((servable / "manifest.json").read_bytes()).hexdigest()
    assert answer["model_digest"] == f"sha256:{digest}"
    assert 0 <= answer["probability"] <= 1
