"""The metadata store of a fake server: the steps of a run as the backend's drivers record them.

Source: backend/src/v2/metadata/client.go and driver/dag.go, driver/container.go of
kubeflow/pipelines 2.17.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from pipeline.kubeflow.server import metadata
from pipeline.run.record import Step

_STATES = {"waiting": 1, "running": 2, "succeeded": 3, "failed": 4, "cached": 5, "skipped": 6}


class FakeStore:
    """Keeps one context a run; `pages` is how many objects a page of a list has."""

    def __init__(self) -> None:
        self.runs: dict[str, Any] = {}
        self.pages = 2

    def record(self, run_id: str, steps: Mapping[str, Step]) -> None:
        """Write a run's steps as executions, one for each DAG and round around them as well."""
        recorded = _Run(len(self.runs) + 1)
        for name, step in steps.items():
            recorded.step(name, step)
        self.runs[run_id] = recorded

    def answer(self, method: str, body: bytes) -> bytes:
        """Answer a request in a gRPC-Web frame by such frames."""
        _flag, size = struct.unpack_from(">BI", body)
        assert len(body) == size + 5
        kinds = metadata.messages()
        request = kinds[f"{method}Request"].FromString(body[5:])
        response = kinds[f"{method}Response"]()
        status = 0
        by_id = {recorded.number: recorded for recorded in self.runs.values()}
        if method == "GetContextByTypeAndName":
            assert request.type_name == "system.PipelineRun"
            if request.context_name in self.runs:
                response.context.id = self.runs[request.context_name].number
                response.context.name = request.context_name
        elif method == "GetEventsByExecutionIDs":
            wanted = set(request.execution_ids)
            response.events.extend(
                event
                for recorded in by_id.values()
                for event in recorded.events
                if event.execution_id in wanted
            )
        else:
            name = "executions" if method == "GetExecutionsByContext" else "artifacts"
            all_of_them = getattr(by_id[request.context_id], name)
            begin = int(request.options.next_page_token or 0)
            end = begin + min(self.pages, request.options.max_result_size)
            getattr(response, name).extend(all_of_them[begin:end])
            if end < len(all_of_them):
                response.next_page_token = str(end)
        data = response.SerializeToString()
        trailer = f"grpc-status: {status}\r\n".encode()
        return (
            struct.pack(">BI", 0, len(data)) + data
            + struct.pack(">BI", 0x80, len(trailer)) + trailer
        )  # fmt: skip


class _Run:
    def __init__(self, number: int) -> None:
        self.number = number
        self.executions: list[Any] = []
        self.artifacts: list[Any] = []
        self.events: list[Any] = []
        self._dags: dict[tuple[str, ...], Any] = {}
        self._dag(())

    def _new(self, kind: str, state: int, **properties: Any) -> Any:
        made = metadata.messages()["Execution"](
            id=self.number * 1000 + len(self.executions) + 1, type=kind, last_known_state=state,
            create_time_since_epoch=1_700_000_000_000,
            last_update_time_since_epoch=1_700_000_002_500,
        )  # fmt: skip
        for name, value in properties.items():
            _put(made.custom_properties[name], value)
        self.executions.append(made)
        return made

    def _dag(self, path: tuple[str, ...]) -> Any:
        """Return the execution of the DAG at `path`; a number in it is a round of its loop."""
        if path not in self._dags:
            properties: dict[str, Any] = {"task_name": path[-1] if path else "", "display_name": ""}
            if path:
                above = self._dag(path[:-1])
                properties["parent_dag_id"] = above.id
                if path[-1].isdigit():
                    properties |= {"task_name": path[-2], "iteration_index": int(path[-1])}
                    _put(above.custom_properties["iteration_count"], 1)
            self._dags[path] = self._new("system.DAGExecution", 2, **properties)
        return self._dags[path]

    def step(self, name: str, step: Step) -> None:
        *around, own = name.split(".")
        made = self._new(
            "system.ContainerExecution", _STATES[step.state],
            parent_dag_id=self._dag(tuple(around)).id, task_name=own, display_name=own,
            inputs=dict(step.parameters), outputs=dict(step.outputs), image=step.image,
            pod_name=f"pod-{name.replace('.', '-')}",
        )  # fmt: skip
        for key, entries in step.artifacts.items():
            for entry in entries:
                self._artifact(made.id, key, entry)

    def _artifact(self, execution: int, key: str, entry: Mapping[str, Any]) -> None:
        kinds = metadata.messages()
        artifact = kinds["Artifact"](
            id=self.number * 1000 + len(self.artifacts) + 1, uri=entry["uri"],
            type=entry.get("type", {}).get("schemaTitle", "system.Artifact"),
            name=entry.get("name", ""),
        )  # fmt: skip
        own = {"display_name": key, "store_session_info": '{"Provider":"minio"}'}
        for name, value in {**own, **(entry.get("metadata") or {})}.items():
            _put_metadata(artifact.custom_properties[name], value)
        self.artifacts.append(artifact)
        event = kinds["Event"](artifact_id=artifact.id, execution_id=execution, type=4)
        event.path.steps.add(key=key)
        self.events.append(event)


def _put(value: Any, found: Any) -> None:
    """Write a property of an execution."""
    if isinstance(found, int):
        value.int_value = found
    elif isinstance(found, dict):
        value.struct_value.SetInParent()
        value.struct_value.update(found)
    else:
        value.string_value = found


def _put_metadata(value: Any, found: Any) -> None:
    """Write a metadata value of an artifact: StructValueToMLMDValue in metadata/converter.go."""
    if isinstance(found, bool):
        value.int_value = int(found)
    elif isinstance(found, int | float):
        value.double_value = found
    elif isinstance(found, list | dict):
        value.struct_value.update({"list" if isinstance(found, list) else "struct": found})
    else:
        value.string_value = found
