"""The graph of a run's page stands in the order in which steps waited for each other."""

import time

from pipeline.run.page import levels
from pipeline.run.record import Record, Step


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


def test_a_loop_in_a_damaged_record_ends():
    assert len(levels([Step("a", after=("b",)), Step("b", after=("a",))])) == 2


def test_a_stopped_step_keeps_the_time_that_it_ran():
    record = Record(lambda _: None)
    record.update("a", state="running")
    time.sleep(0.02)
    assert record.update("a", state="stopped").seconds >= 0.02
    assert record.update("b", state="stopped").seconds == 0
