"""Whatever the graph: a step runs after all that it waits for, and not after a failure."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.run import runner

Graph = dict[str, tuple[list[str], int]]  # task -> what it waits for, exit code


@st.composite
def graphs(draw) -> Graph:
    count = draw(st.integers(1, 6))
    names = draw(st.permutations([f"t{index}" for index in range(count)]))
    return {
        name: (
            draw(st.lists(st.sampled_from(names[:index]), unique=True)) if index else [],
            draw(st.sampled_from([0, 0, 0, 1])),
        )
        for index, name in enumerate(names)
    }


def package(graph: Graph, image: str) -> runner.Package:
    tasks = {
        name: {
            "componentRef": {"name": f"comp-{code}"},
            "dependentTasks": before,
            "taskInfo": {"name": name},
        }
        for name, (before, code) in sorted(graph.items())
    }
    spec = {
        "root": {"dag": {"tasks": tasks}},
        "components": {f"comp-{code}": {"executorLabel": f"exec-{code}"} for code in (0, 1)},
        "deploymentSpec": {
            "executors": {
                f"exec-{code}": {
                    "container": {"image": image, "command": ["sh", "-c", f"exit {code}"]}
                }
                for code in (0, 1)
            }
        },
    }
    return runner.Package("sha256:" + "0" * 64, "graph", spec, {})


def expected(graph: Graph) -> dict[str, str]:
    states: dict[str, str] = {}
    while len(states) < len(graph):
        for name, (before, code) in graph.items():
            if name not in states and all(other in states for other in before):
                ready = all(states[other] == "succeeded" for other in before)
                states[name] = ("failed" if code else "succeeded") if ready else "skipped"
    return states


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(graphs())
def test_every_step_ends_as_the_graph_says(store, image, graph):
    with tempfile.TemporaryDirectory() as runs:
        result = runner.run(
            package(graph, image), store, parameters={}, volumes={}, secrets={},
            runs=Path(runs), engine="bubblewrap", use_cache=False,
        )  # fmt: skip
    states = expected(graph)
    assert {name: step.state for name, step in result.steps.items()} == states
    assert result.state == ("failed" if "failed" in states.values() else "succeeded")
    for name, (before, _) in graph.items():
        for other in before:
            step, earlier = result.steps[name], result.steps[other]
            if step.started:
                assert step.started >= earlier.started + earlier.seconds - 0.01


def test_a_full_disk_is_one_message(store, image, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.run.page.render", full)
    with pytest.raises(PipelineError, match=r"ended \(succeeded\), but .*No space left on device"):
        runner.run(
            package({"a": ([], 0)}, image), store, parameters={}, volumes={}, secrets={},
            runs=tmp_path, engine="bubblewrap", use_cache=False,
        )  # fmt: skip


def nested() -> dict:
    """A pipeline whose optional parameter goes to a component that needs it."""
    task = {
        "componentRef": {"name": "comp-need"},
        "inputs": {"parameters": {"text": {"componentInputParameter": "t"}}},
    }
    optional = {"parameters": {"t": {"parameterType": "STRING", "isOptional": True}}}
    needed = {"parameters": {"text": {"parameterType": "STRING"}}}
    return {
        "root": {"dag": {"tasks": {"need": task}}, "inputDefinitions": optional},
        "components": {"comp-need": {"executorLabel": "exec", "inputDefinitions": needed}},
        "deploymentSpec": {"executors": {}},
    }


def test_a_needed_input_without_a_value_ends_the_run_before_it_begins(store, image, tmp_path):
    spec = nested()
    spec["deploymentSpec"]["executors"]["exec"] = {
        "container": {"image": image, "command": ["echo", "{{$.inputs.parameters['text']}}"]}
    }
    package = runner.Package("sha256:" + "0" * 64, "nested", spec, {})

    def run(**parameters):
        return runner.run(
            package, store, parameters=parameters, volumes={}, secrets={}, runs=tmp_path,
            engine="bubblewrap", use_cache=False,
        )  # fmt: skip

    with pytest.raises(PipelineError, match=r"root\.need\.text: .* gives no value to text"):
        run()
    assert list(tmp_path.iterdir()) == []
    assert run(t="x").state == "succeeded"


def test_what_needs_a_skipped_step_is_skipped_default_or_not(store, image, tmp_path):
    """As `depends: x.Succeeded` has it in the backend's workflow."""
    spec = package({"a": ([], 0), "b": (["a"], 0), "c": ([], 0)}, image).spec
    spec["root"]["dag"]["tasks"]["a"]["triggerPolicy"] = {"condition": "1 > 2"}
    result = runner.run(
        runner.Package("sha256:" + "0" * 64, "skips", spec, {}), store, parameters={}, volumes={},
        secrets={}, runs=tmp_path, engine="bubblewrap", use_cache=False,
    )  # fmt: skip
    assert {name: step.state for name, step in result.steps.items()} == {
        "a": "skipped", "b": "skipped", "c": "succeeded",
    }  # fmt: skip
    assert result.state == "succeeded"


@pytest.mark.parametrize(
    ("policy", "attempts"),
    [({"maxRetryCount": 2, "backoffDuration": "0s"}, 3),
     ({"maxRetryCount": 2, "backoffDuration": "600s", "backoffMaxDuration": "1s"}, 1)],
)  # fmt: skip
def test_no_retry_begins_after_the_window_of_the_policy(store, image, tmp_path, policy, attempts):
    """Argo's maxDuration: a run that waited for its retry would take ten minutes."""
    spec = package({"a": ([], 1)}, image).spec
    spec["root"]["dag"]["tasks"]["a"]["retryPolicy"] = policy
    result = runner.run(
        runner.Package("sha256:" + "0" * 64, "tries", spec, {}), store, parameters={}, volumes={},
        secrets={}, runs=tmp_path, engine="bubblewrap", use_cache=False,
    )  # fmt: skip
    assert result.state == "failed"
    assert result.steps["a"].attempts == attempts


@pytest.mark.parametrize("kind", ["itself", "bomb", "deep"])
def test_pipelines_that_unfold_without_end_are_refused(store, image, tmp_path, kind):
    """One holds itself, one has twenty levels of two tasks, one is five thousand deep."""

    def level(inner: str) -> dict:
        tasks = ("a",) if kind == "deep" else ("a", "b")
        return {"dag": {"tasks": {n: {"componentRef": {"name": inner}} for n in tasks}}}

    depth = {"itself": 0, "bomb": 20, "deep": 5_000}[kind]
    spec = package({"t": ([], 0)}, image).spec
    spec["components"] |= {f"level-{n}": level(f"level-{n - 1}") for n in range(1, depth)}
    spec["components"]["level-0"] = level("comp-0" if depth else "level-0")
    spec["root"] = level(f"level-{max(0, depth - 1)}")
    with pytest.raises(PipelineError, match=r"unfold to|holds itself|nested"):
        runner.run(
            runner.Package("sha256:" + "0" * 64, "deep", spec, {}), store, parameters={},
            volumes={}, secrets={}, runs=tmp_path, engine="bubblewrap",
        )  # fmt: skip
