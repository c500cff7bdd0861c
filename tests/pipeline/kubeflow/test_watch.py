"""A run is followed to its end; what failed is shown; Ctrl-C ends it on the server if asked."""

import os
import signal
import threading

import pytest

from pipeline.errors import PipelineError
from pipeline.kubeflow import watch
from pipeline.kubeflow.server import runs
from pipeline.kubeflow.server.connection import Connection
from pipeline.run.record import Step

BODY = {"display_name": "r", "experiment_id": "e"}


@pytest.fixture
def connection(access):
    with Connection(access) as made:
        yield made


@pytest.fixture
def follow(connection):
    def do(run=None, **options):
        run = run or runs.start(connection, runs.RUN, BODY)
        return watch.wait(connection, run, pause=0.001, **options)

    return do


@pytest.mark.parametrize("end", ["SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"])
def test_following_ends_with_the_run_and_says_each_state_and_step(follow, kubeflow, end):
    kubeflow.states = ["", "PENDING", "RUNNING", "RUNNING", end]
    kubeflow.steps = {"a": Step("a", "succeeded"), "b": Step("b", "failed")}
    said, steps = [], []
    ended = follow(said=said.append, progress=steps.append)
    assert ended.state == end
    assert [line.rpartition(" ")[2] for line in said] == ["PENDING", "RUNNING", end]
    assert [(step.name, step.state) for step in steps] == [("a", "succeeded"), ("b", "failed")]


@pytest.mark.parametrize("state", ["PAUSED", "CANCELING", "RETRYING", "RUNTIME_STATE_UNSPECIFIED"])
def test_a_state_that_is_no_end_is_waited_for_and_an_unknown_one_said(follow, kubeflow, state):
    kubeflow.states = [state, state, "SUCCEEDED"]
    said = []
    assert follow(said=said.append).state == "SUCCEEDED"
    assert ("not known here" in said[0]) == (state == "RETRYING")


def test_following_outlives_bad_answers_and_no_more(follow, connection, kubeflow):
    run = runs.start(connection, runs.RUN, BODY)
    answers = [500, 500, 401, 500, 0]
    kubeflow.faults[f"GET /runs/{run}"] = lambda: answers.pop(0) if answers else 0
    assert follow(run).state == "SUCCEEDED"
    kubeflow.faults[f"GET /runs/{run}"] = 500
    with pytest.raises(PipelineError, match="the run goes on: http://page"):
        follow(run, link="http://page")


def test_a_run_that_somebody_removed_is_said(follow, connection):
    with pytest.raises(PipelineError, match="somebody removed it"):
        follow("none")


def test_of_a_failure_the_error_and_the_end_of_the_log_are_shown(follow, connection, kubeflow):
    kubeflow.states = ["FAILED"]
    kubeflow.steps = {
        "a": Step("a", "succeeded"),
        "b": Step("b", "failed"),
        "c": Step("c", "failed"),
    }
    kubeflow.logs["pod-b"] = "\n".join(f"line {number}" for number in range(100))
    lines = list(watch.failures(connection, follow()))
    assert lines[0] == "b failed"
    assert lines[1] == "  line 70"
    assert lines[30] == "  line 99"
    assert lines[31] == "c failed"
    assert "cannot be read" in lines[32]


def interrupted(kubeflow, run, number):
    """Send a signal to this process once the run has been asked for."""
    asked = threading.Event()
    kubeflow.states = ["RUNNING"]

    def fault():
        asked.set()
        return 0

    kubeflow.faults[f"GET /runs/{run}"] = fault

    def send():
        asked.wait(10)
        os.kill(os.getpid(), number)

    threading.Thread(target=send).start()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_ended_on_the_server_where_asked(
    follow, connection, kubeflow, number
):
    run = runs.start(connection, runs.RUN, BODY)
    interrupted(kubeflow, run, number)
    with pytest.raises(KeyboardInterrupt), watch.ending(connection, run, lambda _: None):
        follow(run)
    assert kubeflow.runs[run]["terminated"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_otherwise_it_goes_on(follow, connection, kubeflow):
    run = runs.start(connection, runs.RUN, BODY)
    interrupted(kubeflow, run, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        follow(run)
    assert "terminated" not in kubeflow.runs[run]
