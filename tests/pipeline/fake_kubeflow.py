"""A small API server of Kubeflow Pipelines: what `submit` needs of it, in memory."""

from __future__ import annotations

import email.parser
import email.policy
import json
from collections.abc import Mapping
from typing import Any

from tests.pipeline.fake_server import Answer, FakeServer


class FakeKubeflow(FakeServer):
    """Keeps pipelines, versions, experiments and runs; a run goes through `states`."""

    prefix = "/apis/v2beta1"

    def __init__(self) -> None:
        super().__init__()
        self.pipelines: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, Any]] = {}
        self.experiments: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.states: list[str] = ["PENDING", "RUNNING", "SUCCEEDED"]

    def answer(
        self, method: str, parts: list[str], query: Mapping[str, str], body: bytes, kind: str
    ) -> Answer:
        match method, parts:
            case "GET", ["healthz"]:
                return 200, {"multi_user": False}
            case "GET", ["pipelines"]:
                return 200, _listed("pipelines", self.pipelines, query)
            case "POST", ["pipelines"]:
                return _made(self.pipelines, "pipeline_id", json.loads(body))
            case "GET", ["pipelines", pipeline, "versions"]:
                own = {k: v for k, v in self.versions.items() if v["pipeline_id"] == pipeline}
                return 200, _listed("pipeline_versions", own, query)
            case "POST", ["pipelines", "upload_version"]:
                version = {
                    "display_name": query["name"], "pipeline_id": query["pipelineid"],
                    "uploaded": _file(kind, body).decode(),
                }  # fmt: skip
                return _made(self.versions, "pipeline_version_id", version)
            case "GET", ["experiments"]:
                return 200, _listed("experiments", self.experiments, query)
            case "POST", ["experiments"]:
                return _made(self.experiments, "experiment_id", json.loads(body))
            case "POST", ["runs"]:
                return _made(self.runs, "run_id", {**json.loads(body), "asked": 0})
            case "GET", ["runs", run]:
                found = self.runs[run]
                state = self.states[min(found["asked"], len(self.states) - 1)]
                found["asked"] += 1
                return 200, {"run_id": run, "state": state}
        return 404, {"code": 5, "message": f"no {'/'.join(parts)}"}


def _listed(name: str, items: dict[str, Any], query: Mapping[str, str]) -> dict[str, Any]:
    predicates = json.loads(query.get("filter", "{}")).get("predicates", [])
    found = [
        item
        for item in items.values()
        if all(item["display_name"] == predicate["stringValue"] for predicate in predicates)
    ]
    return {name: found, "total_size": len(found)} if found else {}


def _made(items: dict[str, Any], key: str, item: dict[str, Any]) -> Answer:
    same = ("display_name", "pipeline_id")
    if key != "run_id" and any(all(old.get(k) == item.get(k) for k in same if k != key)
                               for old in items.values()):  # fmt: skip
        return 409, {"code": 6, "message": f"{item['display_name']} already exists"}
    item = {**item, key: f"{key}-{len(items) + 1}"}
    items[item[key]] = item
    return 200, item


def _file(kind: str, body: bytes) -> bytes:
    head = f"Content-Type: {kind}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    (part,) = (p for p in message.iter_parts() if p.get_filename())
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload
