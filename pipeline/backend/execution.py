"""The driver and the launcher, run in sandboxes for one task after another."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.errors import BuilderError
from builder.sandbox.process import Mount, Process, Running, Sandbox
from builder.store import Store
from pipeline.backend import pod
from pipeline.backend.programs import Programs
from pipeline.backend.walk import FAILED, OMITTED, SKIPPED, SUCCEEDED, Driven, Node
from pipeline.errors import PipelineError
from pipeline.run import beneath, places
from pipeline.run.beneath import Refused
from pipeline.run.record import Record
from pipeline.run.step.context import Stopped
from pipeline.run.step.publication import Publication, targets
from pipeline.spec.package import Package
from pipeline.spec.retries import Retries

_STATES = {SUCCEEDED: "succeeded", "Cached": "cached", FAILED: "failed", SKIPPED: "skipped",
           OMITTED: "skipped"}  # fmt: skip
_DRIVER = "/kfp-driver/driver"
_OUTPUTS = "/tmp/outputs"  # noqa: S108 - in the driver's sandbox, as in the workflow's template
_GLOG = re.compile(r"[IWEF]\d{4} [0-9:.]+ +\d+ \S+\] ")  # github.com/golang/glog
_WRITTEN = ("execution-id", "iteration-count", "condition", "cached-decision", "pod-spec-patch")


@dataclass(frozen=True, kw_only=True)
class Execution:
    """The two programs in sandboxes, for one run: the Backend of `walk`.

    `port` is where metadata and tasks answer, `created` the time in UTC when the run began;
    `executions` collects which of the metadata store's executions a step is.
    """

    package: Package
    programs: Programs
    sandbox: Sandbox
    store: Store
    folder: Path
    created: str
    port: int
    use_cache: bool
    publish: frozenset[str] | None
    given: pod.Given
    slots: threading.Semaphore
    record: Record
    writing: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)
    running: dict[Running, str] = field(default_factory=dict)
    executions: dict[str, str] = field(default_factory=dict)

    def stop_all(self) -> None:
        """End every process; no new one is started."""
        self.stop.set()
        for running in list(self.running):
            running.stop(grace=0)

    def copy_launcher(self) -> None:
        """Let the launcher copy itself to where every step finds it, as in a pod."""
        (self.folder / "launcher").mkdir()
        own, place = (
            "/kfp/launcher-v2",
            Mount(self.folder / "launcher", pod.LAUNCHER, writable=True),
        )
        self._run(
            "launcher", (own, "--copy", f"{pod.LAUNCHER}/launch"), self.folder / "launcher.log",
            (Mount(self.programs.launcher, own), place),
        )  # fmt: skip

    def drive_root(self, parameters: Mapping[str, Any]) -> Driven:
        """Run the driver of the whole pipeline."""
        config = {"parameterValues": parameters}
        return self._drive(
            self.folder / "root",
            "ROOT_DAG",
            {"component": self.package.spec["root"], "runtime_config": config},
        )

    def drive(self, node: Node) -> Driven:
        """Run the driver of a task; a step whose result the backend's cache has is told as such."""
        component = self.package.spec["components"][node.task["componentRef"]["name"]]
        options: dict[str, Any] = {
            "component": component, "task": node.task, "task_name": node.task_name,
            "dag_execution_id": node.dag, "iteration_index": str(node.iteration),
        }  # fmt: skip
        home = places.step_folder(self.folder, node.name)
        if "dag" in component:
            return self._drive(home, "DAG", options)
        label = component["executorLabel"]
        container = self.package.spec["deploymentSpec"]["executors"][label]["container"]
        options["container"] = container
        if label in self.package.kubernetes:
            options["kubernetes_config"] = self.package.kubernetes[label]
        self.record.update(node.name, after=node.after, image=container["image"])
        driven = self._drive(home, "CONTAINER", options)
        self.executions[node.name] = driven.execution
        return driven

    def _drive(self, home: Path, kind: str, options: Mapping[str, Any]) -> Driven:
        out = home / "driver"
        out.mkdir(parents=True)
        server = {"address": "127.0.0.1", "port": str(self.port)}
        words = {
            "type": kind, "pipeline_name": self.package.name, "run_id": self.folder.name,
            "run_name": self.folder.name, "run_display_name": self.folder.name,
            "pipeline_job_create_time_utc": self.created,
            "http_proxy": "", "https_proxy": "", "no_proxy": "",
            **{f"ml_pipeline_server_{key}": value for key, value in server.items()},
            **{f"mlmd_server_{key}": value for key, value in server.items()},
            **{f"{file.replace('-', '_')}_path": f"{_OUTPUTS}/{file}" for file in _WRITTEN},
            **{key: value if isinstance(value, str) else json.dumps(value)
               for key, value in options.items()},
        }  # fmt: skip
        command = [_DRIVER, *(word for key, value in words.items() for word in (f"--{key}", value))]
        if not self.use_cache:
            command.append("--cache_disabled")
        mounts = (Mount(self.programs.driver, _DRIVER), Mount(out, _OUTPUTS, writable=True))
        self._run(f"the driver of {home.name}", tuple(command), home / "driver.log", mounts)
        wrote = {path.name: path.read_text() for path in out.iterdir()}
        return Driven(
            wrote.get("execution-id", ""), int(wrote.get("iteration-count", 0)),
            wrote.get("condition", "true"), wrote.get("cached-decision") == "true",
            json.loads(wrote.get("pod-spec-patch") or "null"),
        )  # fmt: skip

    def execute(self, node: Node, driven: Driven) -> None:
        """Run a step's container, as often as its retries allow."""
        if driven.patch is None:
            raise PipelineError(f"the driver of {node.name} wrote no pod-spec-patch")
        home = places.step_folder(self.folder, node.name)
        message = json.loads(_option(driven.patch, "--executor_input"))
        parameters = message.get("inputs", {}).get("parameterValues", {})
        (home / "input.json").write_text(json.dumps(message, indent=1))
        publication = self._publication(home, parameters)
        retries, started, attempt = Retries.of(node.task.get("retryPolicy", {})), 0.0, 0
        with self.slots, self._claims(driven.patch):
            self.record.update(node.name, state="running", parameters=parameters)
            started = time.monotonic()
            while True:
                attempt += 1
                try:
                    self._attempt(node, driven.patch, home, attempt, publication)
                    break
                except (PipelineError, BuilderError, OSError) as error:
                    pause = retries.next(attempt, time.monotonic() - started)
                    if pause is None or isinstance(error, Refused):
                        raise PipelineError(str(error)) from error
                if self.stop.wait(pause):
                    raise Stopped
        if publication:
            publication.take()

    def _attempt(
        self, node: Node, patch: Mapping[str, Any], home: Path, attempt: int,
        publication: Publication | None,
    ) -> None:  # fmt: skip
        scratch = home / "pod"
        scratch.mkdir(exist_ok=True)
        beneath.empty(scratch)
        made = pod.process(patch, places.folder_name(node.name), scratch, self.given)
        mounts, env = list(made.mounts), dict(made.env)
        if "retryPolicy" in node.task:
            env["KFP_RETRY_INDEX"] = str(attempt - 1)
        if publication:
            publication.renew()
            mounts += publication.mounts(places.STORE_INSIDE)
            env["PLATELINE_STORE"] = places.STORE_INSIDE
        try:
            self._wait(
                Process(
                    image=made.image, command=made.command, env=env, mounts=tuple(mounts),
                    user=made.user, network=True, timeout=made.timeout, memory=made.memory,
                ),
                home / "log.txt", node.name,
            )  # fmt: skip
        finally:
            self.record.update(node.name, attempts=attempt)
            beneath.empty(scratch)  # what counts is in the object store

    def _claims(self, patch: Mapping[str, Any]) -> AbstractContextManager[object]:
        """Let no other step write to a claim meanwhile, where a package has sub-paths.

        Otherwise one could put a link in the place of a sub-path before it is mounted.
        """
        claims = [volume.get("persistentVolumeClaim", {}) for volume in patch.get("volumes", [])]
        lent = [self.given.volumes.get(claim.get("claimName", "")) for claim in claims]
        sub_paths = any(
            mount.get("subPath")
            for settings in self.package.kubernetes.values()
            for mount in settings.get("pvcMount", [])
        )
        writes = any(volume and volume.writable for volume in lent)
        return self.writing if writes and sub_paths else nullcontext()

    def _publication(self, home: Path, parameters: Mapping[str, Any]) -> Publication | None:
        wanted = targets(parameters)
        if self.publish is not None and not wanted <= self.publish:
            raise Refused(f"it would publish to {', '.join(sorted(wanted - self.publish))}")
        return Publication.open(self.store, home / "store", parameters) if wanted else None

    def bring(self, node: Node) -> None:
        """Run an importer: the launcher alone, as in the workflow."""
        component = self.package.spec["components"][node.task["componentRef"]["name"]]
        executor = self.package.spec["deploymentSpec"]["executors"][component["executorLabel"]]
        home = places.step_folder(self.folder, node.name)
        home.mkdir(parents=True)
        self.record.update(node.name, state="running", after=node.after)
        words = {
            "executor_type": "importer", "task_spec": json.dumps(node.task),
            "component_spec": json.dumps(component),
            "importer_spec": json.dumps(executor["importer"]),
            "pipeline_name": self.package.name, "run_id": self.folder.name,
            "parent_dag_id": node.dag, "pod_name": node.name, "pod_uid": node.name,
            "mlmd_server_address": "127.0.0.1", "mlmd_server_port": str(self.port),
        }  # fmt: skip
        command = (f"{pod.LAUNCHER}/launch", *(w for k, v in words.items() for w in (f"--{k}", v)))
        self._run(node.name, command, home / "log.txt", ())

    def ended(self, node: Node, phase: str, error: str = "") -> None:
        """Record how a task ended."""
        self.record.update(node.name, state=_STATES[phase], error=error, after=node.after)

    def _run(
        self, what: str, command: tuple[str, ...], log: Path, mounts: tuple[Mount, ...]
    ) -> None:
        """Run a program in an image of the package (it needs nothing of it)."""
        image = next(iter(self.given.images.values()))
        process = Process(
            image=image, command=command, env=self.given.env, network=True,
            mounts=tuple({m.target: m for m in (*self.given.mounts, *mounts)}.values()),
        )  # fmt: skip
        with self.slots:
            self._wait(process, log, what)

    def _wait(self, process: Process, log: Path, what: str) -> None:
        if self.stop.is_set():
            raise Stopped
        with log.open("ab") as stream:
            running = self.sandbox.start(process, stream)
            self.running[running] = what
            try:
                if self.stop.is_set():
                    running.stop(grace=0)
                ended = running.wait()
            finally:
                del self.running[running]
        if self.stop.is_set():
            raise Stopped
        if ended.code or ended.timed_out:
            raise PipelineError(f"{what} failed: {ended}; it said: {_said(log)} ({log})")


def _said(log: Path) -> str:
    """Return why a program failed: the step's last line, or the launcher's or driver's own reason.

    Control characters are left out: they could write anything on the terminal that shows the line.
    """
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - 65536))
        lines = file.read().decode(errors="replace").strip().splitlines() or ["nothing"]
    fatal = [
        line.partition("] ")[2] for line in lines if line.startswith("F") and _GLOG.match(line)
    ]
    step = [line for line in lines if not _GLOG.match(line)]
    own = fatal and not re.search(r"exit status \d+$", fatal[-1])
    last = fatal[-1] if own or (fatal and not step) else (step or lines)[-1]
    return "".join(letter for letter in last if letter.isprintable())


def _option(patch: Mapping[str, Any], name: str) -> str:
    command = patch["containers"][0]["command"]
    return str(command[command.index(name) + 1])
