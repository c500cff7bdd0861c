"""A small image out of the host's busybox, and packages compiled around it."""

import shutil
from pathlib import Path

import pytest
import yaml
from kfp import compiler, dsl

from builder import oci
from builder.oci import layer
from builder.oci.entry import Entry
from builder.store import Store
from pipeline.run import runner


def busybox(store: Store) -> oci.Image:
    found = shutil.which("busybox")
    if found is None:
        pytest.skip("busybox is missing; apt-get install busybox-static")
    entries = [
        Entry("bin/busybox", "file", 0o755, content=Path(found)),
        *(
            Entry(f"bin/{name}", "symlink", 0o777, target="busybox")
            for name in (
                "sh",
                "cat",
                "echo",
                "sleep",
                "kill",
                "mkdir",
                "id",
                "dd",
                "test",
                "ls",
                "ln",
                "chmod",
                "mkfifo",
                "mv",
                "rm",
                "rmdir",
                "printf",
                "sha256sum",
                "nc",
            )
        ),
        *(Entry(name, "dir", 0o755) for name in ("proc", "dev", "tmp")),
    ]
    with store.writing() as (stream, keep):
        made = layer.write_layer(entries, stream)
        keep(made.blob.digest)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"User": "65532:65532", "Env": ["PATH=/bin"], "WorkingDir": "/"},
    }
    image, documents = oci.assemble(config, (made,))
    store.add_image(documents)
    return image


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(tmp_path_factory.mktemp("cache") / "store")


@pytest.fixture(scope="session")
def image(store: Store) -> str:
    return f"localhost/test/busybox@{busybox(store).digest}"


@pytest.fixture
def script(image):
    @dsl.container_component
    def script(code: str):
        return dsl.ContainerSpec(image, ["sh", "-c"], [code])

    return script


@pytest.fixture
def execute(store, tmp_path):
    """Compile a pipeline function and run it."""

    def do(function, *, volumes=None, secrets=None, engine="bubblewrap", cache=False, gpus=False,
           **parameters):  # fmt: skip
        path = tmp_path / "package.yaml"
        compiler.Compiler().compile(function, str(path))
        return runner.run(
            runner.load(path), store, parameters=parameters, volumes=volumes or {},
            secrets=secrets or {}, runs=tmp_path / "runs", engine=engine, use_cache=cache,
            gpus=gpus,
        )  # fmt: skip

    return do


@pytest.fixture
def run_written(store, image, tmp_path):
    """Run a package written by hand, as no compiler would: components, tasks, Kubernetes part.

    A component is (script, inputs, outputs, …): see `written`.
    """

    def do(steps, *, kubernetes=None, engine="bubblewrap", cache=False, **options):
        path = tmp_path / "written.yaml"
        path.write_text(yaml.safe_dump_all(written(image, steps, kubernetes)))
        chosen = {"parameters": {}, "volumes": {}, "secrets": {}, **options}
        return runner.run(
            runner.load(path), store, runs=tmp_path / "runs", engine=engine, use_cache=cache,
            **chosen,
        )  # fmt: skip

    return do


def written(image, steps, kubernetes):
    """Return the documents of a package.

    `steps` maps a task's name to {"script" or "importer", "words", "parameters": its outputs,
    "artifacts": its outputs, "takes": {input: (task, output)}, "given": {input: constant},
    "asked": {input: default of a parameter of the pipeline}, "retries"}. `kubernetes` maps a task's
    name to its settings.
    """
    artifact = {"artifactType": {"schemaTitle": "system.Dataset", "schemaVersion": "0.0.1"}}
    text = {"parameterType": "STRING"}
    executors, components, tasks, asked = {}, {}, {}, {}
    for name, step in steps.items():
        takes, given = step.get("takes", {}), step.get("given", {})
        made = {task: set(other.get("artifacts", ())) for task, other in steps.items()}
        inputs = {"parameters": {}, "artifacts": {}}
        sources = {"parameters": {}, "artifacts": {}}
        for key, (task, output) in takes.items():
            kind = "artifact" if output in made[task] else "parameter"
            inputs[f"{kind}s"][key] = artifact if kind == "artifact" else text
            sources[f"{kind}s"][key] = {
                f"taskOutput{kind.capitalize()}": {
                    "producerTask": task, f"output{kind.capitalize()}Key": output,
                }
            }  # fmt: skip
        for key, value in given.items():
            inputs["parameters"][key] = text
            sources["parameters"][key] = {"runtimeValue": {"constant": value}}
        for key, value in step.get("asked", {}).items():
            inputs["parameters"][key] = text
            sources["parameters"][key] = {"componentInputParameter": key}
            asked[key] = {**text, "defaultValue": value, "isOptional": True}
        components[f"c-{name}"] = {
            "executorLabel": f"e-{name}",
            "inputDefinitions": inputs,
            "outputDefinitions": {
                "parameters": dict.fromkeys(step.get("parameters", ()), text),
                "artifacts": dict.fromkeys(step.get("artifacts", ()), artifact),
            },
        }
        if "importer" in step:
            kind = artifact["artifactType"]
            uri = {"constant": step["importer"]} if step["importer"] else {
                "runtimeParameter": "uri"}  # fmt: skip
            executors[f"e-{name}"] = {"importer": {"artifactUri": uri, "typeSchema": kind}}
        else:
            command = ["sh", "-c", step["script"], *step.get("words", ())]
            executors[f"e-{name}"] = {"container": {"image": image, "command": command}}
        tasks[name] = {
            "taskInfo": {"name": name}, "componentRef": {"name": f"c-{name}"}, "inputs": sources,
            "dependentTasks": sorted({task for task, _ in takes.values()}),
            "cachingOptions": {"enableCache": True},
            "retryPolicy": {"maxRetryCount": step.get("retries", 0), "backoffDuration": "0s"},
        }  # fmt: skip
    spec = {
        "pipelineInfo": {"name": "written"}, "schemaVersion": "2.1.0", "sdkVersion": "kfp-2.17.0",
        "components": components, "deploymentSpec": {"executors": executors},
        "root": {"dag": {"tasks": tasks}, "inputDefinitions": {"parameters": asked}},
    }  # fmt: skip
    settings = {f"e-{name}": found for name, found in (kubernetes or {}).items()}
    return [spec, {"platforms": {"kubernetes": {"deploymentSpec": {"executors": settings}}}}]
