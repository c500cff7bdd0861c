"""The metadata store, the tasks and the objects answer on loopback, and end with the run."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from builder.store import default_root
from pipeline.backend import services
from pipeline.errors import PipelineError

# Speaks to the servers as KFP's programs do, in the Python that has gRPC and the messages.
CLIENT = """
import json, sys
import grpc
from ml_metadata import errors, metadata_store, proto
sys.path.insert(0, sys.argv[1])
import servers

port = int(sys.argv[2])
store = metadata_store.MetadataStore(
    proto.MetadataStoreClientConfig(host="127.0.0.1", port=port))
kind = store.put_context_type(proto.ContextType(name="system.PipelineRun"))
(run,) = store.put_contexts([proto.Context(type_id=kind, name="run-1")])
kind = store.put_execution_type(proto.ExecutionType(name="system.ContainerExecution"))
execution = proto.Execution(type_id=kind, name="one", last_known_state="COMPLETE")
execution.custom_properties["inputs"].struct_value.update({"text": "a"})
execution.custom_properties["outputs"].struct_value.update({"made": "x"})
kind = store.put_artifact_type(proto.ArtifactType(name="system.Dataset"))
artifact = proto.Artifact(type_id=kind, uri="minio://b/data")
artifact.custom_properties["display_name"].string_value = "data"
event = proto.Event(type=proto.Event.OUTPUT)
(run,) = store.get_contexts()
store.put_execution(execution, [(artifact, event)], [run])
try:
    store.put_executions([proto.Execution(type_id=execution.type_id, name="one")])
    again = "made"
except errors.AlreadyExistsError:
    again = "AlreadyExists"

messages = servers._messages()
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    def call(name, request, answer):
        return channel.unary_unary(f"/api.TaskService/{name}",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=messages[answer].FromString)(request)
    def find(fingerprint):
        keys = {"fingerprint": fingerprint, "pipelineName": "p", "namespace": "n"}
        predicates = [{"op": "EQUALS", "key": k, "stringValue": v} for k, v in keys.items()]
        request = messages["ListTasksRequest"](filter=json.dumps({"predicates": predicates}))
        return [t.mlmdExecutionID for t in call("ListTasksV1", request, "ListTasksResponse").tasks]
    for number in ("7", "8"):
        task = dict(fingerprint="f", pipelineName="p", namespace="n", mlmdExecutionID=number)
        call("CreateTaskV1", messages["CreateTaskRequest"](task=task), "Task")
    print(json.dumps([again, find("f"), find("other")]))
"""


@pytest.fixture(scope="module")
def python():
    """Return the servers' Python, made in the cache of this machine where it is not there."""
    return services.environment(default_root().parent / "kfp" / "python", print)


@pytest.fixture
def folder(python, tmp_path):
    """Return a folder of a run's servers that has the environment already."""
    (tmp_path / "kfp").mkdir()
    (tmp_path / "kfp" / "python").symlink_to(python.parent.parent)
    return tmp_path / "kfp"


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found.append(int(path.parent.name))
    return found


@pytest.mark.slow
def test_they_answer_as_the_programs_ask_keep_what_they_are_told_and_end(python, folder):
    with services.serve(folder, print) as served:
        own = [served.process.pid, *children(served.process.pid)]
        assert len(own) == 2
        with pytest.raises(PipelineError, match="another run"), services.serve(folder, print):
            pass
        asked = subprocess.run(
            [str(python), "-c", CLIENT, str(services.HERE), str(served.grpc)],
            check=True, capture_output=True, text=True, env={**os.environ, "no_proxy": "*"},
        )  # fmt: skip
        assert asked.stdout.strip() == '["AlreadyExists", ["8"], []]'
        assert served.executions("run-2") == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in own)
    with services.serve(folder, print) as served:
        ((execution),) = served.executions("run-1")
    assert execution["state"] == "COMPLETE"
    assert (execution["inputs"], execution["outputs"]) == ({"text": "a"}, {"made": "x"})
    assert execution["artifacts"] == [
        {"name": "data", "uri": "minio://b/data", "type": {"schemaTitle": "system.Dataset"},
         "metadata": {}}
    ]  # fmt: skip


def test_without_a_fitting_python_it_says_which(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PipelineError, match=r"python3\.11 or python3\.10"):
        services.environment(tmp_path / "python", print)


def test_what_pip_says_is_told_and_nothing_half_made_is_used(tmp_path, monkeypatch):
    fake = tmp_path / "python3.11"
    fake.write_text(
        "#!/bin/sh\nmkdir -p $3/bin\n"
        "printf '#!/bin/sh\\necho Collecting grpcio\\necho no space left\\nexit 1\\n'"
        " > $3/bin/python\nchmod +x $3/bin/python\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    said = []
    for _ in range(2):
        with pytest.raises(PipelineError, match="no space left"):
            services.environment(tmp_path / "made", said.append)
    assert said.count("  grpcio") == 2


# The first time each port is one that another process has.
TAKEN = """
import pathlib, socket, sys
sys.path.insert(0, sys.argv[1])
import servers

free = servers._free
taken = socket.create_server(("127.0.0.1", 0))
asked = []

def ports(count):
    asked.append(count)
    return [taken.getsockname()[1]] * count if len(asked) == 1 else free(count)

servers._free = ports
with servers.objects(pathlib.Path(sys.argv[2]), "b") as port:
    print(len(asked), port != taken.getsockname()[1])
"""


@pytest.mark.slow
def test_the_object_store_starts_on_other_ports_where_somebody_took_one(python, tmp_path):
    words = [str(python), "-c", TAKEN, str(services.HERE), str(tmp_path / "objects")]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout.split()) == (0, ["2", "True"]), ended.stderr
