"""Whether everything in a package that refers to something finds it.

A task's input resolves in the DAG around the task: source api/v2alpha1/pipeline_spec.proto and
backend/src/v2/driver of kubeflow/pipelines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.errors import PipelineError
from pipeline.spec import placeholders
from pipeline.spec.dependencies import circle, producers, sequence
from pipeline.spec.documents import load_json
from pipeline.spec.package import Package, dags
from pipeline.spec.rules.finding import Finding, Found, declared, texts


def check_wiring(package: Package) -> Found:
    """Yield what leads nowhere, in the DAG around each task, and tasks that wait for each other."""
    executors = package.spec["deploymentSpec"].get("executors", {})
    for name, component in package.spec.get("components", {}).items():
        label = component.get("executorLabel")
        if "dag" not in component and label not in executors:
            yield Finding(
                name, "missing-executor",
                f"its executor {label!r} is not in deploymentSpec.executors; compile again",
            )  # fmt: skip
    for name, component in dags(package):
        tasks = component["dag"].get("tasks", {})
        for key, task in tasks.items():
            yield from _task(package, component, f"{name}.{key}", task)
        yield from _cycle(name, tasks)
        yield from _dag_outputs(package, name, component)
    yield from _nesting(package)


_MOST_TASKS = 10_000
_DEEPEST = 50


def _nesting(package: Package) -> Found:
    """Check that no pipeline holds itself, and that what all of them unfold to has a bound."""
    inner = {
        name: [
            task.get("componentRef", {}).get("name", "")
            for task in component["dag"].get("tasks", {}).values()
        ]
        for name, component in dags(package)
    }
    calls = {name: [n for n in called if n in inner] for name, called in inner.items()}
    if found := circle(calls):
        yield Finding(
            found[0], "cycle",
            f"a pipeline holds itself: {' -> '.join(found)}; take one of them out",
        )  # fmt: skip
        return
    sizes: dict[str, int] = {}
    depths: dict[str, int] = {}
    for name in sequence(calls):
        sizes[name] = len(inner[name]) + sum(sizes[n] for n in calls[name])
        depths[name] = 1 + max((depths[n] for n in calls[name]), default=0)
    if depths["root"] > _DEEPEST:
        yield Finding(
            "root", "too-many-tasks",
            f"its pipelines are nested {depths['root']:,} deep, at most {_DEEPEST} are run; "
            "flatten them",
        )  # fmt: skip
    if sizes["root"] > _MOST_TASKS:
        yield Finding(
            "root", "too-many-tasks",
            f"its pipelines unfold to {sizes['root']:,} tasks, at most {_MOST_TASKS:,} are run; "
            "use a loop, or split it",
        )  # fmt: skip


def _task(package: Package, outer: Mapping[str, Any], where: str, task: Mapping[str, Any]) -> Found:
    called = task.get("componentRef", {}).get("name")
    component = package.spec.get("components", {}).get(called)
    if component is None:
        yield Finding(
            where, "missing-component",
            f"it runs the component {called!r}, which is not in components; compile again",
        )  # fmt: skip
        return
    if task.get("cachingOptions", {}).get("cacheKey"):
        yield Finding(
            where, "cache-key",
            "a custom cache key ignores image and inputs: results of another image would be "
            "taken; remove cache_key from set_caching_options",
        )  # fmt: skip
    tasks = outer["dag"].get("tasks", {})
    for other in task.get("dependentTasks", []):
        if other not in tasks:
            yield _missing_producer(where, other)
    executor = package.spec["deploymentSpec"].get("executors", {}).get(
        component.get("executorLabel"), {}
    )  # fmt: skip
    resources = {
        found.name
        for _, text in texts(executor.get("container", {}).get("resources", {}))
        for found in placeholders.find(text)
        if found.side
    }
    given = task.get("inputs", {})
    for kind in ("parameters", "artifacts"):
        for name, source in given.get(kind, {}).items():
            rule = "resource-parameter" if name in resources else "missing-input"
            place = f"{where}.{name}"
            yield from _source(package, outer, place, source, kind, rule)
    for name in sorted(resources - given.get("parameters", {}).keys()):
        yield _unreachable(where, name, "resource-parameter")
    yield from _complete(where, task, component)
    yield from _expressions(where, task)
    settings = package.kubernetes.get(component.get("executorLabel", ""), {})
    for path, source in _sources(settings, "kubernetes"):
        place = f"{where}.{path}"
        yield from _source(package, outer, place, source, "parameters", "missing-input")


def _source(
    package: Package, outer: Mapping[str, Any], where: str, source: Mapping[str, Any], kind: str,
    rule: str,
) -> Found:  # fmt: skip
    """Check that one input's source is there, in the DAG around its task."""
    one = kind[:-1].capitalize()
    name = source.get(f"componentInput{one}")
    if name is not None:
        if name not in declared(outer, "inputs", kind):
            yield _unreachable(where, name, rule)
        return
    output = source.get(f"taskOutput{one}") or source.get("taskFinalStatus")
    if output is None:
        if "runtimeValue" not in source:
            yield Finding(where, "missing-input", "it comes from nowhere; compile again")
        return
    tasks = outer["dag"].get("tasks", {})
    producer = output.get("producerTask")
    if producer not in tasks:
        yield _missing_producer(where, producer)
    elif "taskFinalStatus" not in source:
        yield from _output(package, where, tasks[producer], output, kind)


def _output(
    package: Package, where: str, producer: Mapping[str, Any], output: Mapping[str, Any], kind: str
) -> Found:
    name = output.get(f"output{kind[:-1].capitalize()}Key")
    called = producer.get("componentRef", {}).get("name")
    component = package.spec.get("components", {}).get(called)
    if component is not None and name not in declared(component, "outputs", kind):
        yield Finding(
            where, "missing-output",
            f"{called} has no output {kind[:-1]} {name!r}; declare it, or mend the name",
        )  # fmt: skip


def _unreachable(where: str, name: str, rule: str) -> Finding:
    if rule == "resource-parameter":
        return Finding(
            where, rule,
            f"the resource parameter {name!r} does not reach this sub-DAG, so the pod would not "
            "start; call task.register_pipeline_channels([parameter]), or use a constant",
        )  # fmt: skip
    return Finding(
        where, rule,
        f"the pipeline around it has no input {name!r}; pass it down as an argument of that part",
    )  # fmt: skip


def _missing_producer(where: str, producer: str | None) -> Finding:
    return Finding(
        where, "missing-producer",
        f"it waits for the task {producer!r}, which is not in the same DAG; compile again, or "
        "return the value from the sub-pipeline that makes it",
    )  # fmt: skip


def _complete(where: str, task: Mapping[str, Any], component: Mapping[str, Any]) -> Found:
    """Check that every input that the component needs is given."""
    items = {
        task.get(iterator, {}).get("itemInput")
        for iterator in ("parameterIterator", "artifactIterator")
    }
    for kind in ("parameters", "artifacts"):
        for name, definition in declared(component, "inputs", kind).items():
            optional = definition.get("isOptional") or "defaultValue" in definition
            if (
                not optional
                and name not in items
                and name not in task.get("inputs", {}).get(kind, {})
            ):
                yield Finding(
                    f"{where}.{name}", "missing-input",
                    "the component needs this input and nothing gives it; pass it to the task, or "
                    "give it a default",
                )  # fmt: skip


def constant_inputs(constant: Any) -> set[str]:
    """Return the inputs of the same task that a constant's placeholders name."""
    return {
        found.name for _, text in texts(constant) for found in placeholders.find(text) if found.side
    }


_NAMED = re.compile(r"inputs\.parameter_values\[(['\"])(.+?)\1\]")


def _expressions(where: str, task: Mapping[str, Any]) -> Found:
    """Check the names in conditions, loops and constants: they are inputs of the task itself."""
    given = task.get("inputs", {}).get("parameters", {})
    named = {
        match[2] for match in _NAMED.finditer(task.get("triggerPolicy", {}).get("condition", ""))
    }
    for source in given.values():
        constant = source.get("runtimeValue", {}).get("constant")
        named |= constant_inputs(constant)
    items = task.get("parameterIterator", {}).get("items", {})
    named |= {items["inputParameter"]} if "inputParameter" in items else set()
    for name in sorted(named - given.keys()):
        yield Finding(
            where, "missing-input",
            f"it uses {name!r}, which is none of its inputs; compile again",
        )  # fmt: skip
    if "raw" in items and not _is_list(items["raw"]):
        yield Finding(
            where,
            "wrong-type",
            f"it loops over {items['raw']!r}, which is no JSON list; give a list",
        )


def _is_list(raw: str) -> bool:
    try:
        return isinstance(load_json(raw, "the loop"), list)
    except PipelineError:
        return False


def _sources(node: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the input specs within Kubernetes settings: they resolve in the enclosing DAG."""
    kinds = {"componentInputParameter", "taskOutputParameter"}
    if isinstance(node, Mapping):
        if kinds & node.keys():
            yield path, node
        for key, inner in node.items():
            yield from _sources(inner, f"{path}.{key}")
    elif isinstance(node, list):
        for index, inner in enumerate(node):
            yield from _sources(inner, f"{path}[{index}]")


def _cycle(name: str, tasks: Mapping[str, Any]) -> Found:
    if found := circle({key: producers(task) for key, task in tasks.items()}):
        yield Finding(
            name,
            "cycle",
            f"tasks wait for each other: {' -> '.join(found)}; remove one dependency",
        )


def _dag_outputs(package: Package, name: str, component: Mapping[str, Any]) -> Found:
    dag = component["dag"]
    tasks, outputs = dag.get("tasks", {}), dag.get("outputs", {})
    for kind in ("parameters", "artifacts"):
        for key, source in outputs.get(kind, {}).items():
            where = f"{name}.outputs.{key}"
            for selector in _selectors(source):
                producer = selector.get("producerSubtask")
                if producer not in tasks:
                    yield _missing_producer(where, producer)
                else:
                    yield from _output(package, where, tasks[producer], selector, kind)
        for key in declared(component, "outputs", kind).keys() - outputs.get(kind, {}).keys():
            yield Finding(
                f"{name}.outputs.{key}", "missing-producer",
                "it is declared and nothing gives it; return it from the pipeline function",
            )  # fmt: skip


def _selectors(source: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    one = source.get("valueFromParameter")
    several = source.get("valueFromOneof", {}).get("parameterSelectors", [])
    return [*([one] if one else []), *several, *source.get("artifactSelectors", [])]
