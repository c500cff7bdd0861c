"""A broken package is refused for the one fault that it has; a good one is not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from kfp import compiler, dsl

from pipeline.errors import PipelineError
from pipeline.lint import lint

BROKEN = Path(__file__).parent / "broken"
ROOT = Path(__file__).parents[2]
FAULTS = sorted(p for p in BROKEN.glob("*.yaml") if not p.stem.startswith(("good", "unreadable")))
IMAGE = "localhost/x@sha256:" + "0" * 64


def test_a_good_package_has_no_fault():
    assert lint(BROKEN / "good.yaml") == []


@pytest.mark.parametrize("path", FAULTS, ids=lambda path: path.stem)
def test_each_fault_is_found_where_it_is_and_nothing_else(path):
    """The file's name starts with the rule; its first line says the place."""
    where = path.read_text().splitlines()[0].removeprefix("# fault at: ")
    found = lint(path)
    assert {finding.where.partition(" ")[0] for finding in found} == {where.partition(" ")[0]}
    assert {path.stem.startswith(finding.rule) for finding in found} == {True}
    assert all(";" in finding.message for finding in found), "a message holds the way out"


@pytest.mark.parametrize("path", sorted(BROKEN.glob("unreadable*")), ids=lambda path: path.stem)
def test_what_is_no_package_is_an_error_with_a_next_step(path):
    with pytest.raises(PipelineError, match=r"is not a compiled pipeline .*invoke compile"):
        lint(path)


def test_a_missing_file_is_named():
    with pytest.raises(PipelineError, match=r"absent\.yaml failed"):
        lint(Path("absent.yaml"))


def test_every_fault_of_a_package_is_listed_not_only_the_first(tmp_path):
    text = (BROKEN / "image-without-digest.yaml").read_text()
    path = tmp_path / "two.yaml"
    path.write_text(text.replace("maxRetryCount: 2", "maxRetryCounts: 2"))
    assert {finding.rule for finding in lint(path)} == {"image-without-digest", "unknown-field"}


def test_a_version_as_the_api_server_gives_it_back_is_read(tmp_path):
    import yaml

    spec, platform = yaml.safe_load_all((BROKEN / "cache-key.yaml").read_text())
    path = tmp_path / "version.json"
    path.write_text(json.dumps({"pipeline_spec": spec, "platform_spec": platform}))
    assert [finding.rule for finding in lint(path)] == ["cache-key"]


@dsl.container_component
def work(text: str):
    return dsl.ContainerSpec(IMAGE, ["echo"], [text])


@pytest.mark.parametrize("registered", [True, False])
def test_the_way_out_for_a_resource_parameter_is_one(tmp_path, registered):
    @dsl.pipeline(name="resources")
    def resources(cpu: str = "1"):
        with dsl.ParallelFor(["a"]) as item:
            task = work(text=item).set_cpu_limit(cpu)
            if registered:
                task.register_pipeline_channels([cpu])

    path = tmp_path / "package.yaml"
    compiler.Compiler().compile(resources, str(path))
    rules = [finding.rule for finding in lint(path)]
    assert rules == ([] if registered else ["resource-parameter"])


def test_a_lightweight_component_of_python_is_refused_for_its_tag_only(tmp_path):
    @dsl.component
    def hello(name: str) -> str:
        return name

    @dsl.pipeline(name="light")
    def light(name: str = "x") -> str:
        return hello(name=name).output

    path = tmp_path / "package.yaml"
    compiler.Compiler().compile(light, str(path))
    assert [finding.rule for finding in lint(path)] == ["image-without-digest"]


@pytest.mark.parametrize(("name", "code"), [("good", 0), ("cycle", 1)])
def test_the_task_ends_with_one_where_there_is_a_fault(name, code):
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "lint", str(BROKEN / f"{name}.yaml"), "--json"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert [finding["rule"] for finding in json.loads(done.stdout)["findings"]] == ["cycle"] * code
