"""Objects are applied as they are, waited for until the cluster has seen them, and asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cli.deployment import deploy
from pipeline.definition.plates import sample_tile
from pipeline.errors import PipelineError
from tests.pipeline.fake_kubernetes import FakeKubernetes
from tests.pipeline.fake_server import Answer, serving

IMAGE = "registry.example/served/model@sha256:" + "0" * 64


class Applying(FakeKubernetes):
    """Takes objects by server-side apply; each GET afterwards shows the next of `states`."""

    def __init__(self) -> None:
        super().__init__()
        self.applied: dict[str, dict[str, Any]] = {}
        self.states: list[dict[str, Any]] = []
        self.kinds = {"deployments", "services", "horizontalpodautoscalers", "inferenceservices"}
        self.asked: list[bytes] = []

    def answer(
        self, method: str, parts: list[str], query: Mapping[str, str], body: bytes, kind: str
    ) -> Answer:
        match method, parts:
            case "PATCH", [*_, "namespaces", "lab", collection, _] if collection in self.kinds:
                assert kind == "application/apply-patch+yaml"
                assert query == {"fieldManager": "plateline", "force": "true"}
                self.applied["/".join(parts)] = json.loads(body)
                return 200, json.loads(body)
            case "GET", [*_, "namespaces", "lab", _, _] if "/".join(parts) in self.applied:
                state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
                found = self.applied["/".join(parts)]
                meta = {**found["metadata"], "generation": 2}
                return 200, {**found, "metadata": meta, "status": state}
            case "POST", ["api", "v1", "namespaces", "lab", "services", "model:http", "proxy"]:
                self.asked.append(body)
                return 200, {"class": "positive", "probability": 0.9}
        return super().answer(method, parts, query, body, kind)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Applying]:
    monkeypatch.setattr("pipeline.serving.cluster.time.sleep", lambda _: None)
    with serving(Applying()) as server:
        yield server


@pytest.fixture
def put(cluster: Applying, tmp_path: Path) -> Callable[..., None]:
    config = cluster.kubeconfig(tmp_path / "config")

    def once(target: str, namespace: str = "lab", timeout: int = 30) -> None:
        deploy(target, image=IMAGE, namespace=namespace, kubeconfig=str(config), timeout=timeout,
               json=True)  # fmt: skip

    return once


def counts(seen: int, updated: int, available: int, every: int) -> dict[str, int]:
    return {"observedGeneration": seen, "updatedReplicas": updated,
            "availableReplicas": available, "replicas": every}  # fmt: skip


def condition(seen: int, status: str, message: str = "") -> dict[str, Any]:
    ready = {"type": "Ready", "status": status, "message": message}
    return {"observedGeneration": seen, "conditions": [ready], "url": "http://model.lab.example"}


def test_a_deployment_is_asked_once_all_its_replicas_are_the_new_ones(
    cluster: Applying, put: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.states = [
        counts(1, 1, 1, 1),  # of before the change
        counts(2, 1, 0, 2),
        counts(2, 1, 1, 2),  # an old one still answers
        counts(2, 1, 1, 1),
    ]
    put("kubernetes")
    found = json.loads(capsys.readouterr().out)
    assert found["answer"] == {"class": "positive", "probability": 0.9}
    assert (found["image"], found["updated"]) == (IMAGE, False)
    assert len(cluster.states) == 1
    assert cluster.asked == [sample_tile()]
    kinds = [each["kind"] for each in cluster.applied.values()]
    assert kinds == ["Deployment", "Service", "HorizontalPodAutoscaler"]
    put("kubernetes")
    assert json.loads(capsys.readouterr().out)["updated"]


@pytest.mark.parametrize("target", ["knative", "kserve"])
def test_others_say_themselves_when_they_are_ready_and_where(
    target: str,
    cluster: Applying,
    put: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster.states = [{}, condition(1, "True"), condition(2, "Unknown"), condition(2, "True")]
    put(target)
    found = json.loads(capsys.readouterr().out)
    assert (found["url"], found["answer"]) == ("http://model.lab.example", {})
    assert found["image"] == IMAGE
    assert len(cluster.states) == 1


def test_what_does_not_become_ready_is_told_with_the_clusters_own_reason(
    cluster: Applying, put: Callable[..., None]
) -> None:
    cluster.states = [condition(2, "False", "Unable to fetch image")]
    with pytest.raises(PipelineError, match=r"after 0 s \(Unable to fetch image\).*kubectl -n lab"):
        put("knative", timeout=0)


def test_a_cluster_that_knows_no_such_object_is_told_by_its_kind(
    cluster: Applying, put: Callable[..., None]
) -> None:
    cluster.kinds = {"deployments"}
    with pytest.raises(PipelineError, match="cannot take the InferenceService of serving"):
        put("kserve")
    with pytest.raises(PipelineError, match="no such namespace"):
        put("kubernetes", namespace="other")


def test_a_refusal_of_the_cluster_has_a_way_out(
    cluster: Applying, put: Callable[..., None]
) -> None:
    path = "/apis/serving.knative.dev/v1/namespaces/lab/services/model"
    cluster.faults[f"PATCH {path}"] = 403
    with pytest.raises(PipelineError, match=r"answered 403 .*another --namespace"):
        put("knative")
