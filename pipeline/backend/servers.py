"""What the driver and the launcher talk to: metadata, tasks (the cache) and objects.

A program of its own, since ml-metadata needs another Python and protobuf than the tasks have:
`python servers.py FOLDER`. It prints its ports as a line of JSON, answers a line that names a run
with that run's executions, and ends, with the object store it started, when its input ends.

Sources: ml_metadata/proto/metadata_store_service.proto of google/ml-metadata 1.17 and
backend/api/v1beta1/task.proto of kubeflow/pipelines 2.17.
"""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd
from ml_metadata.proto import metadata_store_service_pb2 as service

KEY = "plateline"  # of the object store: it listens on loopback, for one run at a time
_PATIENCE = 60.0  # seconds until the object store must answer
_STARTS = 3  # of the object store, on ports of its own each time
_TEXT, _NUMBER, _MESSAGE = 9, 5, 11  # FieldDescriptorProto.Type
_FIELDS: dict[str, dict[str, tuple[int, int, str]]] = {
    "Task": {"id": (1, _TEXT, ""), "namespace": (2, _TEXT, ""), "pipelineName": (3, _TEXT, ""),
             "runId": (4, _TEXT, ""), "mlmdExecutionID": (5, _TEXT, ""),
             "fingerprint": (8, _TEXT, "")},
    "CreateTaskRequest": {"task": (1, _MESSAGE, "Task")},
    "ListTasksRequest": {"filter": (5, _TEXT, "")},
    "ListTasksResponse": {"tasks": (1, _MESSAGE, "Task"), "total_size": (3, _NUMBER, "")},
}  # fmt: skip


def metadata(store: metadata_store.MetadataStore) -> grpc.GenericRpcHandler:
    """Return the service MetadataStoreService in front of the library's store."""
    lock = threading.Lock()  # the store is one connection to SQLite

    def handler(method: Any) -> grpc.RpcMethodHandler:
        wanted = message_factory.GetMessageClass(method.input_type)
        given = message_factory.GetMessageClass(method.output_type)

        def call(request: Any, context: grpc.ServicerContext) -> Any:
            response = given()
            try:
                with lock:
                    store._call(method.name, request, response)
            except Exception as error:  # noqa: BLE001 - the caller gets each as its status
                code = getattr(error, "error_code", grpc.StatusCode.INTERNAL.value[0])
                known = {status.value[0]: status for status in grpc.StatusCode}
                context.abort(known.get(code, grpc.StatusCode.INTERNAL), str(error))
            return response

        return grpc.unary_unary_rpc_method_handler(
            call, wanted.FromString, lambda message: message.SerializeToString()
        )

    found = service.DESCRIPTOR.services_by_name["MetadataStoreService"]
    return grpc.method_handlers_generic_handler(
        found.full_name, {method.name: handler(method) for method in found.methods}
    )


def tasks(database: Path) -> grpc.GenericRpcHandler:
    """Return the service TaskService: which execution has a fingerprint, the newest first."""
    messages = _messages()
    lock = threading.Lock()
    connection = sqlite3.connect(database, check_same_thread=False)
    connection.execute(
        "create table if not exists tasks (id integer primary key, fingerprint text, "
        "pipelineName text, namespace text, execution text)"
    )

    def create(request: Any, _context: grpc.ServicerContext) -> Any:
        task = request.task
        row = (task.fingerprint, task.pipelineName, task.namespace, task.mlmdExecutionID)
        with lock, connection:
            made = connection.execute(
                "insert into tasks (fingerprint, pipelineName, namespace, execution) "
                "values (?, ?, ?, ?)",
                row,
            )
        task.id = str(made.lastrowid)
        return task

    def find(request: Any, _context: grpc.ServicerContext) -> Any:
        wanted = {p["key"]: p["stringValue"] for p in json.loads(request.filter)["predicates"]}
        row = (wanted["fingerprint"], wanted["pipelineName"], wanted["namespace"])
        with lock:
            found = connection.execute(
                "select execution from tasks where fingerprint = ? and pipelineName = ? "
                "and namespace = ? order by id desc limit 1",
                row,
            ).fetchall()
        answer = messages["ListTasksResponse"](total_size=len(found))
        for (execution,) in found:
            answer.tasks.add(mlmdExecutionID=execution, fingerprint=row[0])
        return answer

    def handler(call: Callable[[Any, grpc.ServicerContext], Any], request: str) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            call, messages[request].FromString, lambda message: message.SerializeToString()
        )

    return grpc.method_handlers_generic_handler(
        "api.TaskService",
        {
            "CreateTaskV1": handler(create, "CreateTaskRequest"),
            "ListTasksV1": handler(find, "ListTasksRequest"),
        },
    )


def _messages() -> dict[str, Any]:
    """Return the classes of task.proto's messages, without its code generated."""
    file = descriptor_pb2.FileDescriptorProto(name="task.proto", package="api", syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, of) in fields.items():
            message.field.add(
                name=field, number=number, type=kind, type_name=f".api.{of}" if of else None,
                label=3 if field == "tasks" else 1,
            )  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"api.{name}"))
        for name in _FIELDS
    }


def executions(store: metadata_store.MetadataStore, run: str) -> list[dict[str, Any]]:
    """Return what the store knows of a run's executions: names, states, values, artifacts."""
    context = store.get_context_by_type_and_name("system.PipelineRun", run)
    found = store.get_executions_by_context(context.id) if context else []
    outputs: dict[int, list[int]] = {}
    for event in store.get_events_by_execution_ids([e.id for e in found]) if found else []:
        if event.type == mlmd.Event.OUTPUT:
            outputs.setdefault(event.execution_id, []).append(event.artifact_id)
    ids = [number for numbers in outputs.values() for number in numbers]
    artifacts = {a.id: a for a in store.get_artifacts_by_id(ids)} if ids else {}
    return [
        {
            "id": e.id,
            "state": mlmd.Execution.State.Name(e.last_known_state),
            **{
                side: json_format.MessageToDict(e.custom_properties[side].struct_value)
                for side in ("inputs", "outputs")
            },
            "artifacts": [_artifact(artifacts[number]) for number in outputs.get(e.id, [])],
        }
        for e in found
    ]


def _artifact(artifact: Any) -> dict[str, Any]:
    properties = {
        name: json_format.MessageToDict(value) for name, value in artifact.custom_properties.items()
    }
    metadata = {name: next(iter(value.values()), None) for name, value in properties.items()}
    name = metadata.pop("display_name", "")
    metadata.pop("store_session_info", None)
    kind = {"schemaTitle": artifact.type}
    return {"name": name, "uri": artifact.uri, "type": kind, "metadata": metadata}


@contextmanager
def objects(folder: Path, bucket: str) -> Iterator[int]:
    """Start SeaweedFS on loopback with an empty or earlier `folder`; yield the port of its S3."""
    folder.mkdir(exist_ok=True)
    for earlier in folder.glob("m[0-9]*"):  # a master's own folder has its port in its name
        shutil.rmtree(earlier)
    identity = {"name": KEY, "credentials": [{"accessKey": KEY, "secretKey": KEY}],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"]}  # fmt: skip
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    with ExitStack() as stack:
        for left in reversed(range(_STARTS)):
            try:
                port = stack.enter_context(_objects(folder, bucket))
                break
            except _EndedEarlyError as error:
                if not left:
                    raise SystemExit(str(error)) from None
        yield port


class _EndedEarlyError(Exception):
    """A server ended before it answered, for example as somebody took one of its ports."""


@contextmanager
def _objects(folder: Path, bucket: str) -> Iterator[int]:
    names = ("s3", "master", "volume", "filer")
    options = [option for name in names for option in (f"{name}.port", f"{name}.port.grpc")]
    ports = dict(zip(options, _free(len(options)), strict=True))
    log = folder.with_suffix(".log")
    with log.open("wb") as sink:
        started = subprocess.Popen(
            [str(Path(sys.executable).with_name("weed")), "server", f"-dir={folder}", "-s3",
             "-filer", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={folder / 's3.json'}",
             "-iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
             "-master.volumeSizeLimitMB=1024", "-volume.max=100",
             *(f"-{option}={port}" for option, port in ports.items())],
            stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True,
        )  # fmt: skip
    try:
        _make_bucket(f"http://127.0.0.1:{ports['filer.port']}/buckets/{bucket}/", started, log)
        _wait(f"http://127.0.0.1:{ports['s3.port']}/", started, log)
        yield ports["s3.port"]
    finally:
        started.terminate()  # its filer waits for its own S3 part without an end
        try:
            started.wait(3)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
        for option, port in ports.items():  # SeaweedFS leaves them, by its ports
            name = option.removesuffix(".port").replace(".port.", "-")
            Path(f"/tmp/seaweedfs-{name}-{port}.sock").unlink(missing_ok=True)  # noqa: S108


def _free(count: int) -> list[int]:
    """Return so many ports that nobody listens on; another process may still take one first."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [int(server.getsockname()[1]) for server in servers]


def _make_bucket(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Make a folder of the filer, which is a bucket of its S3."""
    _wait(urllib.request.Request(url, method="POST"), process, log)


def _wait(request: Any, process: subprocess.Popen[bytes], log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            opener.open(request, timeout=5).close()
        except urllib.error.HTTPError as error:
            if error.code < 500:  # it answers, if only that it wants a signature
                return
        except OSError:
            pass
        else:
            return
        if process.poll() is not None:
            raise _EndedEarlyError(f"the object store did not start; see {log}")
        if time.monotonic() > end:
            raise SystemExit(f"the object store did not answer within {_PATIENCE:g} s; see {log}")
        time.sleep(0.1)


def main(folder: Path, bucket: str) -> None:
    """Serve until the input ends."""
    config = mlmd.ConnectionConfig()
    config.sqlite.filename_uri = str(folder / "metadata.sqlite")
    config.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    store = metadata_store.MetadataStore(config)
    with ExitStack() as stack:
        port = stack.enter_context(objects(folder / "objects", bucket))
        server = grpc.server(ThreadPoolExecutor(8))
        server.add_generic_rpc_handlers((metadata(store), tasks(folder / "tasks.sqlite")))
        ports = {"grpc": server.add_insecure_port("127.0.0.1:0"), "objects": port}
        server.start()
        stack.callback(lambda: server.stop(None).wait())
        print(json.dumps(ports), flush=True)
        for line in sys.stdin:
            print(json.dumps(executions(store, line.strip())), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
