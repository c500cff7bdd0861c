"""An input that is needed and gets no value is found before a run, however deep it is nested.

KFP reads these annotations as objects and knows no `str | None`.
"""

# ruff: noqa: UP045

from pathlib import Path
from typing import Optional

import pytest
from kfp import compiler, dsl

from pipeline.spec.lint import lint
from pipeline.spec.package import Package, load
from pipeline.spec.rules.inputs import check_inputs

IMAGE = "localhost/x@sha256:" + "0" * 64


@dsl.container_component
def need(text: str, said: dsl.OutputPath(str)):
    return dsl.ContainerSpec(IMAGE, ["echo"], [text, said])


@dsl.container_component
def may(text: str = "quiet", more: int = None):  # noqa: RUF013
    return dsl.ContainerSpec(IMAGE, ["echo"], [text])


@dsl.container_component
def read(one: dsl.Input[dsl.Dataset]):
    return dsl.ContainerSpec(IMAGE, ["cat"], [one.path])


@dsl.pipeline(name="handed-on")
def handed_on(t: Optional[str] = None):
    need(text=need(text=t).output)


@dsl.pipeline(name="inner")
def inner(t: Optional[str] = None):
    need(text=t)


@dsl.pipeline(name="nested")
def nested():
    inner()


@dsl.pipeline(name="deeper")
def deeper(t: Optional[str] = None):
    inner(t=t)


@dsl.pipeline(name="branch")
def branch(t: Optional[str] = None):
    with dsl.If(t == "go"):
        may(text="yes")
    with dsl.Else():
        may(text="no")


@dsl.pipeline(name="loop")
def loop(items: Optional[list] = None):
    with dsl.ParallelFor(items) as item:
        need(text=item)


@dsl.pipeline(name="formatted")
def formatted(t: Optional[str] = None):
    may(text=f"<{t}>")


@dsl.pipeline(name="artifact")
def artifact(data: dsl.Input[dsl.Dataset]):
    read(one=data)


@dsl.pipeline(name="fine")
def fine(t: Optional[str] = None, n: Optional[int] = None, name: str = "x"):
    may(text=t, more=n)
    inner(t=name)


def made(pipeline, folder: Path) -> tuple[Path, Package]:
    path = folder / "package.yaml"
    compiler.Compiler().compile(pipeline, str(path))
    return path, load(path)


LACKING = [
    (handed_on, "root.need.text"), (nested, "comp-inner.need.text"),
    (deeper, "comp-inner.need.text"),
    (branch, "root.condition-branches-1.pipelinechannel--t"),
    (loop, "root.for-loop-1.pipelinechannel--items"), (formatted, "root.may.text"),
    (artifact, "root.data"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pipeline", "where"), LACKING, ids=lambda value: getattr(value, "name", "")
)
def test_lint_finds_the_input_that_may_get_no_value(pipeline, where, tmp_path):
    path, _ = made(pipeline, tmp_path)
    found = lint(path)
    assert [finding.where for finding in found] == [where]
    assert {finding.rule for finding in found} == {"missing-input"}
    assert all(";" in finding.message for finding in found)


@pytest.mark.parametrize("pipeline", [handed_on, branch, formatted, deeper])
def test_a_run_that_gives_the_value_is_not_refused(pipeline, tmp_path):
    _, package = made(pipeline, tmp_path)
    assert list(check_inputs(package, {"t": "x"})) == []
    assert list(check_inputs(package, {})) != []


def test_optional_inputs_may_stay_without_a_value(tmp_path):
    path, package = made(fine, tmp_path)
    assert lint(path) == []
    assert list(check_inputs(package, {"name": "x"})) == []
