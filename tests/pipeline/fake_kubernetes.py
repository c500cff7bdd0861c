"""A small Kubernetes API server: the objects that `preflight` asks for, in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.pipeline.fake_server import Answer, FakeServer

PULLED = {"terminated": {"exitCode": 128, "reason": "StartError"}}
STARTING = {"waiting": {"reason": "ContainerCreating"}}
REFUSED = {"waiting": {"reason": "ImagePullBackOff", "message": "pull access denied"}}
WRITABLE = {"uid": 65532, "gid": 65532, "mode": "0o755", "lists": True, "writes": True}


class FakeKubernetes(FakeServer):
    """`objects` maps "kind/name" to an object; `pulls` maps an image to its container's states."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, dict[str, Any]] = {
            "namespaces/kubeflow": {},
            "endpoints/ml-pipeline": {"subsets": [{"addresses": [{"ip": "10.0.0.1"}]}]},
            "persistentvolumeclaims/work": _claim("Bound"),
            "secrets/dockercreds": {"data": {"config.json": "e30="}},
            "nodes/one": _node({"nvidia.com/gpu": "1", "cpu": "4"}),
        }
        self.pulls: dict[str, list[dict[str, Any]]] = {}
        self.conditions: list[dict[str, Any]] = []
        # What the pod that tries a claim says: its termination message, None while it goes on.
        self.claims: dict[str, str | None] = {}
        self.pods: dict[str, dict[str, Any]] = {}
        self.made: list[dict[str, Any]] = []

    def fault(self, status: int) -> dict[str, Any]:
        return {
            "kind": "Status",
            "status": "Failure",
            "code": status,
            "message": f"made up {status}",
        }

    def answer(
        self, method: str, parts: list[str], query: Mapping[str, str], body: bytes, kind: str
    ) -> Answer:
        match method, parts:
            case "GET", ["version"]:
                return 200, dict.fromkeys(
                    ("buildDate", "compiler", "gitCommit", "gitTreeState", "goVersion", "major",
                     "minor", "platform"), "x") | {"gitVersion": "v1.31.0"}  # fmt: skip
            case "GET", ["api", "v1", "nodes"]:
                return 200, {
                    "items": [o for k, o in self.objects.items() if k.startswith("nodes/")]
                }
            case "POST", ["api", "v1", "namespaces", _, "pods"]:
                pod = json.loads(body)
                pod["metadata"]["name"] = f"{pod['metadata']['generateName']}{len(self.made)}"
                self.pods[pod["metadata"]["name"]] = pod
                self.made.append(pod)
                return 201, pod
            case "GET", ["api", "v1", "namespaces", _, "pods", name]:
                return 200, self._running(self.pods[name])
            case "DELETE", ["api", "v1", "namespaces", _, "pods", name]:
                return 200, self.pods.pop(name)
            case "POST", ["api", "v1", "namespaces", _, collection]:
                key = f"{collection}/{json.loads(body)['metadata']['name']}"
                if key in self.objects:
                    return 409, self.fault(409)
                self.objects[key] = json.loads(body)
                return 201, self.objects[key]
            case "DELETE", ["api", "v1", "namespaces", _, collection, name] if (
                f"{collection}/{name}" in self.objects
            ):
                return 200, self.objects.pop(f"{collection}/{name}")
            case "GET", ["api", "v1", "namespaces", _, collection, name]:
                return self._found(f"{collection}/{name}")
            case "GET", ["api", "v1", "namespaces", name]:
                return self._found(f"namespaces/{name}")
        return 404, self.fault(404)

    def _found(self, key: str) -> Answer:
        found = self.objects.get(key)
        return (404, self.fault(404)) if found is None else (200, found)

    def _tried(self, pod: dict[str, Any], claim: str) -> dict[str, Any]:
        """Return the pod that tries a claim as it ended."""
        message = self.claims.get(claim, json.dumps(WRITABLE))
        if message is None:
            return {**pod, "status": {"phase": "Pending"}}
        ended = {"exitCode": 0, "reason": "Completed", "message": message}
        status = {"name": "claim", "image": "", "imageID": "", "ready": False, "restartCount": 0,
                  "state": {"terminated": ended}}  # fmt: skip
        return {**pod, "status": {"phase": "Succeeded", "containerStatuses": [status]}}

    def _running(self, pod: dict[str, Any]) -> dict[str, Any]:
        for volume in pod["spec"].get("volumes", []):
            return self._tried(pod, volume["persistentVolumeClaim"]["claimName"])
        statuses = []
        for container in pod["spec"]["containers"]:
            states = self.pulls.get(container["image"], [PULLED])
            state = states.pop(0) if len(states) > 1 else states[0]
            statuses.append(
                {"name": container["name"], "image": container["image"], "imageID": "",
                 "ready": False, "restartCount": 0, "state": state}
            )  # fmt: skip
        status = {"containerStatuses": [] if self.conditions else statuses,
                  "conditions": self.conditions}  # fmt: skip
        return {**pod, "status": status}

    def kubeconfig(self, path: Path) -> Path:
        path.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": {"token": self.token} if self.token else {}}],
            "contexts": [{"name": "fake", "context": {"cluster": "c", "user": "u"}}],
        }))  # fmt: skip
        return path


def _claim(phase: str) -> dict[str, Any]:
    return {"spec": {"accessModes": ["ReadWriteMany"]}, "status": {"phase": phase}}


def _node(allocatable: dict[str, str]) -> dict[str, Any]:
    return {"spec": {}, "status": {"allocatable": allocatable}}
