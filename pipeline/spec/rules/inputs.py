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
        lack.add(("artifacts", name))
        if not definition.get("isOptional"):
            yield Finding(
                f"root.{name}", "missing-input",
                "a run can be given parameters only, no artifact; take it in by dsl.importer",
            )  # fmt: skip
    yield from _Walk(package).dag("root", root, frozenset(lack))


class _Walk:
    """Goes once through each component and each set of inputs that it lacks."""

    def __init__(self, package: Package) -> None:
        self.components = package.spec.get("components", {})
        self.seen: set[tuple[str, _Lack]] = set()

    def dag(self, name: str, component: Mapping[str, Any], lack: _Lack) -> Found:
        if (name, lack) in self.seen:
            return
        self.seen.add((name, lack))
        for key, task in component["dag"].get("tasks", {}).items():
            called = task.get("componentRef", {}).get("name", "")
            inner = self.components.get(called)
            if inner is None:
                continue
            lacks = set()
            for kind in ("parameters", "artifacts"):
                sources = task.get("inputs", {}).get(kind, {})
                definitions = declared(inner, "inputs", kind)
                missing = {n for n, source in sources.items() if _from(source, kind) & lack}
                constants = {
                    n: constant_inputs(source.get("runtimeValue", {}).get("constant"))
                    for n, source in sources.items()
                }
                unfilled = {n: used & missing for n, used in constants.items() if used & missing}
                for n in sorted({*missing, *unfilled}):
                    if n in unfilled or not _may_lack(definitions.get(n, {"isOptional": True})):
                        yield _nothing(f"{name}.{key}.{n}", sorted(unfilled.get(n, {n})))
                lacks |= {
                    (kind, n)
                    for n, definition in definitions.items()
                    if definition.get("isOptional") and "defaultValue" not in definition
                    if n in missing or n not in sources
                }
            items = {task.get(f"{kind}Iterator", {}).get("itemInput") for kind in _ITERATORS}
            if "dag" in inner:
                lacks = {one for one in lacks if one[1] not in items}
                yield from self.dag(called, inner, frozenset(lacks))


def _may_lack(definition: Mapping[str, Any]) -> bool:
    return bool(definition.get("isOptional")) or "defaultValue" in definition


_ITERATORS = ("parameter", "artifact")


def _from(source: Mapping[str, Any], kind: str) -> _Lack:
    name = source.get(f"componentInput{kind[:-1].capitalize()}")
    return frozenset({(kind, name)} if name else ())


def _nothing(where: str, names: list[str]) -> Finding:
    return Finding(
        where, "missing-input",
        f"a run that leaves out an optional parameter gives no value to {', '.join(names)}, which "
        "is needed here; give that parameter a default, or make this input optional",
    )  # fmt: skip
