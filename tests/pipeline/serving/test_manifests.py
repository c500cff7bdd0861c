"""What a host is told of a function is what its schema takes, and gives it no needless right."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from kubernetes import client

from builder.oci.reference import Reference
from pipeline.errors import PipelineError
from pipeline.serving import manifests, units
from pipeline.serving.workload import Workload, workload
from tests.conftest import missing

IMAGE = "registry.example/served/model@sha256:" + "0" * 64
BASE = Reference.parse("registry.example/p/function@sha256:" + "1" * 64)
# Where published schemas are, as Go modules; `go mod download MODULE` brings one.
KNATIVE = "knative.dev/serving@v0.51.0"
COMPOSE = "github.com/compose-spec/compose-go/v2@v2.16.2"

Objects = list[dict[str, Any]]
CLUSTERS: dict[str, Callable[[Workload], Objects]] = {
    "kubernetes": manifests.kubernetes,
    "knative": manifests.knative,
    "kserve": manifests.kserve,
    "modelcar": lambda function: manifests.kserve(function, BASE),
}


@pytest.fixture
def function() -> Workload:
    return workload("model", IMAGE, "lab")


def pod(found: Objects) -> dict[str, Any]:
    spec = found[0]["spec"]
    inner: dict[str, Any] = spec["predictor"] if "predictor" in spec else spec["template"]["spec"]
    return inner


def through(model: str, document: dict[str, Any]) -> Any:
    """Return a document after the model that is made from Kubernetes' own OpenAPI file.

    It refuses what lacks a required member, and drops one that it does not know.
    """

    class Answer:
        data = json.dumps(document)

    api = client.ApiClient()
    return api.sanitize_for_serialization(api.deserialize(Answer, model))


def test_plain_objects_are_those_that_kubernetes_knows(function: Workload) -> None:
    deployment, service, scaler = manifests.kubernetes(function)
    assert through("V1Deployment", deployment) == deployment
    assert through("V1Service", service) == service
    assert through("V2HorizontalPodAutoscaler", scaler) == scaler
    selected = deployment["spec"]["template"]["metadata"]["labels"].items()
    assert service["spec"]["selector"].items() <= selected
    assert deployment["spec"]["selector"]["matchLabels"].items() <= selected


@pytest.mark.parametrize("target", CLUSTERS)
def test_every_pod_is_one_of_kubernetes_without_any_right(target: str, function: Workload) -> None:
    made = CLUSTERS[target](function)
    assert {each["metadata"]["namespace"] for each in made} == {"lab"}
    spec = pod(made)
    own = {"containerConcurrency", "timeoutSeconds", "minReplicas", "maxReplicas", "scaleMetric",
           "scaleTarget", "timeout"}  # fmt: skip
    plain = {name: value for name, value in spec.items() if name not in own}
    (container,) = plain["containers"]
    named = {**plain, "containers": [{"name": "user-container", **container}]}
    assert through("V1PodSpec", named) == named
    assert plain["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["resources"]["limits"].keys() == {"cpu", "memory"}
    env = {each["name"]: each["value"] for each in container["env"]}
    assert env["PLATELINE_IMAGE"] == IMAGE
    # The function answers that long after SIGTERM: docs/function.md.
    waits = ("exec_timeout", "healthcheck_interval")
    drain = sum(int(env[name].removesuffix("s")) for name in waits)
    grace = spec.get("terminationGracePeriodSeconds", spec.get("timeoutSeconds"))
    assert grace > drain


def test_the_packaged_image_is_mounted_for_its_models_alone(function: Workload) -> None:
    (container,) = pod(manifests.kserve(function, BASE))["containers"]
    env = {each["name"]: each["value"] for each in container["env"]}
    assert container["image"] == str(BASE)
    assert env["STORAGE_URI"] == f"oci+native://{IMAGE}"
    assert env["MODELS"] == "/mnt/models"
    assert env["PLATELINE_IMAGE"] == IMAGE, "a receipt names the image with the models"


def module(name: str) -> Path:
    """Return the folder of a Go module in Go's cache; nothing is downloaded."""
    if not shutil.which("go"):
        missing(f"the Go module {name}", "install Go, then go mod download")
    asked = subprocess.run(["go", "env", "GOMODCACHE"], capture_output=True, text=True, check=True)
    folder = Path(asked.stdout.strip()) / name
    if not folder.is_dir():
        missing(f"the Go module {name}", f"go mod download {name}")
    return folder


def closed(schema: Any) -> Any:
    """Return a structural schema that knows no other members than its own.

    Kubernetes drops those without a word:
    https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
    """
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(value) for name, value in schema.items()}
    if made.pop("x-kubernetes-int-or-string", False):
        made["type"] = ["integer", "string"]
    if isinstance(made.get("properties"), dict) and made.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made


def faults(schema: Any, document: Any) -> list[str]:
    found = Draft202012Validator(schema).iter_errors(document)
    return [f"{error.json_path}: {error.message}" for error in found]


def test_a_knative_service_keeps_to_the_published_schema(function: Workload) -> None:
    file = module(KNATIVE) / "config" / "core" / "300-resources" / "service.yaml"
    definition = yaml.safe_load(file.read_text())
    schema = closed(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own, which is not written
    (service,) = manifests.knative(function)
    assert service["apiVersion"] == f"{definition['spec']['group']}/v1"
    assert faults(schema, service) == []
    pod([service])["terminationGracePeriodSeconds"] = 45
    assert "terminationGracePeriodSeconds" in str(faults(schema, service))


def test_a_compose_file_keeps_to_the_published_schema(function: Workload) -> None:
    schema = json.loads((module(COMPOSE) / "schema" / "compose-spec.json").read_text())
    document = units.compose(function, 8080)
    assert faults(schema, document) == []
    document["services"]["model"]["privilege"] = True
    assert "privilege" in str(faults(schema, document))


def test_a_machine_gives_no_right_either_and_answers_on_loopback_alone(function: Workload) -> None:
    service = units.compose(function, 0)["services"]["model"]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["ports"] == ["127.0.0.1::8080"]
    lines = units.quadlet(function, 8081).splitlines()
    wanted = {"ReadOnly=true", "DropCapability=all", "NoNewPrivileges=true", "User=65532",
              "PublishPort=127.0.0.1:8081:8080", f"Image={IMAGE}"}  # fmt: skip
    assert wanted <= {*lines}


GENERATORS = (
    "/usr/libexec/podman/quadlet",
    "/usr/lib/systemd/system-generators/podman-system-generator",
    "quadlet",
)


def test_podmans_own_generator_and_systemd_take_the_quadlet(
    function: Workload, tmp_path: Path
) -> None:
    generator = next(filter(None, map(shutil.which, GENERATORS)), None)
    if not generator:
        missing("quadlet", "apt-get install podman, 4.4 or later")
    (tmp_path / "model.container").write_text(units.quadlet(function, 8080))
    made = subprocess.run(
        [generator, "--dryrun"], check=False, capture_output=True, text=True,
        env={"QUADLET_UNIT_DIRS": str(tmp_path)},
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    service = tmp_path / "model.service"
    service.write_text(made.stdout.replace("---model.service---\n", ""))
    said = subprocess.run(
        ["systemd-analyze", "verify", service], check=False, capture_output=True, text=True
    )
    assert (said.returncode, said.stderr) == (0, "")
    (start,) = [line for line in made.stdout.splitlines() if line.startswith("ExecStart=")]
    for word in ("--read-only ", "--cap-drop all", "no-new-privileges", "--user 65532:65532"):
        assert word in start


@pytest.mark.parametrize(
    ("name", "image", "namespace", "says"),
    [
        ("model", "", "", "no image was named"),
        ("model", "registry.example/m:v1", "", "can be another image tomorrow"),
        ("model", "registry.example/m", "", "can be another image tomorrow"),
        ("model", IMAGE.replace("registry.example", "localhost"), "", "from which no host pulls"),
        ("model", "m@sha256:" + "0" * 64, "", "does not name its registry"),
        ("model", IMAGE[:-1], "", "64 hexadecimal digits"),
        ("Model", IMAGE, "", "the name 'Model' cannot be one of Kubernetes"),
        ("1model", IMAGE, "", "the name '1model'"),
        ("m" * 64, IMAGE, "", "up to 63 small letters"),
        ("model\n", IMAGE, "", "the name"),
        ("model", IMAGE, "lab_1", "the namespace 'lab_1'"),
    ],
)
def test_what_no_host_can_take_is_refused_by_name(
    name: str, image: str, namespace: str, says: str
) -> None:
    with pytest.raises(PipelineError, match=says):
        workload(name, image, namespace)


def test_a_tag_beside_the_digest_is_left_out() -> None:
    assert str(workload("model", IMAGE.replace("@", ":v1@")).image) == IMAGE
