"""What a task is handed: values, artifacts and names of claims, found in the DAG around it.

Source: backend/src/v2/driver/resolve.go of kubeflow/pipelines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import PipelineError
from pipeline.run.record import DONE
from pipeline.spec import kubernetes, names, placeholders, values

Artifacts = Mapping[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Outcome:
    """How a task ended and what it gives."""

    state: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Artifacts = field(default_factory=dict)
    error: str = ""


class _NoValue(Exception):  # noqa: N818 - decides between a default and a failure
    """An input's source gives nothing; the message says which."""


@dataclass(frozen=True)
class Scope:
    """What the inputs of a DAG's tasks are taken from: the DAG's own inputs, and its other tasks.

    `before` maps a task that has ended to its outcome, `facts` are those of the run and the task.
    """

    parameters: Mapping[str, Any]
    artifacts: Artifacts
    before: Mapping[str, Outcome]
    facts: Mapping[str, str]


def parameters(
    task: Mapping[str, Any], definitions: Mapping[str, Any], scope: Scope
) -> dict[str, Any]:
    """Return the values of a task's inputs, in the order of their names.

    `definitions` are the component's inputDefinitions. Raises PipelineError for an input that
    needs a value and has none, and for a value of another type.
    """
    sources = task.get("inputs", {}).get("parameters", {})
    item = task.get("parameterIterator", {}).get("itemInput")
    declared = definitions.get("parameters", {})
    found: dict[str, Any] = {}
    # Constants last: their placeholders name other inputs of the same task. Inputs that the
    # component does not declare carry channels for those, and for resources.
    wanted = {*declared, *sources} - {item}
    for name in sorted(wanted, key=lambda name: ("runtimeValue" in sources.get(name, {}), name)):
        definition = declared.get(name, {"isOptional": True})
        source = sources.get(name, {})
        try:
            value = _value(source, scope)
        except _NoValue as why:
            if "defaultValue" in definition:
                value = definition["defaultValue"]
            elif definition.get("isOptional"):
                continue
            else:
                raise PipelineError(
                    f"the input {name!r} has no value ({why}); give it one, or a default"
                ) from None
        if "runtimeValue" in source:
            value = placeholders.filled(value, found, scope.facts)
        found[name] = values.coerce(value, definition.get("parameterType", ""), name)
    return dict(sorted(found.items()))


def _value(source: Mapping[str, Any], scope: Scope) -> Any:
    """Return what an input's source gives; raises _NoValue where it is nothing."""
    if "runtimeValue" in source:
        value = source["runtimeValue"].get("constant")
    elif "componentInputParameter" in source:
        name = source["componentInputParameter"]
        if name not in scope.parameters:
            raise _NoValue(f"the pipeline around it was given no {name!r}")
        value = scope.parameters[name]
    elif "taskFinalStatus" in source:
        producer = source["taskFinalStatus"]["producerTask"]
        value = {
            "state": "COMPLETE" if scope.before[producer].state in DONE else "FAILED",
            "error": {},  # the backend's driver leaves it empty
            "pipelineJobResourceName": scope.facts["pipeline_job_resource_name"],
            "pipelineTaskName": producer,
        }
    elif "taskOutputParameter" in source:
        output = source["taskOutputParameter"]
        end = scope.before[output["producerTask"]]
        value = _made(output["producerTask"], end, end.parameters, output["outputParameterKey"])
    else:
        raise _NoValue("nothing gives it")
    if expression := source.get("parameterExpressionSelector"):
        value = values.select(value, expression)
    return value


def artifacts(
    task: Mapping[str, Any], definitions: Mapping[str, Any], scope: Scope
) -> dict[str, list[dict[str, Any]]]:
    """Return the artifacts of a task's inputs; raises PipelineError for a needed one without any.

    `definitions` are the component's inputDefinitions.
    """
    sources = task.get("inputs", {}).get("artifacts", {})
    item = task.get("artifactIterator", {}).get("itemInput")
    found = {}
    for name, definition in definitions.get("artifacts", {}).items():
        if name == item:
            continue
        try:
            found[name] = _entries(sources.get(name, {}), scope)
        except _NoValue as why:
            if not definition.get("isOptional"):
                raise PipelineError(
                    f"the input artifact {name!r} has no value ({why}); give it one"
                ) from None
    return found


def check_lists(task: Mapping[str, Any], definitions: Mapping[str, Any], given: Artifacts) -> None:
    """Raise PipelineError where a nested pipeline gets a list of artifacts of more than one.

    The backend hands on one of them (seen with 2.17.0), so the rest would be lost without a word.
    """
    looped = task.get("artifactIterator", {}).get("items", {}).get("inputArtifact")
    for name, definition in definitions.get("artifacts", {}).items():
        if definition.get("isArtifactList") and name != looped and len(given.get(name, [])) > 1:
            raise PipelineError(
                f"the list of artifacts {name!r} has {len(given[name])} and goes into a nested "
                "pipeline, a loop or a condition, where the backend hands on one; hand it to the "
                "task itself, outside of them"
            )


def _entries(source: Mapping[str, Any], scope: Scope) -> list[dict[str, Any]]:
    if "taskOutputArtifact" in source:
        output = source["taskOutputArtifact"]
        end = scope.before[output["producerTask"]]
        entries: list[dict[str, Any]] = _made(
            output["producerTask"], end, end.artifacts, output["outputArtifactKey"]
        )
        return entries
    if "componentInputArtifact" in source:
        name = source["componentInputArtifact"]
        if name not in scope.artifacts:
            raise _NoValue(f"the pipeline around it was given no {name!r}")
        return scope.artifacts[name]
    raise _NoValue("nothing gives it")


def _made(producer: str, end: Outcome, outputs: Mapping[str, Any], key: str) -> Any:
    """Return an output of a task; raises _NoValue where the task was skipped or failed.

    One that ended well without the output fails who asks, as in the backend's drivers, whatever
    the default: raises PipelineError.
    """
    if key in outputs:
        return outputs[key]
    if end.state in DONE:
        raise PipelineError(
            f"{producer} gave no {key!r} to whom it is handed: a loop without rounds or a branch "
            "that did not run makes none; loop over one item at least, or return dsl.OneOf"
        )
    raise _NoValue(f"{producer} was {end.state}")


def settings(found: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
    """Return a container's Kubernetes settings with the names of its claims and secrets.

    Raises PipelineError for a name without a value, and for one that Kubernetes does not allow.
    """
    made = {key: list(found.get(key, [])) for key in kubernetes.NAMED}
    for key, kind in kubernetes.NAMED.items():
        check = names.subdomain if key == "secretAsEnv" else names.label
        for index, entry in enumerate(made[key]):
            try:
                name = str(_value(kubernetes.source(entry, kind), scope))
            except _NoValue as why:
                raise PipelineError(f"the {kind} has no value ({why}); give it one") from None
            made[key][index] = {**entry, "name": check(f"the {kind}", name)}
    return {**found, **made}


def outputs(
    declared: Mapping[str, Any], outcomes: Mapping[str, Outcome]
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Return what a DAG gives out of its tasks' outcomes; what was skipped is left out."""
    parameters: dict[str, Any] = {}
    for name, source in declared.get("parameters", {}).items():
        one = source.get("valueFromParameter")
        selectors = [one] if one else source["valueFromOneof"]["parameterSelectors"]
        for selector in selectors:
            given = outcomes[selector["producerSubtask"]].parameters
            if selector["outputParameterKey"] in given:
                parameters[name] = given[selector["outputParameterKey"]]
                break
    artifacts: dict[str, list[dict[str, Any]]] = {}
    for name, source in declared.get("artifacts", {}).items():
        for selector in source.get("artifactSelectors", []):
            made = outcomes[selector["producerSubtask"]].artifacts
            if selector["outputArtifactKey"] in made:
                artifacts[name] = made[selector["outputArtifactKey"]]
                break
    return parameters, artifacts
