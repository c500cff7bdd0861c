"""A small server of Kubeflow Pipelines: its API, metadata store, objects and logs, in memory.

What it answers is what backend/api/v2beta1/*.proto, backend/src/apiserver and frontend/server of
kubeflow/pipelines 2.17 say: numbers of 64 bits as text, unset fields left out, names of runs and
recurring runs not unique.
"""

from __future__ import annotations

import email.parser
import email.policy
import itertools
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.run.record import Step
from tests.pipeline.fake_metadata import FakeStore
from tests.pipeline.fake_server import Answer, FakeServer

# What a run ends as: its state, and its steps.
Execute = Callable[[dict[str, Any]], tuple[str, Mapping[str, Step]]]
_LISTS = {"recurringruns": "recurringRuns"}
_KEYS = {"pipelines": "pipeline_id", "experiments": "experiment_id", "runs": "run_id",
         "recurringruns": "recurring_run_id"}  # fmt: skip
_EQUALS, _IS_SUBSTRING = 1, 9


class FakeKubeflow(FakeServer):
    """Keeps pipelines, versions, experiments and runs.

    A run goes through `states`; with `execute` it is RUNNING until that returns instead. `objects`
    maps "source/bucket/key" to bytes, or to a folder's files; `logs` a pod to what it printed.
    """

    prefix = "/apis/v2beta1"

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in _KEYS}
        self.versions: dict[str, dict[str, Any]] = {}
        self.states: list[str] = ["PENDING", "RUNNING", "SUCCEEDED"]
        self.steps: Mapping[str, Step] = {}
        self.execute: Execute | None = None
        self.store: FakeStore | None = FakeStore()
        self.objects: dict[str, bytes] = {}
        self.logs: dict[str, str] = {}
        self.version = "2.17.0"
        self.page_size = 100
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    @property
    def pipelines(self) -> dict[str, dict[str, Any]]:
        return self.kept["pipelines"]

    @property
    def experiments(self) -> dict[str, dict[str, Any]]:
        return self.kept["experiments"]

    @property
    def runs(self) -> dict[str, dict[str, Any]]:
        return self.kept["runs"]

    @property
    def recurring(self) -> dict[str, dict[str, Any]]:
        return self.kept["recurringruns"]

    def answer(
        self, method: str, parts: list[str], query: Mapping[str, str], body: bytes, kind: str
    ) -> Answer:
        with self._lock:
            return self._answer(method, parts, query, body, kind)

    def _answer(
        self, method: str, parts: list[str], query: Mapping[str, str], body: bytes, kind: str
    ) -> Answer:
        match method, parts:
            case "GET", ["healthz"]:
                return 200, {"tag_name": self.version, "multi_user": False}
            case "GET", ["pipelines", pipeline, "versions"]:
                own = {k: v for k, v in self.versions.items() if v["pipeline_id"] == pipeline}
                return 200, self._listed("pipeline_versions", own, query)
            case "POST", ["pipelines", "upload_version"]:
                version = {
                    "display_name": query["name"], "pipeline_id": query["pipelineid"],
                    "uploaded": _file(kind, body).decode(),
                }  # fmt: skip
                return self._made(self.versions, "pipeline_version_id", version)
            case "GET", [name] if name in self.kept:
                return 200, self._listed(_LISTS.get(name, name), self.kept[name], query)
            case "POST", [name] if name in self.kept:
                made = self._made(self.kept[name], _KEYS[name], json.loads(body))
                if name == "runs":
                    self._started(made[1]["run_id"])  # type: ignore[index]
                return made
            case "DELETE", [name, key] if key in self.kept.get(name, {}):
                if name == "experiments" and any(
                    r["experiment_id"] == key for r in self.runs.values()
                ):
                    return 400, {"code": 9, "message": "the experiment has runs"}
                del self.kept[name][key]
                return 200, {}
            case "POST", ["runs", word] if word.removesuffix(":terminate") in self.runs:
                run = self.runs[word.removesuffix(":terminate")]
                if run.get("state") in ("SUCCEEDED", "FAILED"):
                    return 400, {"code": 9, "message": "the run has ended"}
                run["state"], run["terminated"] = "CANCELED", True
                return 200, {}
            case "GET", ["runs", run] if run in self.runs:
                return 200, self._run(run)
            case "POST", [service, method_name] if service.startswith("ml_metadata."):
                if self.store is None:
                    return 404, self.fault(404)
                return 200, (self.store.answer(method_name, body),
                             {"Content-Type": "application/grpc-web+proto"})  # fmt: skip
            case "GET", ["artifacts", *key] if "/".join(key) in self.objects:
                found = self.objects["/".join(key)]
                headers = {"Content-Type": "application/octet-stream"}
                if found.startswith(b"\x1f\x8b"):  # a folder, as the web page packs it
                    headers = {
                        "Content-Type": "application/gzip",
                        "Content-Disposition": f'attachment; filename="{key[-1]}.tar.gz"',
                    }
                return 200, (found, headers)
            case "GET", ["k8s", "pod", "logs"] if query["podname"] in self.logs:
                return 200, (self.logs[query["podname"]].encode(), {"Content-Type": "text/plain"})
        return 404, {"code": 5, "message": f"no {'/'.join(parts)}"}

    def _started(self, run_id: str) -> None:
        run = self.runs[run_id]
        run["asked"] = 0
        if self.execute is None:
            if self.store is not None:
                self.store.record(run_id, self.steps)
            return
        run["state"] = "RUNNING"
        execute = self.execute

        def work() -> None:
            state, steps = execute(dict(run))
            with self._lock:
                if self.store is not None:
                    self.store.record(run_id, steps)
                if run["state"] == "RUNNING":
                    run["state"] = state

        threading.Thread(target=work, daemon=True).start()

    def _run(self, run_id: str) -> dict[str, Any]:
        run = self.runs[run_id]
        if "state" not in run:
            state = self.states[min(run["asked"], len(self.states) - 1)]
            run["asked"] += 1
        else:
            state = run["state"]
        shown = {key: value for key, value in run.items() if key not in ("asked", "terminated")}
        nodes = [
            {"display_name": name.rpartition(".")[2], "state": step.state.upper()}
            for name, step in self.steps.items()
        ]
        return {
            **shown, "state": state, "created_at": "2026-01-31T12:00:00Z",
            "finished_at": "2026-01-31T12:01:30Z", "run_details": {"task_details": nodes},
        }  # fmt: skip

    def _listed(self, name: str, items: dict[str, Any], query: Mapping[str, str]) -> dict[str, Any]:
        predicates = json.loads(query.get("filter", "{}")).get("predicates", [])
        found = [
            item
            for item in items.values()
            if all(_holds(item, predicate) for predicate in predicates)
            and query.get("experiment_id", item.get("experiment_id")) == item.get("experiment_id")
        ]
        size = min(self.page_size, int(query.get("page_size", 20)))
        begin = int(query.get("page_token", 0))
        page = found[begin : begin + size]
        answer: dict[str, Any] = {name: page, "total_size": len(found)} if page else {}
        if begin + size < len(found):
            answer["next_page_token"] = str(begin + size)
        return answer

    def _made(self, items: dict[str, Any], key: str, item: dict[str, Any]) -> Answer:
        unique = key not in ("run_id", "recurring_run_id")
        same = {"display_name", "pipeline_id"} - {key}
        if unique and any(all(old.get(k) == item.get(k) for k in same) for old in items.values()):
            return 409, {"code": 6, "message": f"{item['display_name']} already exists"}
        made = {**item, key: f"{key.replace('_', '-')}-{next(self._numbers)}"}
        items[made[key]] = made
        return 200, made


def _holds(item: Mapping[str, Any], predicate: Mapping[str, Any]) -> bool:
    value, wanted = item.get(predicate["key"], ""), predicate["stringValue"]
    if predicate["operation"] == _IS_SUBSTRING:
        return wanted in value
    assert predicate["operation"] == _EQUALS
    return bool(value == wanted)


def _file(kind: str, body: bytes) -> bytes:
    head = f"Content-Type: {kind}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    (part,) = (p for p in message.iter_parts() if p.get_filename())
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload
