"""Tasks in the order that their inputs allow: DAGs, conditions, loops and exit tasks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from builder.errors import BuilderError
from pipeline.errors import PipelineError
from pipeline.run.record import DONE
from pipeline.run.step import attempts
from pipeline.run.step.context import RunContext, Stopped, Task
from pipeline.spec import kubernetes, names, placeholders, values
from pipeline.spec.dependencies import producers, sequence
from pipeline.spec.documents import load_json

_MOST_AT_ONCE = 64  # threads of one DAG or loop; `slots` bounds the steps that run
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


def _together(work: Sequence[Callable[[], None]], at_once: int) -> None:
    """Do all of `work`, `at_once` at most at the same time, in its order."""
    waiting = iter(work)
    lock = threading.Lock()

    def one_by_one() -> None:
        while True:
            with lock:
                each = next(waiting, None)
            if each is None:
                return
            each()

    threads = [
        threading.Thread(target=one_by_one, daemon=True) for _ in range(min(at_once, len(work)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@dataclass(frozen=True)
class Graph:
    """Runs the components of a pipeline spec."""

    spec: Mapping[str, Any]
    around: RunContext

    def root(self, parameters: Mapping[str, Any]) -> Outcome:
        """Run the whole pipeline with its parameters."""
        return self._dag(self.spec["root"], parameters, {}, "", ())

    def _component(
        self, task: Mapping[str, Any], name: str, parameters: Mapping[str, Any], arts: Artifacts,
        settings: Mapping[str, Any], after: tuple[str, ...],
    ) -> Outcome:  # fmt: skip
        component = self.spec["components"][task["componentRef"]["name"]]
        if "dag" in component:
            return self._dag(component, parameters, arts, f"{name}.", after)
        self.around.record.update(name, after=after)
        label = component["executorLabel"]
        executor = self.spec["deploymentSpec"]["executors"][label]
        if "importer" in executor:
            return self._import(name, component, executor["importer"], parameters)
        found = attempts.run(
            Task(name, component, settings, executor["container"], parameters, arts,
                 bool(task.get("cachingOptions", {}).get("enableCache")),
                 task.get("retryPolicy", {})),
            self.around,
        )  # fmt: skip
        return Outcome("succeeded", found["parameters"], found["artifacts"])

    def _import(
        self, name: str, component: Mapping[str, Any], importer: Mapping[str, Any],
        parameters: Mapping[str, Any],
    ) -> Outcome:  # fmt: skip
        source = importer["artifactUri"]
        uri = names.imported(str(source.get("constant") or parameters[source["runtimeParameter"]]))
        metadata = placeholders.filled(importer.get("metadata", {}), parameters)
        ((key, definition),) = component["outputDefinitions"]["artifacts"].items()
        entry = {"name": key, "uri": uri, "type": definition["artifactType"], "metadata": metadata}
        self.around.record.update(name, state="succeeded", artifacts={key: [entry]})
        return Outcome("succeeded", {}, {key: [entry]})

    def _dag(
        self, component: Mapping[str, Any], parameters: Mapping[str, Any], arts: Artifacts,
        prefix: str, after: tuple[str, ...],
    ) -> Outcome:  # fmt: skip
        """Run the tasks of a DAG; `after` is what the whole of it waited for."""
        dag = component["dag"]
        ends: dict[str, Future[Outcome]] = {name: Future() for name in dag["tasks"]}

        def work(name: str) -> None:
            task, record = dag["tasks"][name], self.around.record
            waited = tuple(prefix + key for key in producers(task)) or after
            try:
                before = {key: ends[key].result() for key in producers(task)}
                end = self._task(task, prefix + name, parameters, arts, before, waited)
            except Stopped:
                end = Outcome("stopped")
            except (PipelineError, BuilderError, OSError) as error:
                record.update(prefix + name, state="failed", error=str(error))
                end = Outcome("failed", error=str(error))
            except BaseException as error:  # noqa: BLE001 - a defect must not leave others waiting
                end = Outcome("failed", error=f"{prefix}{name}: {error!r}")
                record.update(prefix + name, state="failed", error=end.error)
            if end.state == "skipped" or (end.state == "stopped" and prefix + name in record.steps):
                record.update(prefix + name, state=end.state, after=waited)
            ends[name].set_result(end)

        waits = {key: producers(task) for key, task in dag["tasks"].items()}
        # Producers first: then each thread that waits for another waits for one that runs.
        _together([lambda name=name: work(name) for name in sequence(waits)], _MOST_AT_ONCE)  # type: ignore[misc]
        outcomes = {name: future.result() for name, future in ends.items()}
        given, made = outputs(dag.get("outputs", {}), outcomes)
        for state in ("stopped", "failed"):
            worst = [end for end in outcomes.values() if end.state == state]
            if worst:
                return Outcome(state, given, made, worst[0].error)
        return Outcome("succeeded", given, made)

    def _task(
        self, task: Mapping[str, Any], name: str, parameters: Mapping[str, Any], arts: Artifacts,
        before: Mapping[str, Outcome], after: tuple[str, ...],
    ) -> Outcome:  # fmt: skip
        policy = task.get("triggerPolicy", {})
        always = policy.get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
        if not always and any(end.state not in DONE for end in before.values()):
            return Outcome("skipped")  # `depends: x.Succeeded` of the backend's workflow
        if self.around.stop.is_set():
            raise Stopped
        definitions = self.spec["components"][task["componentRef"]["name"]].get(
            "inputDefinitions", {}
        )
        facts = placeholders.of_task(self.around.facts, name)
        given = self._parameters(task, definitions, parameters, before, facts)
        have = self._artifacts(task, definitions, arts, before)
        if "condition" in policy and not values.condition(policy["condition"], given):
            return Outcome("skipped")
        if "parameterIterator" in task or "artifactIterator" in task:
            return self._loop(task, name, given, have, parameters, after)
        settings = self._settings(task, parameters, before)
        return self._component(task, name, given, have, settings, after)

    def _loop(
        self, task: Mapping[str, Any], name: str, given: Mapping[str, Any], have: Artifacts,
        outer: Mapping[str, Any], after: tuple[str, ...],
    ) -> Outcome:  # fmt: skip
        rounds: list[tuple[Mapping[str, Any], Artifacts]]
        if iterator := task.get("parameterIterator"):
            source = iterator["items"]
            items = source.get("raw")
            if items is None:
                key = source["inputParameter"]
                items = given[key] if key in given else outer[key]
            if isinstance(items, str):
                items = load_json(items, f"{name}: the list that it loops over")
            items = values.whole(items)
            if not isinstance(items, list):
                raise PipelineError(f"{name}: it loops over {items!r}, which is not a list")
            rounds = [({**given, iterator["itemInput"]: item}, have) for item in items]
        else:
            iterator = task["artifactIterator"]
            entries = have[iterator["items"]["inputArtifact"]]
            rounds = [(given, {**have, iterator["itemInput"]: [entry]}) for entry in entries]
        limit = int(task.get("iteratorPolicy", {}).get("parallelismLimit", 0)) or _MOST_AT_ONCE
        ends: list[Outcome] = [Outcome("stopped")] * len(rounds)

        def work(index: int) -> None:
            try:
                ends[index] = self._component(task, f"{name}.{index}", *rounds[index], {}, after)
            except Stopped:
                pass
            except BaseException as error:  # noqa: BLE001 - the other rounds go on
                known = isinstance(error, PipelineError | BuilderError | OSError)
                why = str(error) if known else f"{name}.{index}: {error!r}"
                ends[index] = Outcome("failed", error=why)
                self.around.record.update(f"{name}.{index}", state="failed", error=why)

        if not rounds:
            return Outcome("succeeded")  # and gives nothing: the backend's drivers collect no lists
        _together(
            [lambda i=i: work(i) for i in range(len(rounds))],  # type: ignore[misc]
            min(max(1, limit), _MOST_AT_ONCE),
        )
        component = self.spec["components"][task["componentRef"]["name"]]
        declared = component.get("outputDefinitions", {})
        collected = {
            key: [end.parameters[key] for end in ends if key in end.parameters]
            for key in declared.get("parameters", {})
        }
        made = {
            key: [entry for end in ends for entry in end.artifacts.get(key, [])]
            for key in declared.get("artifacts", {})
        }
        for state in ("stopped", "failed"):
            worst = [end for end in ends if end.state == state]
            if worst:
                return Outcome(state, collected, made, worst[0].error)
        return Outcome("succeeded", collected, made)

    def _parameters(
        self, task: Mapping[str, Any], definitions: Mapping[str, Any],
        outer: Mapping[str, Any], before: Mapping[str, Outcome], facts: Mapping[str, str],
    ) -> dict[str, Any]:  # fmt: skip
        """Return the values of a task's inputs by name; raises PipelineError for one without."""
        sources = task.get("inputs", {}).get("parameters", {})
        item = task.get("parameterIterator", {}).get("itemInput")
        declared = definitions.get("parameters", {})
        found: dict[str, Any] = {}
        # Constants last: their placeholders name other inputs of the same task. Inputs that the
        # component does not declare carry channels for those, and for resources.
        wanted = {*declared, *sources} - {item}
        for name in sorted(
            wanted, key=lambda name: ("runtimeValue" in sources.get(name, {}), name)
        ):
            definition = declared.get(name, {"isOptional": True})
            source = sources.get(name, {})
            try:
                value = self._value(source, outer, before)
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
                value = placeholders.filled(value, found, facts)
            found[name] = values.coerce(value, definition.get("parameterType", ""), name)
        return dict(sorted(found.items()))  # one order in all that a step is handed

    def _value(
        self, source: Mapping[str, Any], outer: Mapping[str, Any], before: Mapping[str, Outcome]
    ) -> Any:
        """Return what an input's source gives; raises _NoValue where it is nothing.

        A task that ended well without the output that is asked of it fails who asks, as in the
        backend's drivers, whatever the default.
        """
        if "runtimeValue" in source:
            value = source["runtimeValue"].get("constant")
        elif "componentInputParameter" in source:
            name = source["componentInputParameter"]
            if name not in outer:
                raise _NoValue(f"the pipeline around it was given no {name!r}")
            value = outer[name]
        elif "taskFinalStatus" in source:
            end = before[source["taskFinalStatus"]["producerTask"]]
            value = {
                "state": "COMPLETE" if end.state in DONE else "FAILED",
                "error": {},  # the backend's driver leaves it empty
                "pipelineJobResourceName": self.around.facts["pipeline_job_resource_name"],
                "pipelineTaskName": source["taskFinalStatus"]["producerTask"],
            }
        elif "taskOutputParameter" in source:
            output = source["taskOutputParameter"]
            value = _made(
                before, output["producerTask"], output["outputParameterKey"], "parameters"
            )
        else:
            raise _NoValue("nothing gives it")
        if expression := source.get("parameterExpressionSelector"):
            value = values.select(value, expression)
        return value

    def _settings(
        self, task: Mapping[str, Any], outer: Mapping[str, Any], before: Mapping[str, Outcome]
    ) -> Mapping[str, Any]:
        """Return the Kubernetes settings of a container, names resolved in the DAG around it."""
        component = self.spec["components"][task["componentRef"]["name"]]
        settings = self.around.kubernetes.get(component.get("executorLabel", ""), {})
        made = {key: list(settings.get(key, [])) for key in kubernetes.NAMED}
        for key, kind in kubernetes.NAMED.items():
            for index, entry in enumerate(made[key]):
                source = kubernetes.source(entry, kind)
                try:
                    name = str(self._value(source, outer, before))
                except _NoValue as why:
                    raise PipelineError(f"the {kind} has no value ({why}); give it one") from None
                check = names.subdomain if key == "secretAsEnv" else names.label
                made[key][index] = {**entry, "name": check(f"the {kind}", name)}
        return {**settings, **made}

    def _artifacts(
        self, task: Mapping[str, Any], definitions: Mapping[str, Any], outer: Artifacts,
        before: Mapping[str, Outcome],
    ) -> dict[str, list[dict[str, Any]]]:  # fmt: skip
        sources = task.get("inputs", {}).get("artifacts", {})
        item = task.get("artifactIterator", {}).get("itemInput")
        found = {}
        for name, definition in definitions.get("artifacts", {}).items():
            source = sources.get(name, {})
            try:
                if "taskOutputArtifact" in source:
                    output = source["taskOutputArtifact"]
                    found[name] = _made(
                        before, output["producerTask"], output["outputArtifactKey"], "artifacts"
                    )
                elif "componentInputArtifact" in source:
                    given = source["componentInputArtifact"]
                    if given not in outer:
                        raise _NoValue(f"the pipeline around it was given no {given!r}")
                    found[name] = outer[given]
                elif name != item:
                    raise _NoValue("nothing gives it")
            except _NoValue as why:
                if not definition.get("isOptional"):
                    raise PipelineError(
                        f"the input artifact {name!r} has no value ({why}); give it one"
                    ) from None
        return found


def _made(before: Mapping[str, Outcome], producer: str, key: str, kind: str) -> Any:
    """Return an output of a task; raises _NoValue where the task was skipped or failed.

    Raises PipelineError where it ended well and did not make it.
    """
    end = before[producer]
    found = getattr(end, kind)
    if key in found:
        return found[key]
    if end.state in DONE:
        raise PipelineError(
            f"{producer} gave no {key!r} to whom it is handed: a loop without rounds or a branch "
            "that did not run makes none; loop over one item at least, or return dsl.OneOf"
        )
    raise _NoValue(f"{producer} was {end.state}")


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
