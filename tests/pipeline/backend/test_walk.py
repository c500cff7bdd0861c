"""The walk does with drivers and executors what Argo does with the compiled workflow."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.backend.walk import Driven, Walk
from pipeline.errors import PipelineError

EXIT = {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}


@dataclass
class Recorded:
    """A backend whose programs say what the test says; `phases` is what it was told."""

    fails: frozenset[str] = frozenset()
    drivers_fail: frozenset[str] = frozenset()
    driven: dict[str, Driven] = field(default_factory=dict)
    phases: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[str, str, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def drive_root(self, parameters):
        return Driven(execution="1")

    def drive(self, node):
        self.calls.append((node.name, node.dag, node.iteration))
        if node.name in self.drivers_fail:
            raise PipelineError(f"the driver of {node.name} failed")
        return self.driven.get(node.name, Driven(execution=f"e-{node.name}"))

    def execute(self, node, driven):
        if node.name in self.fails:
            raise PipelineError(f"{node.name} failed")

    def bring(self, node):
        pass

    def ended(self, node, phase, error=""):
        with self.lock:
            self.phases[node.name] = phase


def task(*after, component="step", **more):
    return {"componentRef": {"name": component}, "dependentTasks": list(after), **more}


def spec(tasks, **dags):
    components = {name: {"dag": {"tasks": inner}} for name, inner in dags.items()}
    return {
        "root": {"dag": {"tasks": tasks}},
        "components": {
            "step": {"executorLabel": "e"}, "imported": {"executorLabel": "i"}, **components
        },
        "deploymentSpec": {"executors": {"e": {"container": {}}, "i": {"importer": {}}}},
    }  # fmt: skip


def walked(tasks, backend, **dags):
    return Walk(spec(tasks, **dags), backend).root({})


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_task_runs_where_all_that_it_needs_succeeded_and_one_failure_fails_the_whole(data):
    names = [f"t{i}" for i in range(data.draw(st.integers(1, 6)))]
    edges = {
        name: data.draw(st.sets(st.sampled_from(names[:i])) if i else st.just(set()))
        for i, name in enumerate(names)
    }
    fails = frozenset(data.draw(st.sets(st.sampled_from(names))))
    backend = Recorded(fails=fails)
    phase = walked({name: task(*sorted(edges[name])) for name in names}, backend)
    for name in names:
        ready = all(backend.phases[before] == "Succeeded" for before in edges[name])
        expected = ("Failed" if name in fails else "Succeeded") if ready else "Omitted"
        assert backend.phases[name] == expected
    assert phase == ("Failed" if "Failed" in backend.phases.values() else "Succeeded")


def test_what_needs_a_skipped_task_is_omitted_and_the_run_succeeds():
    backend = Recorded(driven={"maybe": Driven(condition="false")})
    conditional = task(triggerPolicy={"condition": "1 == 2"})
    assert walked({"maybe": conditional, "after": task("maybe")}, backend) == "Succeeded"
    assert backend.phases == {"maybe": "Skipped", "after": "Omitted"}


def test_a_cached_step_runs_nothing_and_lets_others_run():
    backend = Recorded(fails=frozenset({"one"}), driven={"one": Driven(cached=True)})
    assert walked({"one": task(), "two": task("one")}, backend) == "Succeeded"
    assert backend.phases == {"one": "Cached", "two": "Succeeded"}


def test_the_rounds_of_a_loop_are_driven_below_its_own_execution():
    backend = Recorded(driven={"loop": Driven(execution="7", iterations=2)})
    loop = task(component="inner", parameterIterator={"itemInput": "x"})
    assert walked({"loop": loop, "after": task("loop")}, backend, inner={"s": task()}) == (
        "Succeeded"
    )
    assert sorted(backend.calls) == [
        ("after", "1", -1), ("loop", "1", -1), ("loop.0", "7", 0), ("loop.0.s", "e-loop.0", -1),
        ("loop.1", "7", 1), ("loop.1.s", "e-loop.1", -1),
    ]  # fmt: skip


def test_an_empty_loop_succeeds():
    loop = task(component="inner", parameterIterator={"itemInput": "x"})
    backend = Recorded()
    assert walked({"loop": loop, "after": task("loop")}, backend, inner={"s": task()}) == (
        "Succeeded"
    )
    assert backend.phases == {"after": "Succeeded"}


@pytest.mark.parametrize(
    ("fault", "exit_runs"),
    [({}, True), ({"fails": {"all.s"}}, True), ({"drivers_fail": {"all.s"}}, True),
     ({"drivers_fail": {"all"}}, False)],
)  # fmt: skip
def test_an_exit_task_runs_unless_the_driver_of_its_handler_failed(fault, exit_runs):
    backend = Recorded(**{key: frozenset(names) for key, names in fault.items()})
    tasks = {"all": task(component="inner"), "tell": task("all", triggerPolicy=EXIT)}
    assert walked(tasks, backend, inner={"s": task()}) == ("Failed" if fault else "Succeeded")
    assert ("tell" in backend.phases) == exit_runs


def test_a_failed_exit_task_fails_no_run():
    backend = Recorded(fails=frozenset({"tell"}))
    tasks = {"all": task(component="inner"), "tell": task("all", triggerPolicy=EXIT)}
    assert walked(tasks, backend, inner={"s": task()}) == "Succeeded"
    assert backend.phases["tell"] == "Failed"


def test_an_importer_waits_for_nothing():
    backend = Recorded(fails=frozenset({"first"}))
    tasks = {"first": task(), "data": task("first", component="imported"), "use": task("data")}
    assert walked(tasks, backend) == "Failed"
    assert backend.phases == {"first": "Failed", "data": "Succeeded", "use": "Succeeded"}
