"""The suite as compiled packages, by the names of their cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.kubeflow.conformance.suite.case import Case
from pipeline.spec.package import Package, load
from pipeline.spec.sdk import compiler


@dataclass(frozen=True, slots=True)
class Packaged:
    """A case and its compiled package."""

    name: str
    case: Case
    package: Package


def language(image: str) -> dict[str, Case]:
    """Return name -> case of all that a package can be run with alone."""
    from pipeline.kubeflow.conformance.suite import artifacts, graph, values
    from pipeline.kubeflow.conformance.suite.components import components

    steps = components(image)
    return values.cases(steps) | artifacts.cases(steps) | graph.cases(steps)


def everything(image: str, claim: str, secret: str, mark: str) -> dict[str, Case]:
    """Return name -> case of the whole suite; see `cluster.cases` for what the names are of."""
    from pipeline.kubeflow.conformance.suite import cluster
    from pipeline.kubeflow.conformance.suite.components import components

    return language(image) | cluster.cases(components(image), claim, secret, mark)


def chosen(cases: Mapping[str, Case], only: str) -> dict[str, Case]:
    """Return the cases of which `only` names a part, separated by commas; all without it.

    Raises PipelineError for a part that is in no name.
    """
    parts = [part.strip() for part in only.split(",") if part.strip()]
    for part in parts:
        if not any(part in name for name in cases):
            raise PipelineError(f"no case is named {part!r}; there are: {', '.join(cases)}")
    return {n: case for n, case in cases.items() if not parts or any(p in n for p in parts)}


def compiled(cases: Mapping[str, Case], folder: Path) -> list[Packaged]:
    """Compile every case into `folder`."""
    kfp, made = compiler(), []
    for number, (name, case) in enumerate(cases.items()):
        path = folder / f"{number}.yaml"
        kfp.compile(case.pipeline, str(path))
        made.append(Packaged(name, case, load(path)))
    return made
