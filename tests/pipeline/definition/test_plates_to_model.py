"""The pipeline over many plates: one loop, bounded; what lies in claims is said anew each run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builder.store import Store
from pipeline.definition.pipelines import definition
from pipeline.definition.plates import listed_plates
from pipeline.definition.settings import Settings
from pipeline.definition.stages import PIPELINES, PLATES
from pipeline.errors import PipelineError
from pipeline.spec.compile import compile_package
from pipeline.spec.package import Package, load
from tests.pipeline.pins import MADE, PINS


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    folder = tmp_path_factory.mktemp("package")
    chosen = definition(Settings(plates_at_once=3), PLATES)
    data = compile_package(chosen, PINS, MADE, Store.open(folder / "store")).data
    (folder / "p.yaml").write_bytes(data)
    return load(folder / "p.yaml")


def tasks(package: Package) -> dict[str, dict]:
    found = {}
    for component in [package.spec["root"], *package.spec["components"].values()]:
        found |= component.get("dag", {}).get("tasks", {})
    return found


def test_it_has_one_task_a_step_however_many_plates_there_will_be(package: Package):
    assert {name for name in tasks(package) if name in PIPELINES[PLATES]} == set(PIPELINES[PLATES])


def test_so_many_plates_are_worked_on_at_once_as_were_asked_for(package: Package):
    loops = [t for t in tasks(package).values() if "parameterIterator" in t]
    limits = [int(t.get("iteratorPolicy", {}).get("parallelismLimit", 0)) for t in loops]
    assert sorted(limits) == [0, 3]
    with pytest.raises(PipelineError, match="--plates-at-once 0: give 1 or more"):
        Settings(plates_at_once=0)


def test_what_reads_plates_is_never_taken_from_the_cache_and_what_follows_may_be(package: Package):
    steps = {name: task for name, task in tasks(package).items() if name in PIPELINES[PLATES]}
    assert {n for n, t in steps.items() if not t.get("cachingOptions", {}).get("enableCache")} == {
        "list-plates", "control-tiles", "plates-summary",
    }  # fmt: skip


def test_no_artifact_leaves_the_loop_over_plates(package: Package):
    loop = next(t for n, t in tasks(package).items() if "list-plates" in str(t.get("inputs")))
    outputs = package.spec["components"][loop["componentRef"]["name"]]["outputDefinitions"]
    assert "artifacts" not in outputs
    assert [d["parameterType"] for d in outputs["parameters"].values()] == ["LIST"]


def test_every_parameter_is_described_and_reaches_a_step(package: Package):
    text = json.dumps(package.spec["components"]) + json.dumps(package.spec["root"]["dag"])
    declared = package.spec["root"]["inputDefinitions"]["parameters"]
    assert [name for name, d in declared.items() if not d.get("description")] == []
    assert [name for name in declared if f'"pipelinechannel--{name}"' not in text] == []


def test_a_list_stands_for_its_folder_and_a_pattern_for_the_one_before_it(tmp_path: Path):
    (tmp_path / "screen").mkdir()
    (tmp_path / "screen/plates.csv").write_text("folder\n")
    root = (tmp_path / "screen").resolve()
    assert listed_plates(str(tmp_path / "screen/plates.csv")) == (root, "plates.csv")
    assert listed_plates(str(tmp_path / "screen/P*/TimePoint_1")) == (root, "P*/TimePoint_1")
    with pytest.raises(PipelineError, match=r"none\.csv is no file"):
        listed_plates(str(tmp_path / "none.csv"))
    with pytest.raises(PipelineError, match="is not there"):
        listed_plates(str(tmp_path / "none/P*"))
