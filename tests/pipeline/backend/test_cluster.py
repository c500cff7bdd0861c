"""The stand-in for the Kubernetes API answers what a pod asks, by the pod's own files."""

from __future__ import annotations

import base64
import json
import ssl

import httpx
import pytest

from pipeline.backend import cluster


@pytest.fixture
def api(tmp_path):
    objects = cluster.contents("run-1", "2026-01-02T03:04:05Z", 9000, "bucket", "secret")
    with cluster.serve(tmp_path / "account", objects) as served:
        yield served


@pytest.fixture
def get(api):
    trusted = ssl.create_default_context(cafile=api.account / "ca.crt")
    env = api.environment()
    base = f"https://{env['KUBERNETES_SERVICE_HOST']}:{env['KUBERNETES_SERVICE_PORT']}"
    with httpx.Client(verify=trusted, base_url=base, trust_env=False) as client:
        yield client.get


def test_the_launcher_is_told_where_artifacts_go_and_by_which_key(get):
    found = get("/api/v1/namespaces/plateline/configmaps/kfp-launcher").json()["data"]
    assert found["defaultPipelineRoot"] == "minio://bucket/v2/artifacts"
    store = json.loads(found["providers"])["minio"]["default"]
    assert store["endpoint"] == "127.0.0.1:9000"
    name = store["credentials"]["secretRef"]["secretName"]
    secret = get(f"/api/v1/namespaces/plateline/secrets/{name}").json()["data"]
    assert base64.b64decode(secret["secretkey"]) == b"secret"


def test_the_driver_is_told_when_the_run_began(get):
    workflow = "/apis/argoproj.io/v1alpha1/namespaces/plateline/workflows/run-1"
    assert get(workflow).json()["metadata"]["creationTimestamp"] == "2026-01-02T03:04:05Z"


def test_a_pod_without_retries_has_a_node_name_without_a_number(get):
    found = get("/api/v1/namespaces/plateline/pods/step").json()
    assert found["metadata"]["annotations"] == {"workflows.argoproj.io/node-name": "step"}


def test_what_is_not_there_is_noted(api, get):
    assert get("/api/v1/namespaces/plateline/nodes").status_code == 404
    assert api.missing == ["GET /api/v1/namespaces/plateline/nodes"]


def test_the_key_of_its_certificate_stays_nowhere(api):
    assert sorted(path.name for path in api.account.iterdir()) == ["ca.crt", "namespace", "token"]
    assert not list(api.account.parent.glob("*key*"))
