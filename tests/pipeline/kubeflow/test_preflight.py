"""What a cluster lacks is said before a run, with what to apply."""

import base64
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from kfp import compiler, dsl, kubernetes

from pipeline.errors import PipelineError
from pipeline.kubeflow import claim_pod
from pipeline.kubeflow.claim_pod import Mounted
from pipeline.kubeflow.cluster import Cluster
from pipeline.kubeflow.preflight import needs, preflight
from pipeline.spec import sdk
from pipeline.spec.package import load
from tests.pipeline.fake_kubernetes import REFUSED, STARTING, WRITABLE, FakeKubernetes
from tests.pipeline.fake_server import serving

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy" / "kubernetes"
IMAGE = "example.org/x@sha256:" + "0" * 64
OTHER = "example.org/y@sha256:" + "1" * 64


@pytest.fixture
def cluster_server():
    with serving(FakeKubernetes()) as server:
        yield server


@pytest.fixture
def cluster(cluster_server, tmp_path):
    return Cluster("fake", kubeconfig=cluster_server.kubeconfig(tmp_path / "config"), timeout=1)


@pytest.fixture
def path(tmp_path):
    @dsl.container_component
    def work():
        return dsl.ContainerSpec(IMAGE, ["true"])

    @dsl.container_component
    def more():
        return dsl.ContainerSpec(OTHER, ["true"])

    @dsl.pipeline(name="needs")
    def pipeline(claim: str = "work"):
        task = work().set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
        kubernetes.mount_pvc(task, claim, "/work")
        kubernetes.set_security_context(
            task, run_as_user=65532, run_as_group=65532, run_as_non_root=True
        )
        kubernetes.use_secret_as_volume(more(), "dockercreds", "/secret")

    compiler.Compiler().compile(pipeline, str(tmp_path / "package.yaml"))
    return tmp_path / "package.yaml"


@pytest.fixture
def ask(path, cluster):
    def do(**changes):
        named = {"pause": 0.01, "pull_seconds": 2.0, **changes}
        found = preflight(load(path), named.pop("cluster", cluster), **named)
        return {check.what.partition("@")[0]: check for check in found}

    return do


def states(checks):
    return {what: check.state for what, check in checks.items() if check.state != "ok"}


def test_a_package_says_what_it_needs(path):
    wanted = needs(load(path))
    assert wanted.claims == (Mounted("work", IMAGE, 65532, 65532, writes=True),)
    assert wanted.secrets == {"dockercreds": False}
    assert wanted.accelerators == {"nvidia.com/gpu": 1}
    assert wanted.images == (IMAGE, OTHER)


def test_a_cluster_that_has_all_is_ready(ask, cluster_server):
    checks = ask()
    assert states(checks) == {}
    assert set(checks) == {
        "Kubernetes", "namespace kubeflow", "Kubeflow Pipelines in kubeflow", "claim work",
        "secret dockercreds", "1 nvidia.com/gpu in one node", "image example.org/x",
        "image example.org/y", "claim work for user 65532",
    }  # fmt: skip
    assert cluster_server.pods == {}, "the pod that tried the images is gone"


def test_the_pod_that_tries_the_images_is_allowed_by_the_restricted_standard(ask, cluster_server):
    ask()
    assert len(cluster_server.made) == 2
    for pod in cluster_server.made:
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
            }  # fmt: skip
        assert not spec["automountServiceAccountToken"]


@pytest.mark.parametrize(
    ("change", "what", "remedy"),
    [
        (("persistentvolumeclaims/work", None), "claim work", "kubectl apply -k deploy/kubernetes"),
        (("secrets/dockercreds", None), "secret dockercreds", "--from-file=config.json="),
        (("secrets/dockercreds", {"data": {"user": ""}}), "secret dockercreds", "delete secret"),
        (("nodes/one", {"spec": {}, "status": {"allocatable": {"cpu": "4"}}}),
         "1 nvidia.com/gpu in one node", "--gpus 0"),
        (("endpoints/ml-pipeline", None), "Kubeflow Pipelines in kubeflow", "--kfp-namespace"),
        (("endpoints/ml-pipeline", {"subsets": []}), "Kubeflow Pipelines in kubeflow", "get pods"),
        (("namespaces/kubeflow", None), "namespace kubeflow", "kubectl create namespace"),
        (("persistentvolumeclaims/work", {"spec": {}, "status": {"phase": "Lost"}}), "claim work",
         "kubectl delete pvc"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_with_what_to_apply(ask, cluster_server, change, what, remedy):
    key, value = change
    cluster_server.objects.pop(key)
    if value is not None:
        cluster_server.objects[key] = value
    checks = ask()
    assert states(checks) == {what: "missing"}
    assert remedy in checks[what].remedy


def test_a_claim_that_waits_for_its_first_pod_is_a_note(ask, cluster_server):
    cluster_server.objects["persistentvolumeclaims/work"]["status"]["phase"] = "Pending"
    assert states(ask()) == {"claim work": "note"}


def test_an_image_that_no_node_can_pull_is_named_and_the_pod_removed(ask, cluster_server):
    cluster_server.pulls = {IMAGE: [STARTING, STARTING, REFUSED]}
    checks = ask()
    assert states(checks) == {"image example.org/x": "missing"}
    assert "pull access denied" in checks["image example.org/x"].found
    assert "imagePullSecret" in checks["image example.org/x"].remedy
    assert cluster_server.pods == {}


def test_a_pull_that_takes_too_long_and_a_pod_without_a_node_are_notes(ask, cluster_server):
    cluster_server.pulls = {IMAGE: [STARTING]}
    assert states(ask(pull_seconds=0.1)) == {"image example.org/x": "note"}
    cluster_server.conditions = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "taint"}
    ]
    assert states(ask()) == {"images": "note"}
    assert cluster_server.pods == {}


@pytest.mark.parametrize(
    ("said", "state", "words"),
    [
        (WRITABLE, "ok", "writable; its folder belongs to 65532:65532"),
        ({**WRITABLE, "uid": 0, "gid": 0, "writes": False, "error": "Permission denied"}, "missing",
         r"cannot be written to \(Permission denied\): its folder belongs to 0:0, mode 0o755"),
        ({**WRITABLE, "lists": False, "writes": False, "mode": "0o700"}, "missing",
         "cannot be read.*mode 0o700"),
    ],
)  # fmt: skip
def test_who_owns_a_claim_and_whether_the_packages_user_can_write_is_said(
    ask, cluster_server, said, state, words
):
    cluster_server.claims["work"] = json.dumps(said)
    check = ask()["claim work for user 65532"]
    assert check.state == state
    assert re.search(words, check.found)
    assert ("deploy/kubernetes/claim-owner" in check.remedy) == (state == "missing")
    assert cluster_server.pods == {}


@pytest.mark.parametrize("message", ["", "no JSON", "[]", None])
def test_a_pod_that_says_nothing_of_a_claim_is_a_note(ask, cluster_server, message):
    cluster_server.claims["work"] = message
    assert ask(pull_seconds=0.1)["claim work for user 65532"].state == "note"
    assert cluster_server.pods == {}


def test_a_step_without_a_user_tries_as_its_images_own(cluster_server, cluster, tmp_path):
    @dsl.container_component
    def work():
        return dsl.ContainerSpec(IMAGE, ["true"])

    @dsl.pipeline(name="plain")
    def pipeline():
        kubernetes.mount_pvc(work(), "work", "/work")

    compiler.Compiler().compile(pipeline, str(tmp_path / "p.yaml"))
    checks = preflight(load(tmp_path / "p.yaml"), cluster, pause=0.01, pull=False)
    assert "claim work for the image's user" in {check.what for check in checks}
    (pod,) = cluster_server.made
    assert "runAsUser" not in pod["spec"]["securityContext"]


def test_a_claim_that_is_not_there_is_not_tried(ask, cluster_server):
    cluster_server.objects.pop("persistentvolumeclaims/work")
    assert "claim work for user 65532" not in ask()
    assert len(cluster_server.made) == 1


def test_what_the_pod_runs_says_who_owns_a_folder_and_leaves_nothing(tmp_path):
    folder, log = tmp_path / "claim", tmp_path / "log"
    folder.mkdir()
    script = claim_pod._TRY.replace(claim_pod._AT, str(folder))
    script = script.replace("/dev/termination-log", str(log))
    subprocess.run([sys.executable, "-c", script], check=True)
    said = json.loads(log.read_text())
    assert (said["lists"], said["writes"], said["uid"]) == (True, True, folder.stat().st_uid)
    assert list(folder.iterdir()) == []
    folder.rmdir()
    folder.write_text("no folder")
    subprocess.run([sys.executable, "-c", script], check=True)
    assert json.loads(log.read_text())["writes"] is False


DOCKER = {"type": "kubernetes.io/dockerconfigjson"}


def encoded(document):
    data = base64.b64encode(json.dumps(document).encode()).decode()
    return {**DOCKER, "data": {".dockerconfigjson": data}}


@pytest.mark.parametrize(
    ("secret", "state", "words"),
    [
        (None, "missing", "not there"),
        ({"type": "Opaque", "data": {"config.json": "e30="}}, "missing", "type Opaque"),
        ({**DOCKER, "data": {".dockerconfigjson": "e30="}}, "missing", "not a Docker config"),
        ({**DOCKER, "data": {".dockerconfigjson": "!"}}, "missing", "not a Docker config"),
        (encoded({"auths": {"example.org": {}}}), "ok", "there, for example.org"),
    ],
)
def test_a_secret_that_pods_show_to_registries_is_looked_into(
    cluster_server, cluster, tmp_path, secret, state, words
):
    @dsl.container_component
    def work():
        return dsl.ContainerSpec(IMAGE, ["true"])

    @dsl.pipeline(name="pulls")
    def pipeline():
        kubernetes.set_image_pull_secrets(work(), ["regcred"])

    compiler.Compiler().compile(pipeline, str(tmp_path / "p.yaml"))
    if secret:
        cluster_server.objects["secrets/regcred"] = secret
    checks = preflight(load(tmp_path / "p.yaml"), cluster, pause=0.01)
    (check,) = (one for one in checks if one.what == "pull secret regcred")
    assert check.state == state
    assert words in check.found
    assert ("docker-registry regcred" in check.remedy) == (state == "missing")
    for pod in cluster_server.made:
        assert pod["spec"]["imagePullSecrets"] == [{"name": "regcred"}]


def test_without_the_right_to_make_pods_the_rest_is_checked(ask, cluster_server):
    cluster_server.faults["POST /api/v1/namespaces/kubeflow/pods"] = 403
    checks = ask()
    assert states(checks) == {"images": "note", "claim work for user 65532": "note"}
    assert "--skip-pull" in checks["images"].remedy
    assert "--skip-claims" in checks["claim work for user 65532"].remedy
    assert states(ask(pull=False, write=False)) == {}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (401, "401.*renew"),
        (403, "403.*--namespace"),
        (500, "500.*try again"),
        ("hang", "no answer"),
    ],
)
def test_a_bad_answer_is_one_message_with_a_way_out(ask, cluster_server, cluster, fault, words):
    for place in ("GET /version/", "GET /api/v1/namespaces/kubeflow/secrets/dockercreds"):
        cluster_server.faults = {place: fault}
        with pytest.raises(PipelineError, match=words):
            ask(cluster=replace(cluster, timeout=0.3))


def test_a_context_that_is_not_there_is_named(ask, cluster):
    with pytest.raises(PipelineError, match=r"context 'other'.*get-contexts"):
        ask(cluster=replace(cluster, context="other"))


def test_the_task_prints_the_checks_and_ends_with_one_where_something_is_missing(
    cluster_server, cluster, path
):
    cluster_server.objects.pop("secrets/dockercreds")
    done = subprocess.run(
        [sys.executable, "-m", "cli", "preflight", str(path), "--context", "fake",
         "--kubeconfig", str(cluster.kubeconfig), "--skip-pull", "--json"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    missing = [c for c in json.loads(done.stdout)["checks"] if c["state"] == "missing"]
    assert [c["what"] for c in missing] == ["secret dockercreds"]


def documents():
    for file in sorted(DEPLOY.rglob("*.yaml")):
        if file.name != "kustomization.yaml":
            yield from yaml.safe_load_all(file.read_text())


def test_the_manifests_have_no_field_that_kubernetes_does_not_know():
    from kubernetes import client

    models = {
        "PersistentVolumeClaim": client.V1PersistentVolumeClaim,
        "PersistentVolume": client.V1PersistentVolume,
        "Job": client.V1Job,
    }

    def check(document, model):
        for key, value in document.items():
            attributes = {json_name: name for name, json_name in model.attribute_map.items()}
            assert key in attributes, f"{model.__name__} has no {key}"
            kind = model.openapi_types[attributes[key]]
            inner = kind.removeprefix("list[").removesuffix("]")
            if hasattr(client, inner):
                for one in value if kind.startswith("list[") else [value]:
                    check(one, getattr(client, inner))

    for document in documents():
        check(document, models[document["kind"]])


def test_every_manifest_is_in_a_kustomization():
    for file in DEPLOY.rglob("kustomization.yaml"):
        beside = {p.name for p in file.parent.glob("*.yaml")} - {file.name}
        assert set(yaml.safe_load(file.read_text())["resources"]) == beside


@pytest.mark.parametrize("builder", ["registry", "docker"])
def test_the_pipeline_needs_what_the_manifests_have(builder, tmp_path):
    from pipeline.definition import plate_to_model
    from pipeline.definition.settings import Settings
    from pipeline.definition.stages import TARGETS

    images = {name: f"example.org/{name}@sha256:{'0' * 64}" for name in TARGETS}
    path = tmp_path / "package.yaml"
    sdk.compiler().compile(plate_to_model.build(images, Settings(builder=builder)), str(path))
    claims = {d["metadata"]["name"] for d in documents() if d["kind"] == "PersistentVolumeClaim"}
    wanted = needs(load(path))
    named = {one.name for one in wanted.claims}
    assert named | {"dockervol-pvc"} == claims
    assert ("dockervol-pvc" in named) == (builder == "docker")
    assert {one.name for one in wanted.claims if one.writes} == named - {
        "external-images-kubeflow-pvc"
    }
    assert wanted.secrets == {"dockercreds": True}
    (volume,) = [d for d in documents() if d["kind"] == "PersistentVolume"]
    assert volume["metadata"]["name"] == "dockervol-pv"
    assert volume["spec"]["hostPath"] == {"path": "/var/run/docker.sock", "type": "Socket"}
