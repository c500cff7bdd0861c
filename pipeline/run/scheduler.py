"""Tasks in the order that their inputs allow: DAGs, conditions, loops and exit tasks."""

from __future__ import annotations

import json
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
from pipeline.spec import kubernetes, names, values
from pipeline.spec.dependencies import producers

Artifacts = Mapping[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Outcome:
    """How a task ended and what it gives. `blocked`: skipped because something before it failed."""

    state: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Artifacts = field(default_factory=dict)
    error: str = ""
    blocked: bool = False


class Missing(Exception):  # noqa: N818 - decides between a default and a skip
    """An input's producer was skipped or failed."""


def _together(work: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=each, daemon=True) for each in work]
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
        uri = source.get("constant") or parameters[source["runtimeParameter"]]
        names.imported(uri)
        metadata = importer.get("metadata", {})
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
            if end.state == "skipped" or (end.state == "stopped" and prefix + name in record.steps):
                record.update(prefix + name, state=end.state, after=waited)
            ends[name].set_result(end)

        _together([lambda name=name: work(name) for name in dag["tasks"]])  # type: ignore[misc]
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
        bad = [end for end in before.values() if end.state not in DONE]
        if not always and any(end.state != "skipped" or end.blocked for end in bad):
            return Outcome("skipped", blocked=True)
        if self.around.stop.is_set():
            raise Stopped
        definitions = self.spec["components"][task["componentRef"]["name"]].get(
            "inputDefinitions", {}
        )
        try:
            given = self._parameters(task, definitions, parameters, before)
            have = self._artifacts(task, definitions, arts, before)
        except Missing:
            return Outcome("skipped", blocked=any(end.blocked for end in bad))
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
            items = values.whole(json.loads(items) if isinstance(items, str) else items)
            if not isinstance(items, list):
                raise PipelineError(f"{name}: it loops over {items!r}, which is not a list")
            rounds = [({**given, iterator["itemInput"]: item}, have) for item in items]
        else:
            iterator = task["artifactIterator"]
            entries = have[iterator["items"]["inputArtifact"]]
            rounds = [(given, {**have, iterator["itemInput"]: [entry]}) for entry in entries]
        limit = int(task.get("iteratorPolicy", {}).get("parallelismLimit", 0)) or len(rounds)
        gate = threading.Semaphore(max(1, limit))
        ends: list[Outcome] = [Outcome("stopped")] * len(rounds)

        def work(index: int) -> None:
            with gate:
                try:
                    ends[index] = self._component(
                        task, f"{name}.{index}", *rounds[index], {}, after
                    )
                except Stopped:
                    pass
                except (PipelineError, BuilderError, OSError) as error:
                    ends[index] = Outcome("failed", error=str(error))
                except BaseException as error:  # noqa: BLE001
                    ends[index] = Outcome("failed", error=f"{name}.{index}: {error!r}")

        _together([lambda i=i: work(i) for i in range(len(rounds))])  # type: ignore[misc]
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
        outer: Mapping[str, Any], before: Mapping[str, Outcome],
    ) -> dict[str, Any]:  # fmt: skip
        sources = task.get("inputs", {}).get("parameters", {})
        item = task.get("parameterIterator", {}).get("itemInput")
        declared = definitions.get("parameters", {})
        found: dict[str, Any] = {}
        # Constants last: their placeholders name other inputs of the same task. Inputs that the
        # component does not declare carry channels for those, and for resources.
        names = sorted(
            {*declared, *sources}, key=lambda name: "runtimeValue" in sources.get(name, {})
        )
        for name in names:
            if name == item:
                continue
            definition = declared.get(name, {"isOptional": True})
            try:
                value = self._value(sources[name], outer, before)
            except (Missing, KeyError):
                if "defaultValue" in definition:
                    value = definition["defaultValue"]
                elif definition.get("isOptional"):
                    continue
                elif name not in sources:
                    raise PipelineError(f"the input {name!r} has no value") from None
                else:
                    raise Missing from None
            if "runtimeValue" in sources.get(name, {}):
                value = values.filled(value, found)
            kind = definition.get("parameterType", "")
            found[name] = values.coerce(value, kind, name)
        return found

    def _value(
        self, source: Mapping[str, Any], outer: Mapping[str, Any], before: Mapping[str, Outcome]
    ) -> Any:
        if "runtimeValue" in source:
            value = source["runtimeValue"].get("constant")
            if isinstance(value, str):
                for fact, inner in self.around.facts.items():
                    value = value.replace(f"{{{{$.{fact}}}}}", inner)
        elif "componentInputParameter" in source:
            value = outer[source["componentInputParameter"]]
        elif "taskFinalStatus" in source:
            end = before[source["taskFinalStatus"]["producerTask"]]
            value = {
                "state": "SUCCEEDED" if end.state in DONE else "FAILED",
                "error": {"code": 9, "message": end.error} if end.error else {},
                "pipelineJobResourceName": self.around.facts["pipeline_job_resource_name"],
                "pipelineTaskName": source["taskFinalStatus"]["producerTask"],
            }
        else:
            output = source["taskOutputParameter"]
            end = before[output["producerTask"]]
            if output["outputParameterKey"] not in end.parameters:
                raise Missing
            value = end.parameters[output["outputParameterKey"]]
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
                made[key][index] = {**entry, "name": str(self._value(source, outer, before))}
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
            entries = None
            if "componentInputArtifact" in source:
                entries = outer.get(source["componentInputArtifact"])
            elif "taskOutputArtifact" in source:
                output = source["taskOutputArtifact"]
                entries = before[output["producerTask"]].artifacts.get(output["outputArtifactKey"])
            if entries is not None:
                found[name] = entries
            elif name != item and not definition.get("isOptional"):
                raise Missing
        return found


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
