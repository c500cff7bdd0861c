"""A run's steps are read from the metadata store as the local run has them."""

import pytest

from pipeline.kubeflow.server import metadata, runs
from pipeline.kubeflow.server.connection import Connection, ServerError
from pipeline.kubeflow.server.steps import of_run, waited
from pipeline.run.record import Step

BODY = {"display_name": "r", "experiment_id": "e"}
MADE = {"name": "", "uri": "minio://b/k/made", "type": {"schemaTitle": "system.Dataset"},
        "metadata": {"f1": 0.5, "n": 3, "lab": "x"}}  # fmt: skip
STEPS = {
    "prepare": Step("prepare", "succeeded", image="i@sha256:0", parameters={"n": 7, "f": 0.5},
                    outputs={"folds": ["a", 1], "ok": True}, artifacts={"made": [MADE, MADE]}),
    "for-loop-1.0.train": Step("for-loop-1.0.train", "cached"),
    "for-loop-1.1.train": Step("for-loop-1.1.train", "failed"),
    "for-loop-1.1.for-loop-2.0.deep": Step("for-loop-1.1.for-loop-2.0.deep", "succeeded"),
    "inner.say": Step("inner.say", "running"),
    "condition-1.big": Step("condition-1.big", "skipped"),
}  # fmt: skip
SPEC = {
    "root": {"dag": {"tasks": {
        "prepare": {"componentRef": {"name": "c"}},
        "for-loop-1": {"componentRef": {"name": "loop"}, "dependentTasks": ["prepare"],
                       "parameterIterator": {}},
        "after": {"componentRef": {"name": "c"}, "dependentTasks": ["for-loop-1"]},
        "for-loop-9": {"componentRef": {"name": "loop"}, "parameterIterator": {}},
    }}},
    "components": {"c": {"executorLabel": "c"}, "loop": {"dag": {"tasks": {
        "train": {"componentRef": {"name": "c"}},
        "then": {"componentRef": {"name": "c"}, "dependentTasks": ["train"]},
    }}}},
}  # fmt: skip


@pytest.fixture
def started(access, kubeflow):
    """Return a function that starts a run which has `steps` and a state, and asks for its steps."""
    with Connection(access) as connection:

        def do(steps, state, spec=None):
            kubeflow.steps, kubeflow.states = steps, [state]
            run = runs.get(connection, runs.start(connection, runs.RUN, BODY))
            return of_run(connection, run, spec)

        yield do


def test_names_states_values_and_artifacts_come_back_as_they_were_recorded(started):
    found = started(STEPS, "RUNNING")
    assert found.complete
    assert {n: s.state for n, s in found.steps.items()} == {n: s.state for n, s in STEPS.items()}
    prepare = found.steps["prepare"]
    assert (prepare.parameters, prepare.outputs) == ({"f": 0.5, "n": 7},
                                                     {"folds": ["a", 1], "ok": True})  # fmt: skip
    assert type(prepare.parameters["n"]) is int
    assert prepare.artifacts == {"made": [MADE, MADE]}
    assert (prepare.image, prepare.seconds) == ("i@sha256:0", 2.5)
    assert found.pods["for-loop-1.1.train"] == "pod-for-loop-1-1-train"


@pytest.mark.parametrize("pages", [1, 3, 1000])
def test_the_store_is_read_page_by_page(started, kubeflow, pages):
    kubeflow.store.pages = pages
    assert set(started(STEPS, "RUNNING").steps) == set(STEPS)


@pytest.mark.parametrize(
    ("state", "ended"), [("RUNNING", "running"), ("FAILED", "failed"), ("CANCELED", "stopped")]
)
def test_a_step_that_never_reported_ends_with_its_run(started, state, ended):
    assert started(STEPS, state).steps["inner.say"].state == ended


def test_what_was_never_begun_is_skipped_once_the_run_has_ended(started):
    steps = {name: step for name, step in STEPS.items() if name.startswith(("prep", "for-loop-1"))}
    assert "after" not in started(steps, "RUNNING", SPEC).steps
    ended = started(steps, "FAILED", SPEC).steps
    skipped = {name for name, step in ended.items() if step.state == "skipped"}
    assert skipped == {"after", "for-loop-1.0.then", "for-loop-1.1.then"}


def test_what_waits_for_what_is_in_the_package(started):
    found = started(STEPS, "RUNNING", SPEC).steps
    assert found["for-loop-1.0.train"].after == ("prepare",)
    assert waited(SPEC, "for-loop-1.0.then") == ("for-loop-1.0.train",)
    assert waited(SPEC, "after") == ("for-loop-1",)
    assert waited(SPEC, "unknown.step") == ()


@pytest.mark.parametrize("fault", [404, 500, "page"])
def test_without_the_store_names_and_states_are_those_of_the_workflow(started, kubeflow, fault):
    kubeflow.faults["POST /ml_metadata.MetadataStoreService/GetContextByTypeAndName"] = fault
    found = started({**STEPS, "x-driver": Step("x-driver", "succeeded")}, "RUNNING")
    assert not found.complete
    assert found.steps["prepare"].state == "succeeded"
    assert "x-driver" not in found.steps


def test_a_login_that_is_refused_is_not_taken_for_a_missing_store(started, kubeflow):
    kubeflow.faults["POST /ml_metadata.MetadataStoreService/GetExecutionsByContext"] = 403
    with pytest.raises(ServerError, match="403"):
        started(STEPS, "RUNNING")


@pytest.mark.parametrize(
    "data",
    [b"", b"\0\0\0\0\5abc", b"\0\0", b"<html>", b"\0\0\0\0\2\xff\xff",
     b"\x80\0\0\0\x22grpc-status: 14\r\ngrpc-message: no\r\n"],
)  # fmt: skip
def test_an_answer_that_is_cut_or_no_message_is_an_error(access, monkeypatch, data):
    monkeypatch.setattr(Connection, "call", lambda *_: data)
    with Connection(access) as connection, pytest.raises(ServerError, match=r"page|answered 14"):
        metadata.stored(connection, "r")
