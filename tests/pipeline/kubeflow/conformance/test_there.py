"""A cluster that does as this machine does shows no difference; one that does not shows each."""

import functools
import json
import re
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.kubeflow.conformance.here import run_here
from pipeline.kubeflow.conformance.observation import Observation, differences, unexpected
from pipeline.kubeflow.conformance.there import Limits, run_there
from pipeline.kubeflow.server.connection import Connection, ServerError
from pipeline.run.record import Step
from pipeline.run.runner import run
from tests.pipeline.kubeflow.conformance.conftest import CLAIM, SECRET
from tests.task import TASK, environment

ROOT = Path(__file__).parents[4]
QUICK = Limits(at_once=3, seconds=60, pause=0.02)
# One of each kind of thing that is compared.
NAMES = ("outputs of every type", "artifacts in a loop", "metadata", "condition that is false",
         "exit handler after a failure", "failure", "nested pipeline", "cache", "claim",
         "retry that succeeds", "secret as a file", "metadata of an importer")  # fmt: skip


@pytest.fixture
def here(conformance_store, tmp_path):
    def do(packaged):
        return run_here(
            packaged, conformance_store, tmp_path / f"here {packaged.name}", claim=CLAIM,
            secret=SECRET, run=functools.partial(run, engine="bubblewrap"),
        )  # fmt: skip

    return do


@pytest.fixture
def there(access):
    """Return a function that runs cases on the server."""

    def do(suite, limits=QUICK, said=None):
        said = [] if said is None else said
        with Connection(access) as connection:
            return dict(run_there(connection, suite, "0a1b", limits, said.append))

    return do


def nothing_left(kubeflow):
    return not (kubeflow.runs or kubeflow.experiments or kubeflow.pipelines)


@pytest.mark.parametrize("name", ["variable", "cache", "claim", "retry that succeeds",
                                  "secret as a file", "secret as a variable"])  # fmt: skip
def test_what_asks_for_a_cluster_gives_here_what_is_written_down(suite, here, name):
    (packaged,) = suite(name)
    assert unexpected(packaged.case, here(packaged)) == []


def test_a_cluster_that_does_the_same_shows_no_difference_and_nothing_is_left(
    suite, here, there, kubeflow, cluster
):
    cases = suite(*NAMES)
    found = there(cases)
    assert set(found) == set(NAMES)
    for packaged in cases:
        assert differences(here(packaged), found[packaged.name]) == [], packaged.name
    assert nothing_left(kubeflow)


def changed(name, **facts):
    return lambda steps: {n: replace(s, **facts) if n == name else s for n, s in steps.items()}


@pytest.mark.parametrize(
    ("change", "where", "told"),
    [
        (changed("every", outputs={"said": "other"}), "output of every: said", '"other"'),
        (changed("each", outputs={}), "output of each: b", "-"),
        (changed("every", parameters={"i": 7.5}), "input of every: i", "7.5"),
        (changed("every", state="cached"), "state of every", "cached"),
        (lambda steps: {n: s for n, s in steps.items() if n != "every"}, "state of every",
         "skipped"),
        (lambda steps: steps | {"more": Step("more", "succeeded")}, "state of more", "succeeded"),
    ],
)  # fmt: skip
def test_another_value_or_state_is_a_difference_that_names_both(
    suite, here, there, cluster, change, where, told
):
    (packaged,) = suite("outputs of every type")
    cluster.change = change
    found = differences(here(packaged), there([packaged])[packaged.name])
    assert where in {one.where for one in found}
    (one,) = (one for one in found if one.where == where)
    assert one.there == told
    assert one.here != told


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda e: {**e, "metadata": {"f1": 0.5, "n": 4}}, "metadata: n"),
        (lambda e: {**e, "metadata": {"f1": 0.5}}, "metadata: n"),
        (lambda e: {**e, "type": {"schemaTitle": "system.Artifact"}}, "type"),
    ],
)
def test_another_artifact_is_a_difference(suite, here, there, cluster, change, where):
    (packaged,) = suite("metadata")

    def made(steps):
        entry = change(steps["describe"].artifacts["score"][0])
        return changed("describe", artifacts={"score": [entry]})(steps)

    cluster.change = made
    found = differences(here(packaged), there([packaged])[packaged.name])
    assert [one.where for one in found] == [f"artifact of describe: score, {where}"]


def test_another_content_or_number_of_artifacts_is_a_difference(
    suite, here, there, kubeflow, cluster
):
    (packaged,) = suite("artifacts")

    def other(steps):
        for key in kubeflow.objects:
            kubeflow.objects[key] = b"other"
        return steps

    cluster.change = other
    ours = here(packaged)
    (one,) = differences(ours, there([packaged])["artifacts"])
    assert one.where == "artifact of make: made, content"
    cluster.change = changed("make", artifacts={})
    (one,) = differences(ours, there([packaged])["artifacts"])
    assert (one.here, one.there) == ("1 of them", "0 of them")


def test_a_cache_that_never_hits_is_seen(suite, here, there, cluster):
    (packaged,) = suite("cache")
    cluster.change = lambda steps: {n: replace(s, state="succeeded") for n, s in steps.items()}
    found = differences(here(packaged), there([packaged])["cache"])
    assert [(one.where, one.here, one.there) for one in found] == [
        ("state of make", "cached", "succeeded"), ("state of read", "cached", "succeeded")
    ]  # fmt: skip


def test_without_a_metadata_store_states_are_compared_and_that_is_said(
    suite, here, there, kubeflow, cluster
):
    (packaged,) = suite("failure")
    kubeflow.store = None
    found = there([packaged])["failure"]
    assert not found.complete
    ours = here(packaged)
    assert differences(ours, found) == []
    assert differences(replace(ours, state="succeeded"), found) != []


def test_a_run_that_does_not_end_is_ended_and_counts_as_another_state(suite, there, kubeflow):
    kubeflow.states = ["RUNNING"]
    found = there(suite("failure"), replace(QUICK, seconds=0))
    assert found["failure"] == Observation("RUNNING after 0 s", {}, False)
    assert nothing_left(kubeflow)


def test_no_more_run_at_the_same_time_than_asked(suite, there, kubeflow):
    at_once = []

    def asked():
        at_once.append(sum(run.get("asked", 9) < 2 for run in kubeflow.runs.values()))
        return 0

    kubeflow.states = ["RUNNING", "SUCCEEDED"]
    kubeflow.faults["POST /runs"] = asked
    there(suite("if", "elif", "else", "failure"), replace(QUICK, at_once=2))
    assert max(at_once) <= 1, "besides the one that is being started"


@pytest.mark.parametrize("place", ["POST /runs", "GET /runs/run-id-2"])
def test_an_error_in_between_leaves_nothing(suite, there, kubeflow, place):
    kubeflow.states = ["RUNNING"]
    left = [0]
    kubeflow.faults[place] = lambda: left.pop() if left else 403
    with pytest.raises(ServerError, match="403"):
        there(suite("if", "elif"))
    assert nothing_left(kubeflow)


def test_what_cannot_be_removed_is_said(suite, there, kubeflow, cluster):
    kubeflow.faults["DELETE /runs/run-id-2"] = 403
    said = []
    assert there(suite("if"), said=said)
    assert any("delete it by hand" in line for line in said)


@pytest.fixture
def task(kubeflow, conformance_store, conformance_image, tmp_path):
    """Return a function that starts `invoke conformance` against the server."""

    def do(*words):
        return subprocess.Popen(
            [*TASK, "conformance",
             "--image", conformance_image, "--engine", "bubblewrap", *words],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(PLATELINE_STORE=str(conformance_store.root)),
        )  # fmt: skip

    return do


def test_the_task_prints_a_line_a_case_and_the_version_and_ends_with_zero(task, kubeflow, cluster):
    done = task("--host", kubeflow.url, "--only", "else,claim")
    out, err = done.communicate()
    assert done.returncode == 0, err
    assert re.search(r"^else +same$", out, re.MULTILINE)
    assert re.search(r"^claim +not tried +not tried: give --claim NAME", out, re.MULTILINE)
    assert "1 cases are the same on Kubeflow Pipelines 2.17.0" in err
    assert nothing_left(kubeflow)


@pytest.mark.slow
def test_the_task_prints_each_difference_and_ends_with_one(task, kubeflow, cluster):
    cluster.change = changed("every", outputs={"said": "other"})
    for words in ((), ("--json",)):
        done = task("--host", kubeflow.url, "--only", "outputs of every", *words)
        out, err = done.communicate()
        assert done.returncode == 1, err
        assert "error:" not in err
        if words:
            (case,) = json.loads(out)["cases"]
            assert case["word"] == "differs"
            assert case["differences"][0]["there"] == '"other"'
        else:
            line = next(line for line in out.splitlines() if "output of every: said" in line)
            assert re.fullmatch(
                r'outputs of every type +output of every: said +"ü.* +"other"', line
            )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_task_leaves_nothing_on_the_server(task, kubeflow, number):
    kubeflow.states = ["RUNNING"]
    done = task("--host", kubeflow.url, "--only", "else")
    for line in done.stderr:
        if line.startswith("running 1 cases on"):
            break
    while not kubeflow.runs:
        assert done.poll() is None
    done.send_signal(number)
    _, err = done.communicate()
    assert done.returncode == 130, err
    assert nothing_left(kubeflow)


def test_alone_the_task_compares_with_what_is_written_down(task):
    done = task("--local-only", "--only", "if,secret")
    out, err = done.communicate()
    assert done.returncode == 0, err
    assert "differs" not in out
    assert "secret as a file" in out
