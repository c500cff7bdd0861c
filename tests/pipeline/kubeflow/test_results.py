"""What a run on a server left is brought here, as a run of this machine lies on the disk."""

import errno
import json
from pathlib import Path

import pytest
from kfp import compiler, dsl

from pipeline.errors import PipelineError
from pipeline.kubeflow import results, watch
from pipeline.kubeflow.server import runs
from pipeline.kubeflow.server.connection import Connection
from pipeline.run.record import Step
from pipeline.spec.package import load

BODY = {"display_name": "r", "experiment_id": "e", "runtime_config": {"parameters": {"n": 4}}}


def entry(uri, kind="system.HTML"):
    return {"name": "", "uri": uri, "type": {"schemaTitle": kind}, "metadata": {"f1": 0.5}}


@pytest.fixture
def package(tmp_path):
    @dsl.container_component
    def work(n: int):
        return dsl.ContainerSpec("example.org/x@sha256:" + "0" * 64, ["true"])

    @dsl.pipeline(name="fetched")
    def fetched(n: int = 1):
        work(n=n)

    compiler.Compiler().compile(fetched, str(tmp_path / "package.yaml"))
    return load(tmp_path / "package.yaml")


@pytest.fixture
def fetch(access, kubeflow, package, tmp_path):
    """Return a function that fetches a run of `steps` into tmp_path/run."""

    def do(steps, state="SUCCEEDED"):
        kubeflow.steps, kubeflow.states = {step.name: step for step in steps}, [state]
        with Connection(access) as connection:
            started = runs.start(connection, runs.RUN, BODY)
            ended = watch.wait(connection, started, spec=package.spec)
            return results.fetch(connection, ended, package, tmp_path / "run")

    return do


def test_artifacts_logs_values_and_the_page_lie_as_those_of_a_run_here(fetch, kubeflow, tmp_path):
    uri = "minio://mlpipeline/v2/artifacts/fetched/1/work/2/report"
    logs = entry(uri.replace("report", "executor-logs"), "system.Artifact")
    kubeflow.objects["minio/mlpipeline/v2/artifacts/fetched/1/work/2/report"] = b"<b>well</b>"
    kubeflow.logs["pod-work"] = "it said so"
    result = fetch([Step("work", "succeeded", parameters={"n": 4}, outputs={"digest": "abc"},
                         artifacts={"report": [entry(uri)], "executor-logs": [logs]})])  # fmt: skip
    run = tmp_path / "run"
    assert (run / "steps/work/out/report").read_bytes() == b"<b>well</b>"
    assert (run / "steps/work/log.txt").read_text() == "it said so"
    page = result.page.read_text()
    for words in ("&lt;b&gt;well&lt;/b&gt;", "it said so", "abc", "fetched", "0.5"):
        assert words in page
    found = json.loads((run / "run.json").read_text())
    assert found["state"] == "succeeded"
    assert found["parameters"] == {"n": 4}
    assert found["seconds"] == 90
    (made,) = found["steps"]["work"]["artifacts"]["report"]
    assert (made["uri"], made["from"]) == ("/kfp/work/report", uri)
    assert "executor-logs" not in found["steps"]["work"]["artifacts"]
    assert result.notes == ()
    assert run.stat().st_mode & 0o077 == 0


def test_what_cannot_be_had_is_a_note_and_the_rest_is_there(fetch, kubeflow, tmp_path):
    result = fetch(
        [Step("work", "failed", artifacts={"gone": [entry("s3://b/k/gone")],
                                           "far": [entry("https://example.org/x")]})],
        "FAILED",
    )  # fmt: skip
    assert result.state == "failed"
    assert result.error == "work failed"
    assert sorted(note.partition(":")[0] for note in result.notes) == [
        "the artifact gone of work is not here", "the log of work cannot be had",
    ]  # fmt: skip
    assert result.page.is_file()


def test_without_a_metadata_store_there_are_states_and_a_note(fetch, kubeflow):
    kubeflow.store = None
    result = fetch([Step("work", "succeeded")])
    assert result.steps["work"].state == "succeeded"
    assert any("metadata store" in note for note in result.notes)


@pytest.mark.parametrize("name", ["../up", "a/b", "..", "-x", "ü/.."])
def test_a_name_that_leads_out_of_the_folder_is_refused_and_nothing_left(fetch, tmp_path, name):
    with pytest.raises(PipelineError, match="refused"):
        fetch([Step("work", "succeeded", artifacts={name: [entry("s3://b/k")]})])
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "up").exists()


def test_a_folder_that_is_there_is_not_written_to(fetch, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(PipelineError, match="is there already"):
        fetch([Step("work", "succeeded")])
    assert list((tmp_path / "run").iterdir()) == []


def test_a_disk_that_is_full_leaves_nothing(fetch, monkeypatch, tmp_path):
    write = Path.write_text

    def full(path, *words, **named):
        if path.name == "index.html":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, *words, **named)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(PipelineError, match="No space left"):
        fetch([Step("work", "succeeded")])
    assert not (tmp_path / "run").exists()
