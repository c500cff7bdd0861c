"""The metadata store of a server: what each step was given and made, as its web page asks for it.

The page of Kubeflow Pipelines hands `/ml_metadata.MetadataStoreService/*` on to the store, as
gRPC-Web (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md). The messages are those of
third_party/ml-metadata/ml_metadata/proto of kubeflow/pipelines, with the fields that are read here.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import PipelineError
from pipeline.kubeflow.server.connection import Connection, ServerError

_SERVICE = "/ml_metadata.MetadataStoreService/"
_HEADERS = {
    "Content-Type": "application/grpc-web+proto",
    "Accept": "application/grpc-web+proto",
    "X-Grpc-Web": "1",
}
_PAGE = 100
_TRAILER = 0x80  # the flag of a frame that holds the status
_NOT_FOUND = 5  # https://grpc.github.io/grpc/core/md_doc_statuscodes.html
RUN_CONTEXT = "system.PipelineRun"
OUTPUT = 4  # Event.Type

# Message -> field -> (number, type); "[]" a list, "{}" a map of strings.
_FIELDS: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "Value": {
        "int_value": (1, "int64"), "double_value": (2, "double"), "string_value": (3, "string"),
        "struct_value": (4, ".google.protobuf.Struct"), "bool_value": (6, "bool"),
    },
    "Context": {"id": (1, "int64"), "name": (3, "string"), "custom_properties": (5, "{}Value")},
    "Execution": {
        "id": (1, "int64"), "last_known_state": (3, "int32"),
        "custom_properties": (5, "{}Value"), "type": (7, "string"),
        "create_time_since_epoch": (8, "int64"), "last_update_time_since_epoch": (9, "int64"),
    },
    "Artifact": {
        "id": (1, "int64"), "uri": (3, "string"), "custom_properties": (5, "{}Value"),
        "name": (7, "string"), "type": (8, "string"),
    },
    "Step": {"index": (1, "int64"), "key": (2, "string")},
    "Path": {"steps": (1, "[]Step")},
    "Event": {
        "artifact_id": (1, "int64"), "execution_id": (2, "int64"), "path": (3, "Path"),
        "type": (4, "int32"),
    },
    "Options": {"max_result_size": (1, "int32"), "next_page_token": (3, "string")},
    "GetContextByTypeAndNameRequest": {"type_name": (1, "string"), "context_name": (2, "string")},
    "GetContextByTypeAndNameResponse": {"context": (1, "Context")},
    "GetExecutionsByContextRequest": {"context_id": (1, "int64"), "options": (2, "Options")},
    "GetExecutionsByContextResponse": {
        "executions": (1, "[]Execution"), "next_page_token": (2, "string"),
    },
    "GetArtifactsByContextRequest": {"context_id": (1, "int64"), "options": (2, "Options")},
    "GetArtifactsByContextResponse": {
        "artifacts": (1, "[]Artifact"), "next_page_token": (2, "string"),
    },
    "GetEventsByExecutionIDsRequest": {"execution_ids": (1, "[]int64")},
    "GetEventsByExecutionIDsResponse": {"events": (1, "[]Event")},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store has of a run: executions, artifacts by id, and events that join them."""

    executions: tuple[Any, ...] = ()
    artifacts: Mapping[int, Any] = field(default_factory=dict)
    events: tuple[Any, ...] = ()


@functools.cache
def messages() -> Mapping[str, Any]:
    """Return name -> class of every message of the store."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="plateline/ml_metadata.proto", package="ml_metadata", syntax="proto2",
        dependency=[struct_pb2.DESCRIPTOR.name],
    )  # fmt: skip
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field_name, (number, written) in fields.items():
            kind = written.removeprefix("[]").removeprefix("{}")
            many = written != kind
            if written.startswith("{}"):
                entry = "".join(part.title() for part in field_name.split("_")) + "Entry"
                nested = message.nested_type.add(name=entry)
                nested.options.map_entry = True
                nested.field.add(
                    name="key", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL
                )
                _reference(nested.field.add(name="value", number=2, label=kinds.LABEL_OPTIONAL),
                           kind)  # fmt: skip
                kind = f"{name}.{entry}"
            label = kinds.LABEL_REPEATED if many else kinds.LABEL_OPTIONAL
            _reference(message.field.add(name=field_name, number=number, label=label), kind)
        if name == "Value":
            message.oneof_decl.add(name="value")
            for each in message.field:
                each.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"ml_metadata.{name}"))
        for name in _FIELDS
    }


def _reference(made: Any, kind: str) -> None:
    """Set the type of a field: a message's name, or a scalar's."""
    if kind[0].isupper() or kind[0] == ".":
        made.type = made.TYPE_MESSAGE
        made.type_name = kind if kind[0] == "." else f".ml_metadata.{kind}"
    else:
        made.type = getattr(made, f"TYPE_{kind.upper()}")


def stored(connection: Connection, run_id: str) -> Stored | None:
    """Return what the store has of a run, None where it has nothing yet.

    Raises ServerError where the host has no store: it is not the web page, or it is no more.
    """
    wanted = {"type_name": RUN_CONTEXT, "context_name": run_id}
    try:
        found = _ask(connection, "GetContextByTypeAndName", wanted)
    except _Missing:
        return None
    if not found.HasField("context"):
        return None
    context = found.context.id
    executions = tuple(_pages(connection, "GetExecutionsByContext", "executions", context))
    artifacts = _pages(connection, "GetArtifactsByContext", "artifacts", context)
    by_id = {one.id: one for one in artifacts}
    ids = [execution.id for execution in executions]
    events: list[Any] = []
    for begin in range(0, len(ids), _PAGE):
        some = {"execution_ids": ids[begin : begin + _PAGE]}
        events += _ask(connection, "GetEventsByExecutionIDs", some).events
    return Stored(executions, by_id, tuple(events))


def _pages(connection: Connection, method: str, name: str, context: int) -> Iterator[Any]:
    token = ""
    seen = set()
    while token not in seen:
        seen.add(token)
        options: dict[str, Any] = {"max_result_size": _PAGE}
        if token:
            options["next_page_token"] = token
        page = _ask(connection, method, {"context_id": context, "options": options})
        yield from getattr(page, name)
        if not page.next_page_token:
            return
        token = page.next_page_token
    raise ServerError(f"{connection.access.host} lists {name} without an end; try again")


class _Missing(Exception):  # noqa: N818 - an answer, not an error
    """The store has no such object."""


def _ask(connection: Connection, method: str, request: Mapping[str, Any]) -> Any:
    kinds = messages()
    sent = kinds[f"{method}Request"](**request).SerializeToString()
    frame = struct.pack(">BI", 0, len(sent)) + sent
    answer = connection.call(_SERVICE + method, frame, _HEADERS)
    return _parsed(answer, kinds[f"{method}Response"], f"{connection.access.host} {method}")


def _parsed(data: bytes, kind: Any, what: str) -> Any:
    """Return the message in an answer: frames of a flag, a length in four bytes, and a payload."""
    from google.protobuf.message import DecodeError

    message, status, told, place = b"", "", "", 0
    while place < len(data):
        if place + 5 > len(data):
            raise _no_store(what)
        flag, size = struct.unpack_from(">BI", data, place)
        payload = data[place + 5 : place + 5 + size]
        if len(payload) < size:
            raise _no_store(what)
        place += 5 + size
        if flag & _TRAILER:
            lines = payload.decode(errors="replace").splitlines()
            facts = {k.strip().lower(): v.strip() for k, _, v in (n.partition(":") for n in lines)}
            status, told = facts.get("grpc-status", ""), facts.get("grpc-message", "")
        else:
            message += payload
    if status == str(_NOT_FOUND):
        raise _Missing
    if status not in ("", "0"):
        raise ServerError(f"{what}: the metadata store answered {status} ({told[:200]}); try again")
    if not data:
        raise _no_store(what)
    try:
        return kind.FromString(message)
    except DecodeError:
        raise _no_store(what) from None


def _no_store(what: str) -> ServerError:
    return ServerError(
        f"{what}: the answer is not the metadata store's; give the address of the web page "
        "(service ml-pipeline-ui), not that of the API alone"
    )


def value(stored_value: Any) -> Any:
    """Return a value of the store as JSON has it; raises PipelineError for an unknown kind."""
    from google.protobuf import json_format

    kind = stored_value.WhichOneof("value")
    if kind == "struct_value":
        return json_format.MessageToDict(stored_value.struct_value)
    if kind is None:
        raise PipelineError("the metadata store has a value of an unknown kind")
    return getattr(stored_value, kind)
