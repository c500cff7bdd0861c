"""One step: executor input in, a container, executor output out. The launcher's part."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder import oci
from builder.errors import BuilderError
from builder.oci import canonical
from builder.sandbox.process import Exit, Mount, Process, Running, Sandbox
from builder.store import Store
from pipeline.errors import PipelineError
from pipeline.run.cache import Cache, content_digest
from pipeline.run.record import Record, host_path
from pipeline.spec import kubernetes, values

STORE_INSIDE = "/var/lib/plateline"


class Stopped(Exception):  # noqa: N818 - an outcome, not an error
    """The run is being stopped."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A folder of this machine for a claim. Only a read-only one enters fingerprints."""

    folder: Path
    writable: bool = False


@dataclass(frozen=True)
class Surroundings:
    """What every step of a run shares."""

    folder: Path
    sandbox: Sandbox
    store: Store
    images: Mapping[str, oci.Image]
    kubernetes: Mapping[str, Mapping[str, Any]]
    volumes: Mapping[str, Volume]
    secrets: Mapping[str, Path]
    facts: Mapping[str, str]
    cache: Cache | None
    network: bool
    slots: threading.Semaphore
    record: Record
    stop: threading.Event = field(default_factory=threading.Event)
    running: dict[str, Running] = field(default_factory=dict)
    digests: dict[Path, str] = field(default_factory=dict)
    wrote: list[tuple[str, Mapping[str, Path], float, float]] = field(default_factory=list)

    def stop_all(self) -> None:
        """End every container; no new one is started."""
        self.stop.set()
        for running in list(self.running.values()):
            with suppress(BuilderError, OSError):
                running.stop(grace=0)

    def volume_digest(self, path: Path) -> str:
        """Return the digest of a read-only volume, which is read once a run."""
        if path not in self.digests:
            self.digests[path] = content_digest(path)
        return self.digests[path]


@dataclass(frozen=True)
class Task:
    """A container to run: its component, executor and resolved inputs."""

    name: str
    component: Mapping[str, Any]
    settings: Mapping[str, Any]
    container: Mapping[str, Any]
    parameters: Mapping[str, Any]
    artifacts: Mapping[str, list[dict[str, Any]]]
    caching: bool
    retry: Mapping[str, Any]


def executor_input(task: Task) -> dict[str, Any]:
    """Return the ExecutorInput message of `task`; everything it writes is below /kfp/<step>."""
    inside = f"/kfp/{task.name}"
    outputs = task.component.get("outputDefinitions", {})
    artifacts = {}
    for name, definition in outputs.get("artifacts", {}).items():
        kind = definition.get("artifactType", {})
        entry = {"name": name, "uri": f"{inside}/{name}", "type": kind, "metadata": {}}
        artifacts[name] = {"artifacts": [entry]}
    return {
        "inputs": {
            "parameterValues": values.whole(dict(task.parameters)),
            "parameters": {},
            "artifacts": {name: {"artifacts": found} for name, found in task.artifacts.items()},
        },
        "outputs": {
            "parameters": {
                name: {"outputFile": f"{inside}/.parameters/{name}"}
                for name in outputs.get("parameters", {})
            },
            "artifacts": artifacts,
            "outputFile": f"{inside}/.output/executor_output.json",
        },
    }


def run(task: Task, around: Surroundings) -> dict[str, Any]:
    """Run `task`, or take its result from the cache; return `parameters` and `artifacts`.

    Raises PipelineError that says how the container ended, or what it left out, and Stopped.
    """
    message = executor_input(task)
    facts = {**around.facts, "pipeline_task_name": task.name, "pipeline_task_uuid": task.name}
    words = [
        values.substitute(task.container.get(part, []), message, facts)
        for part in ("command", "args")
    ]
    home = around.folder / "steps" / task.name
    out = home / "out"
    out.mkdir(parents=True)
    (home / "input.json").write_text(json.dumps(message, indent=1))
    around.record.update(task.name, image=task.container["image"], parameters=task.parameters)
    mounts, volumes, env, own_store = _mounts(task, around)
    image = around.images[task.container["image"]]
    fingerprint = canonical.sha256(canonical.dumps({
        "format": 1, "image": image.digest, "command": task.container.get("command", []),
        "args": task.container.get("args", []), "env": env, "volumes": volumes,
        "parameters": task.parameters, "outputs": message["outputs"],
        "artifacts": {
            name: [{**a, "content": content_digest(host_path(around.folder, a["uri"]))}
                   for a in found]
            for name, found in task.artifacts.items()
        },
    })).removeprefix("sha256:")  # fmt: skip
    cache = around.cache if task.caching and not own_store else None
    claims = {
        mount["name"]: around.volumes[mount["name"]].folder
        for mount in task.settings.get("pvcMount", [])
        if around.volumes[mount["name"]].writable
    }
    with around.slots:
        if around.stop.is_set():
            raise Stopped
        began = time.monotonic()
        found = cache.get(fingerprint, out, claims) if cache else None
        if found is None:
            around.record.update(task.name, state="running")
            process = Process(
                image=image, command=tuple(words[0] + words[1]), env=env,
                mounts=(Mount(out, f"/kfp/{task.name}", writable=True), *mounts),
                network=around.network, timeout=_timeout(task.settings), memory=_memory(task),
                user=_user(task, mounts, around),
            )  # fmt: skip
            started = time.time()
            found = _attempts(task, process, message, around)
            if cache:
                cache.put(fingerprint, out, found)
                around.wrote.append((fingerprint, claims, started, time.time()))
            state = "succeeded"
        else:
            (home / "log.txt").write_text("taken from the cache: nothing was run\n")
            state = "cached"
    around.record.update(
        task.name, state=state, seconds=time.monotonic() - began,
        outputs=found["parameters"], artifacts=found["artifacts"],
    )  # fmt: skip
    return found


def _attempts(
    task: Task, process: Process, message: Mapping[str, Any], around: Surroundings
) -> dict[str, Any]:
    tries = 1 + int(task.retry.get("maxRetryCount", 0))
    pause = float(str(task.retry.get("backoffDuration", "0s")).rstrip("s") or 0)
    factor = float(task.retry.get("backoffFactor", 2) or 2)
    longest = float(str(task.retry.get("backoffMaxDuration", "3600s")).rstrip("s") or 3600)
    out = process.mounts[0].source
    began = time.monotonic()
    for attempt in range(1, tries + 1):
        for item in out.iterdir():
            shutil.rmtree(item) if item.is_dir() else item.unlink()
        for name in (".parameters", ".output"):
            (out / name).mkdir()
            (out / name).chmod(0o777)
        ended = _once(task.name, process, around)
        around.record.update(task.name, attempts=attempt, max_rss=ended.max_rss)
        try:
            if ended.code or ended.timed_out:
                raise PipelineError(f"{task.name}: {ended}; {_last_words(out.parent / 'log.txt')}")
            return _result(task, message, out)
        except PipelineError as error:
            if around.stop.is_set():
                raise Stopped from None
            if attempt == tries:
                seconds = time.monotonic() - began
                around.record.update(task.name, state="failed", error=str(error), seconds=seconds)
                raise
        if around.stop.wait(min(pause * factor ** (attempt - 1), longest)):
            raise Stopped
    raise AssertionError("the last attempt returns or raises")


def _last_words(log: Path) -> str:
    """Return the last line that a step printed, which says why it failed, and where the rest is."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return f"it said: {lines[-1]} ({log})" if lines else f"it printed nothing ({log})"


def _once(name: str, process: Process, around: Surroundings) -> Exit:
    log = process.mounts[0].source.parent / "log.txt"
    with log.open("ab") as stream:
        running = around.sandbox.start(process, stream)
        around.running[name] = running
        try:
            if around.stop.is_set():
                running.stop(grace=0)
            return running.wait()
        finally:
            del around.running[name]


def _user(task: Task, mounts: list[Mount], around: Surroundings) -> str:
    """Return whom the container runs as; "" leaves the image's user.

    In an engine that is the caller where the step writes to what belongs to the caller; bubblewrap
    maps every user to the caller by itself.
    """
    if around.sandbox.name == "docker" and any(mount.writable for mount in mounts):
        return f"{os.geteuid()}:{os.getegid()}"
    context = task.settings.get("securityContext", {})
    user = str(context.get("runAsUser", ""))
    return f"{user}:{context.get('runAsGroup', user)}" if user else ""


def _timeout(settings: Mapping[str, Any]) -> float | None:
    seconds = int(settings.get("activeDeadlineSeconds", 0))
    return float(seconds) if seconds else None


def _memory(task: Task) -> int | None:
    """Return the memory limit of `task` in bytes; a parameter may hold it."""
    resources = task.container.get("resources", {})
    text = str(values.filled(resources.get("resourceMemoryLimit", ""), task.parameters))
    if text:
        return kubernetes.memory(text)
    gigabytes = float(resources.get("memoryLimit", 0))  # of packages before kfp 2.9
    return int(gigabytes * 1e9) or None


def _result(task: Task, message: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Read what the container left: the executor output and a file an output parameter."""
    path = out / ".output" / "executor_output.json"
    document: dict[str, Any] = {}
    if path.is_file() and path.stat().st_size:
        try:
            document = json.loads(path.read_bytes())
            given, described = document.get("parameterValues", {}), document.get("artifacts", {})
            assert isinstance(given, dict)
            assert isinstance(described, dict)
        except (ValueError, AttributeError, AssertionError) as error:
            raise PipelineError(
                f"{task.name}: its executor output is not the JSON it should be ({error}); "
                f"see {path}"
            ) from None
    definitions = task.component.get("outputDefinitions", {})
    parameters = {}
    for name, definition in definitions.get("parameters", {}).items():
        file = out / ".parameters" / name
        if name in (document.get("parameterValues") or {}):
            value = document["parameterValues"][name]
        elif file.is_file():
            value = file.read_text()
        else:
            raise PipelineError(
                f"{task.name}: it ended well but wrote no output parameter {name!r}"
            )
        parameters[name] = values.coerce(value, definition["parameterType"], f"{task.name}.{name}")
    artifacts = {}
    for name, entries in message["outputs"]["artifacts"].items():
        entry = dict(entries["artifacts"][0])
        written = (document.get("artifacts") or {}).get(name, {}).get("artifacts") or [{}]
        entry["metadata"] = dict(written[0].get("metadata") or {})
        artifacts[name] = [entry]
    return {"parameters": parameters, "artifacts": artifacts}


def _mounts(
    task: Task, around: Surroundings
) -> tuple[list[Mount], list[Any], dict[str, str], bool]:
    """Return mounts, what of them enters the fingerprint, the environment, and store access."""
    mounts, shown = [], []
    env = {e["name"]: e.get("value", "") for e in task.container.get("env", [])}
    for artifact in (a for found in task.artifacts.values() for a in found):
        path = host_path(around.folder, artifact["uri"])
        if path.exists():
            mounts.append(Mount(path, artifact["uri"].removeprefix("file://")))
    for mount in task.settings.get("pvcMount", []):
        claim = mount["name"]
        volume = around.volumes.get(claim)
        if volume is None:
            raise PipelineError(
                f"{task.name} mounts the claim {claim}; give a folder with --volume {claim}=DIR"
            )
        source = volume.folder / mount.get("subPath", "")
        mounts.append(Mount(source, mount["mountPath"], writable=volume.writable))
        digest = "" if volume.writable else around.volume_digest(source)
        shown.append([claim, mount["mountPath"], mount.get("subPath", ""), digest])
    for secret in task.settings.get("secretAsVolume", []):
        folder = around.secrets.get(secret["name"])
        if folder:
            mounts.append(Mount(folder, secret["mountPath"]))
            # Its digest only: another login may be let in elsewhere.
            shown.append([secret["name"], secret["mountPath"], around.volume_digest(folder)])
    for secret in task.settings.get("secretAsEnv", []):
        for pair in secret.get("keyToEnv", []):
            if secret["name"] in around.secrets:
                path = around.secrets[secret["name"]] / pair["secretKey"]
                env[pair["envVar"]] = path.read_text()
    own = any(str(value).startswith("localhost/") for value in task.parameters.values())
    if own:
        mounts.append(Mount(around.store.root, STORE_INSIDE, writable=True))
        env["PLATELINE_STORE"] = STORE_INSIDE
    return list({m.target: m for m in mounts}.values()), shown, env, own
