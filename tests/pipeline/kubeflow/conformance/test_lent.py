"""A claim and a secret are made for the suite and removed, whatever happens."""

import base64

import pytest

from pipeline.errors import PipelineError
from pipeline.kubeflow.cluster import Cluster
from pipeline.kubeflow.conformance.lent import lent
from tests.pipeline.fake_kubernetes import FakeKubernetes
from tests.pipeline.fake_server import serving

CLAIM, SECRET = "persistentvolumeclaims/mine", "secrets/mine"


@pytest.fixture
def server():
    with serving(FakeKubernetes()) as made:
        yield made


@pytest.fixture
def cluster(server, tmp_path):
    return Cluster("fake", kubeconfig=server.kubeconfig(tmp_path / "config"), timeout=1)


def test_both_are_there_for_the_time_of_the_block(server, cluster):
    with lent(cluster, "mine", ("claim", "secret"), lambda _: None):
        assert server.objects[CLAIM]["spec"]["accessModes"] == ["ReadWriteOnce"]
        assert base64.b64decode(server.objects[SECRET]["data"]["key"]) == b"conformance"
    assert not {CLAIM, SECRET} & set(server.objects)


def test_what_is_there_already_is_not_made(server, cluster):
    with lent(cluster, "mine", ("secret",), lambda _: None):
        assert CLAIM not in server.objects
        assert SECRET in server.objects


def test_an_error_inside_leaves_nothing(server, cluster):
    with pytest.raises(KeyboardInterrupt), lent(cluster, "mine", ("claim", "secret"), print):
        raise KeyboardInterrupt
    assert not {CLAIM, SECRET} & set(server.objects)


def test_a_secret_that_may_not_be_made_takes_the_claim_back(server, cluster):
    server.faults["POST /api/v1/namespaces/kubeflow/secrets"] = 403
    with (
        pytest.raises(PipelineError, match="403"),
        lent(cluster, "mine", ("claim", "secret"), print),
    ):
        pass
    assert CLAIM not in server.objects


def test_what_cannot_be_removed_is_said(server, cluster):
    server.faults["DELETE /api/v1/namespaces/kubeflow/secrets/mine"] = 500
    said = []
    with lent(cluster, "mine", ("claim", "secret"), said.append):
        pass
    assert "secret mine" in said[0]
    assert "delete it by hand" in said[0]
    assert CLAIM not in server.objects
