"""The graph of a run's page stands in the order in which steps waited for each other."""

import time

from pipeline.run.page import levels, render
from pipeline.run.record import Record, Result, Step


def rows(*steps):
    return [[step.name for step in row] for row in levels(steps)]


def test_a_step_stands_below_everything_that_it_waited_for():
    assert rows(
        Step("c", after=("a", "b")), Step("a"), Step("b", after=("a",)), Step("alone")
    ) == [["a", "alone"], ["b"], ["c"]]  # fmt: skip


def test_a_part_of_the_pipeline_stands_for_all_its_steps():
    loop = [Step("loop.0.x"), Step("loop.1.x"), Step("loop.1.y", after=("loop.1.x",))]
    assert rows(*loop, Step("end", after=("loop",)))[-1] == ["end"]
    assert len(rows(*loop, Step("end", after=("loop",)))) == 3


def test_thousands_of_steps_that_did_not_run_stand_in_their_order():
    """They have no time to be sorted by, so that the last one may come first."""
    chain = [Step(f"s{n}", "skipped", after=(f"s{n - 1}",) if n else ()) for n in range(3000)]
    assert rows(*chain[::-1]) == [[step.name] for step in chain]
    loop = [Step(f"loop.{n}.x") for n in range(2000)]
    ends = [Step(f"end{n}", after=("loop",)) for n in range(2000)]
    assert [len(row) for row in levels([*ends, *loop])] == [2000, 2000]


def test_a_loop_in_a_damaged_record_ends():
    assert len(levels([Step("a", after=("b",)), Step("b", after=("a",))])) == 2


def test_a_stopped_step_keeps_the_time_that_it_ran():
    record = Record(lambda _: None)
    record.update("a", state="running")
    time.sleep(0.02)
    assert record.update("a", state="stopped").seconds >= 0.02
    assert record.update("b", state="stopped").seconds == 0


def test_a_failed_run_begins_with_the_step_its_cause_and_what_comes_next(tmp_path):
    steps = [
        Step("a.0.fit", state="failed", error="out of <memory>", advice="give it more",
             max_rss=2_500_000_000, seconds=3, label="fit (fold left)"),
        Step("b", state="failed", error="exit code 1"),
        Step("c", state="skipped", after=("a",)),
    ]  # fmt: skip
    page = render(
        Result(
            name="p", state="failed", started=1, folder=tmp_path, page=tmp_path / "index.html",
            package_digest="sha256:1", steps={step.name: step for step in steps}, outputs={},
            artifacts={}, parameters={}, notes=(), seconds=4, error="out of <memory>",
        )
    )  # fmt: skip
    top = page[: page.index("<h2>Steps</h2>")]
    assert 'Failed: <a href="#a.0.fit">fit (fold left)</a>' in top
    assert "out of &lt;memory&gt;" in top
    assert "<b>Next:</b> give it more." in top
    assert "exit code 1" in top
    assert "run the package again" in top
    assert "2.50 GB" in page
    assert ">a.0.fit<" not in page.replace("<td>a.0.fit", "")  # only as the compiler's name
