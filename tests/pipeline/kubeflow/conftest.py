"""A server of Kubeflow Pipelines on loopback, and how it is reached."""

import pytest

from pipeline.kubeflow.server.access import Access
from tests.pipeline.fake_kubeflow import FakeKubeflow
from tests.pipeline.fake_server import serving


@pytest.fixture
def kubeflow():
    with serving(FakeKubeflow()) as server:
        yield server


@pytest.fixture
def access(kubeflow):
    return Access(kubeflow.url, timeout=1.0, pause=0.001)
