"""People meet the author's names of tasks, not the compiler's numbers."""

from pipeline.spec.labels import Labels


def task(component, inputs=None, loop=None, name=None):
    sources = {key: {"componentInputParameter": of} for key, of in (inputs or {}).items()}
    made = {"componentRef": {"name": component}, "inputs": {"parameters": sources}}
    if loop:
        made["parameterIterator"] = {"itemInput": loop}
    if name:
        made["taskInfo"] = {"name": name}
    return made


SPEC = {
    "root": {"dag": {"tasks": {
        "exit-handler-1": task("all"),
        "for-loop-7": task("right", loop="other-item"),
    }}},
    "components": {
        "all": {"dag": {"tasks": {
            "for-loop-2": task("folds", loop="item", name="folds"),
            "check": task("step", name="look"),
        }}},
        "folds": {"dag": {"tasks": {
            "train": task("step", {"fold": "item", "rate": "rate"}, name="train"),
            "for-loop-3": task("plates", {"outer": "item"}, loop="plate-item"),
        }}},
        "plates": {"dag": {"tasks": {
            "score": task("step", {"plate": "plate-item", "fold": "outer"}, name="score"),
        }}},
        "right": {"dag": {"tasks": {"look": task("step", {"which": "other-item"}, name="look")}}},
        "step": {},
    },
}  # fmt: skip


def label(name, of=None, **parameters):
    return (of or Labels(SPEC)).of(name, parameters)


def test_a_step_has_the_name_of_its_task_alone():
    assert label("exit-handler-1.check") == "look"


def test_a_round_is_told_by_the_input_that_takes_the_loops_item():
    name = "exit-handler-1.for-loop-2.1.train"
    assert label(name, fold="E-H", rate=0.1) == "train (fold E-H)"


def test_rounds_of_loops_in_loops_are_told_from_the_outermost():
    name = "exit-handler-1.for-loop-2.0.for-loop-3.4.score"
    assert label(name, plate="P5", fold=2) == "score (fold 2, plate P5)"
    assert label(name, plate="P5") == "score (round 0, plate P5)"


def test_an_item_that_cannot_be_read_at_a_glance_is_told_by_its_number():
    for item in ({"a": 1}, ["x"], "x" * 80, "\x1b[2J", "two\nlines"):
        assert label("exit-handler-1.for-loop-2.3.train", fold=item) == "train (round 3)"


def test_steps_of_one_name_stay_apart():
    of = Labels(SPEC)
    first = label("exit-handler-1.for-loop-2.0.train", of, fold="same")
    second = label("exit-handler-1.for-loop-2.1.train", of, fold="same")
    assert (first, second) == ("train (fold same)", "train (fold same) in folds")
    assert label("exit-handler-1.for-loop-2.0.train", of, fold="same") == first
    third = label("exit-handler-1.for-loop-2.2.train", of, fold="same")
    assert third == "train (fold same) in exit-handler-1"
    assert (
        len({first, second, third, label("exit-handler-1.for-loop-2.3.train", of, fold="same")})
        == 4
    )


def test_a_step_that_the_package_does_not_know_keeps_its_name():
    assert label("elsewhere.0.x") == "elsewhere.0.x"
