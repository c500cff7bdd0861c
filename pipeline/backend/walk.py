"""The order of a run: what Argo does with the workflow that the backend compiles from a package.

The workflow has a driver and an executor for each task. Sources: dag.go, container.go and
importer.go in backend/src/v2/compiler/argocompiler of kubeflow/pipelines 2.17; assessDAGPhase and
runOnExitNode in workflow/controller of argo-workflows 4.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from builder.errors import BuilderError
from pipeline.errors import PipelineError
from pipeline.spec.dependencies import producers, sequence

SUCCEEDED, FAILED, SKIPPED, OMITTED = "Succeeded", "Failed", "Skipped", "Omitted"  # Argo's phases
_UNDRIVEN = "Omitted, since its driver failed"  # fails the DAG, and no exit task runs after it
_ERRORS = (PipelineError, BuilderError, OSError)
_EXIT = "ALL_UPSTREAM_TASKS_COMPLETED"


@dataclass(frozen=True, slots=True)
class Node:
    """A task where it is run: its name in the run, its name in its DAG, the DAG's execution.

    `iteration` is the round of a loop that it is; `after` are the names that it waited for.
    """

    name: str
    task_name: str
    task: Mapping[str, Any]
    dag: str
    iteration: int = -1
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Driven:
    """What a driver wrote: Argo's output parameters of its template, with their defaults."""

    execution: str = ""
    iterations: int = 0
    condition: str = "true"
    cached: bool = False
    patch: Mapping[str, Any] | None = None


class Backend(Protocol):
    """Runs the programs; each method raises PipelineError where one fails, or Stopped."""

    def drive_root(self, parameters: Mapping[str, Any]) -> Driven:
        """Run the driver of the whole pipeline."""

    def drive(self, node: Node) -> Driven:
        """Run the driver of a task: of a DAG, or of a container."""

    def execute(self, node: Node, driven: Driven) -> None:
        """Run a step's container, as often as its retries allow."""

    def bring(self, node: Node) -> None:
        """Run an importer."""

    def ended(self, node: Node, phase: str, error: str = "") -> None:
        """Hear how a container's task ended."""


@dataclass(frozen=True)
class Walk:
    """Runs the components of a pipeline spec on a backend."""

    spec: Mapping[str, Any]
    backend: Backend

    def root(self, parameters: Mapping[str, Any]) -> str:
        """Run the whole pipeline; return its phase. Raises PipelineError where its driver fails."""
        driven = self.backend.drive_root(parameters)
        return self._dag(self.spec["root"], driven.execution, "", ())

    def _dag(
        self, component: Mapping[str, Any], execution: str, prefix: str, after: tuple[str, ...]
    ) -> str:
        """Run the tasks of a DAG, each when all that it depends on have succeeded."""
        tasks = component["dag"]["tasks"]
        exits = {name: task for name, task in tasks.items() if _is_exit(task)}
        hooks = {dep: name for name, task in exits.items() for dep in producers(task)}
        phases: dict[str, Future[str]] = {name: Future() for name in tasks if name not in exits}

        def node(name: str, waited: tuple[str, ...]) -> Node:
            return Node(prefix + name, name, tasks[name], execution, after=waited)

        def work(name: str) -> None:
            # An importer's Argo task has no `depends`: it starts with its DAG, whatever it needs.
            needs = () if self._importer(tasks[name]) else producers(tasks[name])
            found = node(name, tuple(prefix + key for key in needs) or after)
            try:
                phase = OMITTED
                if all(phases[key].result() == SUCCEEDED for key in needs):
                    phase = self._task(found)
                else:
                    self._tell(found, OMITTED, "what it needs did not succeed")
                if name in hooks and phase in (SUCCEEDED, FAILED):
                    # Its phase is not one of the DAG's targets: a failed exit task fails no run.
                    self._task(node(hooks[name], (prefix + name,)))
            except BaseException as error:
                phases[name].set_exception(error)
                raise
            phases[name].set_result(phase)

        waits = {
            name: [] if self._importer(tasks[name]) else producers(tasks[name]) for name in phases
        }
        # Producers first: then each thread that waits for another waits for one that runs.
        _together([partial(work, name) for name in sequence(waits)], len(phases))
        failed = any(end.result() in (FAILED, _UNDRIVEN) for end in phases.values())
        return FAILED if failed else SUCCEEDED

    def _importer(self, task: Mapping[str, Any]) -> bool:
        label = self.spec["components"][task["componentRef"]["name"]].get("executorLabel", "")
        return "importer" in self.spec["deploymentSpec"]["executors"].get(label, {})

    def _task(self, node: Node) -> str:
        """Run one task, its driver first; return its phase."""
        component = self.spec["components"][node.task["componentRef"]["name"]]
        conditional = bool(node.task.get("triggerPolicy", {}).get("condition"))
        if node.iteration < 0 and "parameterIterator" in node.task:
            return self._loop(node, conditional=conditional)
        try:
            if self._importer(node.task):
                self.backend.bring(node)
                return self._tell(node, SUCCEEDED)
        except _ERRORS as error:
            return self._tell(node, FAILED, str(error))
        try:
            driven = self.backend.drive(node)
        except _ERRORS as error:
            self._tell(node, FAILED, str(error))
            return _UNDRIVEN
        if conditional and driven.condition == "false":
            return self._tell(node, SKIPPED, "its condition is false")
        if "dag" in component:
            return self._dag(component, driven.execution, f"{node.name}.", node.after)
        try:
            if not driven.cached:
                self.backend.execute(node, driven)
        except _ERRORS as error:
            return self._tell(node, FAILED, str(error))
        return self._tell(node, "Cached" if driven.cached else SUCCEEDED)

    def _loop(self, node: Node, *, conditional: bool) -> str:
        """Run the rounds of a loop; Argo's task of it succeeds also where no round runs."""
        try:
            driven = self.backend.drive(node)
        except _ERRORS as error:
            return self._tell(node, FAILED, str(error))
        if conditional and driven.condition == "false":
            return SUCCEEDED
        rounds = [
            Node(f"{node.name}.{i}", node.task_name, node.task, driven.execution, i, node.after)
            for i in range(driven.iterations)
        ]
        limit = int(node.task.get("iteratorPolicy", {}).get("parallelismLimit", 0))
        phases = _together([partial(self._task, each) for each in rounds], limit or len(rounds))
        return FAILED if {FAILED, _UNDRIVEN} & {*phases} else SUCCEEDED

    def _tell(self, node: Node, phase: str, error: str = "") -> str:
        self.backend.ended(node, phase, error)
        return SUCCEEDED if phase == "Cached" else phase


def _is_exit(task: Mapping[str, Any]) -> bool:
    return bool(task.get("triggerPolicy", {}).get("strategy") == _EXIT)


def _together(work: Sequence[Callable[[], Any]], at_once: int) -> list[Any]:
    """Do all of `work`, `at_once` at most at the same time; raise the first error at the end."""
    if not work:
        return []
    with ThreadPoolExecutor(at_once) as pool:
        return [future.result() for future in [pool.submit(each) for each in work]]
