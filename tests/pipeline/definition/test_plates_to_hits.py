"""The package that scores a screen: one loop over the plates, digests from step to step."""

from __future__ import annotations

import json

import pytest

from builder.store import Store
from pipeline.definition import stages
from pipeline.definition.pipelines import definition
from pipeline.definition.settings import Settings
from pipeline.errors import PipelineError
from pipeline.spec.compile import compile_package
from pipeline.spec.package import Package, load
from tests.pipeline.pins import MADE

PINS = {
    name: f"registry.test/p/{name}@sha256:{'ab' * 32}" for name in stages.images_of(stages.SCORE)
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    folder = tmp_path_factory.mktemp("package")
    path = folder / "p.yaml"
    made = definition(Settings(plates_at_once=3), stages.SCORE)
    path.write_bytes(compile_package(made, PINS, MADE, Store.open(folder / "store")).data)
    return load(path)


def tasks(package: Package) -> dict[str, dict]:
    """Return every task of the package by its name, those of the loop too."""
    dags = [package.spec["root"]["dag"]]
    dags += [c["dag"] for c in package.spec["components"].values() if "dag" in c]
    return {name: task for dag in dags for name, task in dag["tasks"].items()}


def test_it_needs_no_image_that_trains() -> None:
    assert set(stages.images_of(stages.SCORE)) == {"prepare", "package", "score"}
    assert "score" not in stages.images_of(stages.MODEL)


def test_a_pipeline_that_there_is_not_is_named_with_those_there_are() -> None:
    with pytest.raises(PipelineError, match="no pipeline 'scores'; there are plateline, "):
        stages.targets((), "scores")


def test_every_parameter_is_described_and_reaches_a_step(package: Package) -> None:
    declared = package.spec["root"]["inputDefinitions"]["parameters"]
    assert [name for name, d in declared.items() if not d.get("description")] == []
    text = json.dumps(package.spec["components"]) + json.dumps(package.spec["root"]["dag"])
    whole = {word for word in declared if f'"componentInputParameter": "{word}"' in text}
    looped = {word for word in declared if f'"pipelinechannel--{word}"' in text}
    assert whole | looped == set(declared)


def test_what_reads_the_claim_is_never_cached_and_what_follows_is(package: Package) -> None:
    cached = {
        name: task.get("cachingOptions", {}).get("enableCache", False)
        for name, task in tasks(package).items()
        if task["componentRef"]["name"].removeprefix("comp-") in stages.STAGES
    }
    assert cached == {
        "list-plates": False, "fetch": True, "scan-plate": False, "prepare-plate": True,
        "score": True, "screen": True,
    }  # fmt: skip


def test_the_last_step_is_handed_digests_and_no_artifact_a_plate(package: Package) -> None:
    inputs = package.spec["components"]["comp-screen"]["inputDefinitions"]
    assert "artifacts" not in inputs
    assert inputs["parameters"]["scores_digests"]["parameterType"] == "LIST"


def test_plates_at_once_is_the_loops_limit(package: Package) -> None:
    limits = [
        task["iteratorPolicy"]["parallelismLimit"]
        for task in tasks(package).values()
        if "iteratorPolicy" in task
    ]
    assert limits == [3]


def test_only_the_step_that_fetches_the_model_asks_for_the_network(package: Package) -> None:
    asking = {n for n, e in package.kubernetes.items() if "plateline/network" in json.dumps(e)}
    assert asking == {"exec-fetch"}
