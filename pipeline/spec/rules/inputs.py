"""Whether every input that a component needs has a value in the run, however deep it is nested.

An optional input that is left out is no value: handed on to an input that is required, it fails
the backend's driver in the middle of a run (backend/src/v2/driver/resolve.go of kubeflow/pipelines:
"neither value nor default value provided for non-optional parameter").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.spec.package import Package
from pipeline.spec.rules.finding import Finding, Found, declared
from pipeline.spec.rules.wiring import constant_inputs

_Lack = frozenset[tuple[str, str]]  # parameters or artifacts, and the name


def check_inputs(package: Package, given: Mapping[str, Any] | None = None) -> Found:
    """Yield the inputs that get no value in a run with the parameters `given`.

    Without `given`: those that get none in a run that leaves out all that may be left out.
    """
    root = package.spec["root"]
    lack = set()
    for name, definition in declared(root, "inputs", "parameters").items():
        if given is None:
            left_out = definition.get("isOptional") and "defaultValue" not in definition
        else:
            left_out = name not in given
        if left_out:
            lack.add(("parameters", name))
    for name, definition in declared(root, "inputs", "artifacts").items():
        if definition.get("isOptional"):
            lack.add(("artifacts", name))
        else:
            yield Finding(
                f"root.{name}", "missing-input",
                "a run can be given parameters only, no artifact; take it in by dsl.importer",
            )  # fmt: skip
    components = package.spec.get("components", {})
    todo, seen = [("root", frozenset(lack))], set()
    while todo:  # each component once with each set of inputs that it lacks
        place = todo.pop()
        if place in seen:
            continue
        seen.add(place)
        name, lacking = place
        component = root if name == "root" else components[name]
        for key, task in component["dag"].get("tasks", {}).items():
            called = task.get("componentRef", {}).get("name", "")
            if called in components:
                found, lacks = _task(f"{name}.{key}", task, components[called], lacking)
                yield from found
                if "dag" in components[called]:
                    todo.append((called, lacks))


def _task(
    where: str, task: Mapping[str, Any], component: Mapping[str, Any], lack: _Lack
) -> tuple[list[Finding], _Lack]:
    """Return what is wrong with the inputs of a task, and which of its component's have no value.

    `lack` are the inputs without a value of the DAG around it.
    """
    faults: list[Finding] = []
    lacks: set[tuple[str, str]] = set()
    items = {task.get(f"{kind}Iterator", {}).get("itemInput") for kind in ("parameter", "artifact")}
    for kind in ("parameters", "artifacts"):
        sources = task.get("inputs", {}).get(kind, {})
        definitions = declared(component, "inputs", kind)
        missing = {name for name, source in sources.items() if _from(source, kind) & lack}
        unfilled = {}
        for name, source in sources.items():
            used = constant_inputs(source.get("runtimeValue", {}).get("constant"))
            if used & missing:
                unfilled[name] = used & missing
        faults += [
            _nothing(f"{where}.{name}", sorted(unfilled.get(name, {name})))
            for name in sorted({*missing, *unfilled})
            if name in unfilled or not _may_lack(definitions.get(name, {"isOptional": True}))
        ]
        lacks |= {
            (kind, name)
            for name, definition in definitions.items()
            if definition.get("isOptional") and "defaultValue" not in definition
            if name not in items and (name in missing or name not in sources)
        }
    return faults, frozenset(lacks)


def _may_lack(definition: Mapping[str, Any]) -> bool:
    return bool(definition.get("isOptional")) or "defaultValue" in definition


def _from(source: Mapping[str, Any], kind: str) -> _Lack:
    name = source.get(f"componentInput{kind[:-1].capitalize()}")
    return frozenset({(kind, name)} if name else ())


def _nothing(where: str, names: list[str]) -> Finding:
    return Finding(
        where, "missing-input",
        f"a run that leaves out an optional input gives no value to {', '.join(names)}, which is "
        "needed here; give the optional one a default, or make this one optional",
    )  # fmt: skip
