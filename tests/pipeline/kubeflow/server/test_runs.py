"""A run is started once, whatever the network does with the answer."""

import pytest

from pipeline.kubeflow.server import runs
from pipeline.kubeflow.server.connection import Connection, ServerError, Unclear

BODY = {"display_name": "mine 1234", "experiment_id": "e"}


@pytest.fixture
def connection(access):
    with Connection(access) as made:
        yield made


def faults(kubeflow, place, *answers):
    left = list(answers)
    kubeflow.faults[place] = lambda: left.pop(0) if left else 0


@pytest.mark.parametrize("fault", ["cut", -502, -503, -504, -500, -408])
def test_a_run_that_was_started_without_an_answer_is_found(connection, kubeflow, fault):
    faults(kubeflow, "POST /runs", fault)
    started = runs.start(connection, runs.RUN, BODY)
    assert list(kubeflow.runs) == [started]


@pytest.mark.parametrize("fault", [502, 503])
def test_a_gateway_that_reached_nobody_is_asked_again(connection, kubeflow, fault):
    faults(kubeflow, "POST /runs", fault, fault)
    runs.start(connection, runs.RUN, BODY)
    assert len(kubeflow.runs) == 1


@pytest.mark.parametrize("fault", ["drop", "hang", 504, 500])
def test_what_may_come_yet_is_not_started_again_and_the_way_out_is_said(access, kubeflow, fault):
    from dataclasses import replace

    faults(kubeflow, "POST /runs", fault)
    with (
        Connection(replace(access, timeout=0.2)) as connection,
        pytest.raises(Unclear, match="--run-name 'mine 1234'"),
    ):
        runs.start(connection, runs.RUN, BODY)
    assert kubeflow.requests.count("POST /runs") == 1


def test_runs_of_other_names_and_experiments_are_not_taken_for_it(connection, kubeflow):
    kubeflow.page_size = 1
    for name, experiment in (("mine 123", "e"), ("mine 1234", "f"), ("other", "e")):
        connection.post("runs", {"display_name": name, "experiment_id": experiment})
    assert runs.named(connection, runs.RUN, BODY) is None
    faults(kubeflow, "POST /runs", "cut")
    assert kubeflow.runs[runs.start(connection, runs.RUN, BODY)]["experiment_id"] == "e"


def test_ending_a_run_that_has_ended_or_is_gone_is_no_error(connection, kubeflow):
    started = runs.start(connection, runs.RUN, BODY)
    runs.terminate(connection, "none")
    runs.terminate(connection, started)
    kubeflow.runs[started]["state"] = "SUCCEEDED"
    runs.terminate(connection, started)
    kubeflow.runs[started]["state"] = "RUNNING"
    kubeflow.faults[f"POST /runs/{started}:terminate"] = 403
    with pytest.raises(ServerError, match="403"):
        runs.terminate(connection, started)
