"""Runs are read back, listed and compared; a record that is not understood is refused by name."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.history import comparison, reading
from pipeline.run import page
from pipeline.run.record import Result, Step

METRICS = {"type": {"schemaTitle": "system.Metrics"}}


def write(runs, name, *, fold="A", rate=0.1, image="train@1", tiles="t1", v=0.9, calls="01"):
    """Write a run: prepare, train in a loop, judge; return its folder."""
    folder = runs / name
    results = folder / "steps/judge/out/results"
    results.mkdir(parents=True)
    rows = "".join(f"{fold},W{n},0.{n},{call}\n" for n, call in enumerate(calls))
    (results / "well_scores.csv").write_text(f"fold,well,probability,call\n{rows}")
    made = {"digest": f"{tiles} {rate} {image}"}
    steps = [
        Step("prepare", state="cached", image="prepare@1", outputs={"digest": tiles}),
        Step("loop.0.train", state="succeeded", image=image, after=("prepare",),
             parameters={"rate": rate, "tiles_digest": tiles}, outputs=made,
             label="train (fold A)"),
        Step("judge", state="succeeded", image="judge@1", after=("loop",),
             parameters={"digests": [made["digest"]]},
             artifacts={"metrics": [{**METRICS, "uri": "/kfp/judge/metrics",
                                     "metadata": {"V": v}}],
                        "results": [{"uri": "/kfp/judge/results"}]}),
    ]  # fmt: skip
    result = Result(
        name="p", state="succeeded", started=1.0, folder=folder, page=folder / "index.html",
        package_digest="sha256:1", steps={step.name: step for step in steps}, outputs={},
        artifacts={}, parameters={"rate": rate}, notes=(), seconds=2.0,
    )  # fmt: skip
    (folder / "run.json").write_text(json.dumps(page.document(result)))
    return folder


def compared(tmp_path, **other):
    runs = [write(tmp_path, "1"), write(tmp_path, "2", **other)]
    return comparison.compare(*map(reading.read, runs))


def test_a_parameter_that_moved_a_number_is_named_and_what_follows_from_it_is_not(tmp_path):
    found = compared(tmp_path, rate=0.2, v=0.7, calls="00")
    assert found.parameters == {"rate": (0.1, 0.2)}
    assert found.metrics == {"judge: V": (0.9, 0.7)}
    assert found.wells == {"W1": ("1 (0.1)", "0 (0.1)")}
    assert found.wells_of_both == 2
    assert found.causes == {"judge": ("train (fold A) was given rate 0.1, in the other run 0.2",)}


def test_another_image_is_a_cause(tmp_path):
    found = compared(tmp_path, image="train@2", v=0.7)
    assert found.images == {"train (fold A)": ("train@1", "train@2")}
    assert found.causes == {"judge": ("train (fold A) ran in another image",)}


def test_a_step_that_made_something_else_of_the_same_inputs_is_named(tmp_path):
    found = compared(tmp_path, tiles="t2", v=0.7)
    assert len(found.causes["judge"]) == 1
    assert found.causes["judge"][0].startswith("prepare made another digest of the same inputs")


def test_a_run_compared_with_its_repetition_differs_in_nothing(tmp_path):
    found = compared(tmp_path)
    assert (found.package, found.parameters, found.images, found.metrics) == (None, {}, {}, {})
    assert (found.wells, found.causes) == ({}, {})


def test_a_run_is_found_by_the_beginning_of_its_name_if_only_one_begins_so(tmp_path):
    one, two = write(tmp_path, "2026-a"), write(tmp_path, "2026-b")
    assert reading.find(tmp_path, "2026-a") == one
    assert reading.find(Path("/nowhere"), str(two)) == two
    for word, why in (
        ("2026", "2026-a, 2026-b all begin so"),
        ("1999", "there is none"),
        ("", "none"),
    ):
        with pytest.raises(PipelineError, match=why):
            reading.find(tmp_path, word)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda d: d.pop("format"), "another version"),
        (lambda d: d.update(format=1), "another version"),
        (lambda d: d.pop("started"), "started is missing"),
        (lambda d: d.update(steps=[]), "steps is"),
        (lambda d: d["steps"].update(x=1), "Step is no object"),
        (lambda d: d["steps"]["judge"].update(parameters=3), "judge: parameters is '3'"),
        (lambda d: d.update(more=1), "'more' is not known"),
    ],
)
def test_a_record_that_is_old_or_damaged_is_refused_by_name(tmp_path, change, why):
    folder = write(tmp_path, "1")
    document = json.loads((folder / "run.json").read_text())
    change(document)
    (folder / "run.json").write_text(json.dumps(document))
    with pytest.raises(PipelineError, match=f"run.json.*{why}"):
        reading.read(folder)


def test_a_run_that_goes_on_a_link_and_a_torn_file_are_refused_by_name(tmp_path):
    folder = write(tmp_path, "1")
    text = (folder / "run.json").read_text()
    (folder / "run.json").write_text(text[: len(text) // 2])
    with pytest.raises(PipelineError, match=r"run.json: it is no JSON"):
        reading.read(folder)
    (folder / "run.json").unlink()
    with pytest.raises(PipelineError, match="the run goes on"):
        reading.read(folder)
    (folder / "run.json").symlink_to("/etc/passwd")
    with pytest.raises(PipelineError, match=r"run\.json"):
        reading.read(folder)


@pytest.mark.parametrize("table", ["well\nA1\n", "well,call,probability\nA1\n", "\xff"])
def test_a_table_of_wells_that_is_none_is_refused_by_name(tmp_path, table):
    folder = write(tmp_path, "1")
    path = folder / "steps/judge/out/results/well_scores.csv"
    path.write_bytes(table.encode("latin-1"))
    with pytest.raises(PipelineError, match=r"well_scores\.csv"):
        reading.wells(reading.read(folder))


KEYS = st.sampled_from(["steps", "artifacts", "after", "x", "uri", "type"])
ANY = st.recursive(
    st.none() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(KEYS, v)
)


@settings(max_examples=40, deadline=None)
@given(ANY)
def test_any_json_in_a_step_is_read_or_refused(tmp_path_factory, value):
    folder = write(tmp_path_factory.mktemp("runs"), "1")
    document = json.loads((folder / "run.json").read_text())
    document["steps"]["judge"].update(artifacts=value, outputs=value)
    document["steps"]["prepare"]["artifacts"] = {"a": value}
    (folder / "run.json").write_text(json.dumps(document))
    said = ""
    try:
        run = reading.read(folder)
        comparison.compare(run, run)
    except PipelineError as error:
        said = str(error)
    assert not said or str(folder) in said
