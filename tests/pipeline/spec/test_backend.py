"""What a cluster would do otherwise than a package says is found; what it would do is not."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from kfp import compiler, dsl, kubernetes

from pipeline.spec.lint import lint
from pipeline.spec.retries import Retries

IMAGE = "localhost/x@sha256:" + "0" * 64
GOOD = Path(__file__).parent / "broken" / "good.yaml"


@dsl.container_component
def work(text: str, made: dsl.Output[dsl.Model]):
    return dsl.ContainerSpec(IMAGE, ["echo"], [text, made.path])


@dsl.container_component
def gather(models: dsl.Input[list[dsl.Model]]):
    return dsl.ContainerSpec(IMAGE, ["echo"], ["{{$}}"])


def rules(pipeline, folder: Path) -> list[str]:
    path = folder / "package.yaml"
    compiler.Compiler().compile(pipeline, str(path))
    found = lint(path)
    assert all(";" in finding.message for finding in found), "a message holds the way out"
    return [finding.rule for finding in found]


@pytest.mark.parametrize(
    ("seconds", "window", "found"),
    [(7200, None, ["retry-window"]), (1700, None, []), (7200, "14399s", ["retry-window"]),
     (7200, "14430s", []), (0, None, [])],
)  # fmt: skip
def test_the_window_of_retries_lets_the_last_one_begin(seconds, window, found, tmp_path):
    @dsl.pipeline(name="tried")
    def tried():
        task = work(text="x").set_retry(
            2, backoff_duration="10s", backoff_factor=2, backoff_max_duration=window
        )
        if seconds:
            kubernetes.set_timeout(task, seconds)

    assert rules(tried, tmp_path) == found


@pytest.mark.parametrize(
    ("limit", "found"), [("128Mi", ["memory-for-the-launcher"]), ("256Mi", []), ("1G", [])]
)
def test_the_launcher_has_room_in_a_steps_memory(limit, found, tmp_path):
    @dsl.pipeline(name="small")
    def small():
        work(text="x").set_memory_limit(limit)

    assert rules(small, tmp_path) == found


@pytest.mark.parametrize("nested", [True, False])
def test_a_list_of_artifacts_goes_straight_into_a_task(nested, tmp_path):
    @dsl.pipeline(name="inner")
    def inner(models: dsl.Input[list[dsl.Model]]):
        gather(models=models)

    @dsl.pipeline(name="lists")
    def lists():
        with dsl.ParallelFor(["a", "b"]) as item:
            made = work(text=item)
        (inner if nested else gather)(models=dsl.Collected(made.outputs["made"]))

    assert rules(lists, tmp_path) == (["list-in-a-nested-pipeline"] if nested else [])


@pytest.mark.parametrize(("items", "found"), [("[]", {"empty-loop"}), ('["a"]', set())])
def test_a_loop_that_is_collected_from_has_an_item(items, found, tmp_path):
    documents = list(yaml.safe_load_all(GOOD.read_text()))
    tasks = documents[0]["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    tasks["for-loop-3"]["parameterIterator"]["items"]["raw"] = items
    path = tmp_path / "package.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    assert {finding.rule for finding in lint(path)} == found


@pytest.mark.parametrize(
    ("text", "found"),
    [(dsl.PIPELINE_JOB_NAME_PLACEHOLDER, []), (dsl.PIPELINE_TASK_NAME_PLACEHOLDER, []),
     (f"of {dsl.PIPELINE_JOB_NAME_PLACEHOLDER}", ["literal-placeholder"]),
     (dsl.PIPELINE_ROOT_PLACEHOLDER, ["literal-placeholder"])],
)  # fmt: skip
def test_a_fact_of_the_run_is_the_whole_of_a_constant(text, found, tmp_path):
    @dsl.pipeline(name="facts")
    def facts():
        work(text=text)

    assert rules(facts, tmp_path) == found


plans = st.builds(
    Retries, st.integers(0, 20), st.floats(0, 600), st.floats(1, 4), st.floats(1, 1e6)
)


@given(plans, st.integers(1, 10**6))
def test_a_window_as_long_as_needed_lets_every_retry_begin(plan, limit):
    roomy = Retries(plan.count, plan.pause, plan.factor, plan.needs(limit) * (1 + 1e-9))
    passed = 0.0
    for attempt in range(1, plan.count + 1):
        passed += limit
        pause = roomy.next(attempt, passed)
        assert pause is not None
        passed += pause
    assert roomy.next(plan.count + 1, 0.0) is None


@given(plans, st.integers(1, 10**6))
def test_no_retry_begins_after_the_window(plan, passed):
    for attempt in range(1, plan.count + 2):
        pause = plan.next(attempt, passed)
        assert pause is None or passed + pause <= plan.window


@pytest.mark.parametrize(
    ("policy", "retries"),
    [({}, Retries(0, 0.0, 2.0, 3600.0)),
     ({"maxRetryCount": 2, "backoffDuration": "5s", "backoffFactor": 3.0,
       "backoffMaxDuration": "90s"}, Retries(2, 5.0, 3.0, 90.0)),
     ({"maxRetryCount": 2**31, "backoffFactor": 1e300, "backoffDuration": "1s"},
      Retries(2**31, 1.0, 1e300, 3600.0))],
)  # fmt: skip
def test_a_policy_is_read_as_the_compiler_writes_it(policy, retries):
    assert Retries.of(policy) == retries
    assert retries.needs(60) >= 0
    assert retries.after(10**6) >= 0
