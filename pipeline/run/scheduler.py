"""Tasks in the order that their inputs allow: DAGs, conditions, loops and exit tasks."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from builder.errors import BuilderError
from pipeline.errors import PipelineError
from pipeline.run import inputs
from pipeline.run.inputs import Artifacts, Outcome, Scope
from pipeline.run.record import DONE
from pipeline.run.step import attempts
from pipeline.run.step.context import RunContext, Stopped, Task
from pipeline.spec import names, placeholders, values
from pipeline.spec.dependencies import producers, sequence
from pipeline.spec.documents import load_json

_MOST_AT_ONCE = 64  # threads of one DAG or loop; `slots` bounds the steps that run


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
        # Imported again it is another artifact; otherwise the one of the first import.
        entry["id"] = uuid.uuid4().hex if importer.get("reimport") else f"imported/{key}"
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
        given, made = inputs.outputs(dag.get("outputs", {}), outcomes)
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
        component = self.spec["components"][task["componentRef"]["name"]]
        definitions = component.get("inputDefinitions", {})
        scope = Scope(parameters, arts, before, placeholders.of_task(self.around.facts, name))
        given = inputs.parameters(task, definitions, scope)
        have = inputs.artifacts(task, definitions, scope)
        if "dag" in component:
            inputs.check_lists(task, definitions, have)
        if "condition" in policy and not values.condition(policy["condition"], given):
            return Outcome("skipped")
        if "parameterIterator" in task or "artifactIterator" in task:
            return self._loop(task, name, given, have, parameters, after)
        label = component.get("executorLabel", "")
        settings = inputs.settings(self.around.kubernetes.get(label, {}), scope)
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
