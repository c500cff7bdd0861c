"""What stands in a container's command and arguments, and what KFP 2.17 makes of it.

Its driver fills in parameters, and the launcher the rest: backend/src/v2/driver/util.go
(resolveContainerArgs) and component/launcher_v2.go of kubeflow/pipelines. Each rule was seen with
the two programs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.spec import placeholders
from pipeline.spec.package import Package, dags
from pipeline.spec.rules.finding import Finding, Found, declared


def check_arguments(package: Package) -> Found:
    """Yield what a step would be handed as a literal, and what fails the driver."""
    executors = package.spec["deploymentSpec"].get("executors", {})
    for label, executor in executors.items():
        for where, word in words(executor.get("container", {})):
            yield from _literal(f"{label}.{where}", word)
    for name, component in dags(package):
        for key, task in component["dag"].get("tasks", {}).items():
            called = task.get("componentRef", {}).get("name")
            inner = package.spec.get("components", {}).get(called, {})
            container = executors.get(inner.get("executorLabel"), {}).get("container", {})
            yield from _left_out(f"{name}.{key}", task, inner, container)


def words(container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the place and the text of each word of a container's command line."""
    for part in ("command", "args"):
        for index, word in enumerate(container.get(part, [])):
            yield f"{part}[{index}]", word


def _literal(where: str, word: str) -> Found:
    if '"Concat"' in json.dumps(placeholders.structure(word)):
        yield Finding(
            where, "concat-placeholder",
            f"the backend hands the step {word[:60]!r} as it stands here; let the program join the "
            "words, or write them into one word, as in f\"{a}-{b}\"",
        )  # fmt: skip
    for found in placeholders.find(word):
        if found.field == "metadata":
            yield Finding(
                where, "literal-placeholder",
                f"the backend leaves {found.text} as it is here; hand the value on as a parameter, "
                "or read the metadata from the executor input",
            )  # fmt: skip


def _left_out(
    where: str, task: Mapping[str, Any], component: Mapping[str, Any], container: Mapping[str, Any]
) -> Found:
    """The driver knows no defaults; a word with an output is the launcher's, which knows them."""
    given = task.get("inputs", {}).get("parameters", {})
    left = {
        name
        for name, definition in declared(component, "inputs", "parameters").items()
        if name not in given and "defaultValue" in definition
    }
    used = {
        found.name
        for _, word in words(container)
        if "$.outputs" not in word
        for found in placeholders.find(word)
        if (found.side, found.kind) == ("inputs", "parameters")
    }
    for name in sorted(left & used):
        yield Finding(
            f"{where}.{name}", "default-in-argument",
            f"the driver fills in the command line and does not know the component's default of "
            f"{name}: it fails, or takes an IfPresent for absent; give {name} where the task is "
            "called",
        )  # fmt: skip
