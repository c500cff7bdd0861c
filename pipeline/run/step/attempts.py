"""Running a step: from the cache, or as often as its retries allow. The launcher's part."""

from __future__ import annotations

import itertools
import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from builder.errors import BuilderError
from builder.oci import canonical
from builder.sandbox.process import Exit, Process
from pipeline.errors import PipelineError
from pipeline.run import beneath, places
from pipeline.run.beneath import Refused
from pipeline.run.step import kept, outputs
from pipeline.run.step.cache import content_digest
from pipeline.run.step.container import Container, executor_input, make
from pipeline.run.step.context import RunContext, Stopped, Task
from pipeline.spec.kubernetes import NETWORK_LABEL
from pipeline.spec.retries import Retries

_NO_NETWORK = re.compile(
    r"name resolution|name or service not known|network is unreachable|nodename nor servname|"
    r"no such host|bad address|could not resolve|connecterror|connection refused",
    re.IGNORECASE,
)
_MEMORY = "give it more memory: a higher limit in the package, or a smaller job"
_TIME = "give it more time: a longer limit in the package, or a smaller job"


class _EndedError(PipelineError):
    """A container that ended badly, and what mends it beside what it said itself, if anything."""

    def __init__(self, cause: str, advice: str) -> None:
        super().__init__(f"{cause}; {advice}" if advice else cause)
        self.advice = advice


def run(task: Task, context: RunContext) -> dict[str, Any]:
    """Run `task`, or take its result from the cache; return `parameters` and `artifacts`.

    Whatever goes wrong is this step's failure, and is tried again as its policy says. Raises
    PipelineError that says what went wrong in the last attempt, and Stopped.
    """
    retries = Retries.of(task.retry)
    began = time.monotonic()
    with context.slots, context.claims(task):
        started = time.monotonic()
        for attempt in itertools.count(1):
            if context.stop.is_set():
                raise Stopped
            try:
                state, found = _attempt(task, attempt, context)
            except Stopped:
                raise
            except Exception as error:
                if context.stop.is_set():
                    raise Stopped from None
                pause = retries.next(attempt, time.monotonic() - started)
                if pause is None or isinstance(error, Refused):
                    label = context.record.steps[task.name].title
                    failure = _named(label, error)
                    advice = error.advice if isinstance(error, _EndedError) else ""
                    context.record.update(
                        task.name, state="failed", error=str(failure), advice=advice
                    )
                    raise failure from error
            else:
                context.record.update(
                    task.name, state=state, seconds=time.monotonic() - began,
                    outputs=found["parameters"], artifacts=found["artifacts"],
                )  # fmt: skip
                return found
            if context.stop.wait(pause):
                raise Stopped
    raise AssertionError("the last attempt returns or raises")


def _named(step: str, error: Exception) -> PipelineError:
    """Return any error as one that says which step failed, of what, and what mends it."""
    if isinstance(error, PipelineError | BuilderError):
        return PipelineError(f"{step}: {error}")
    if isinstance(error, OSError) and error.errno:
        where = f" ({error.filename})" if error.filename else ""
        return PipelineError(f"{step}: {error.strerror}{where}; {places.advice(error)}")
    return PipelineError(
        f"{step}: {type(error).__name__}: {error}; if the step's log does not explain it, this is "
        "a defect of plateline: please report it"
    )


def _attempt(task: Task, attempt: int, context: RunContext) -> tuple[str, dict[str, Any]]:
    """Return how the step ended well, "succeeded" or "cached", and its result."""
    message = executor_input(task)
    home = places.step_folder(context.folder, task.name)
    out = home / "out"
    out.mkdir(parents=True, exist_ok=attempt > 1)
    (home / "input.json").write_text(json.dumps(message, indent=1), encoding="utf-8")
    kept.keep(task, context, home)
    context.record.update(task.name, image=task.container["image"], parameters=task.parameters)
    container = make(task, message, home, context)
    cache = context.cache if task.caching else None
    claims = {
        mount["name"]: context.volumes[mount["name"]].folder
        for mount in task.settings.get("pvcMount", [])
        if context.volumes[mount["name"]].writable
    }
    fingerprint = _fingerprint(task, container, message, context) if cache else ""
    found = cache.get(fingerprint, out, claims) if cache and attempt == 1 else None
    if found is not None and _stands(found, container):
        (home / "log.txt").write_text("taken from the cache: nothing was run\n")
        return "cached", found
    # A job is running when the node says so.
    waits = context.sandbox.name == "slurm"
    context.record.update(task.name, state="queued" if waits else "running")
    started = time.time()
    found = _execute(task, container, message, home, attempt, context)
    published = container.publication.take() if container.publication else {}
    if cache:
        cache.put(fingerprint, out, {**found, "published": published})
        context.wrote.append((fingerprint, claims, started, time.time()))
    return "succeeded", found


def _stands(found: Mapping[str, Any], container: Container) -> bool:
    """Tell whether the machine's store still holds what the step of a cached result published."""
    published: Mapping[str, str] = found.get("published", {})
    return container.publication is None or container.publication.holds(published)


def _fingerprint(
    task: Task, container: Container, message: Mapping[str, Any], context: RunContext
) -> str:
    def content(uri: str) -> str:
        path = places.artifact_path(context.folder, uri)
        return content_digest(path) if path else ""

    return canonical.sha256(canonical.dumps({
        # As the backend's key: parameters, command, arguments, image, outputs, names of claims, and
        # which artifacts these are, made by which step of which run; besides, their content.
        "format": 3, "image": container.process.image.digest,
        "command": task.container.get("command", []), "args": task.container.get("args", []),
        "mounts and environment": container.shown, "network": container.process.network,
        "parameters": task.parameters, "outputs": message["outputs"],
        "artifacts": {
            name: [{**entry, "content": content(entry["uri"])} for entry in entries]
            for name, entries in task.artifacts.items()
        },
    })).removeprefix("sha256:")  # fmt: skip


def _execute(
    task: Task, container: Container, message: Mapping[str, Any], home: Path, attempt: int,
    context: RunContext,
) -> dict[str, Any]:  # fmt: skip
    """Run the container once, on empty outputs, and read what it left."""
    out, log = home / "out", home / "log.txt"
    beneath.empty(out)
    for name in (".parameters", ".output"):
        (out / name).mkdir()
        (out / name).chmod(0o777)
    if container.publication:
        container.publication.renew()
    ended = _once(task.name, container.process, log, context)
    context.record.update(task.name, attempts=attempt, max_rss=ended.max_rss)
    if ended.code or ended.timed_out:
        words = _last_words(log)
        offline = not container.process.network and bool(_NO_NETWORK.search(words))
        cause = f"{ended}; {words}"
        if offline:
            cause += (
                "; it has no network, since its package does not say that it needs one (the pod "
                f"label {NETWORK_LABEL}: yes)"
            )
        raise _EndedError(cause, _advice(ended, offline=offline))
    return outputs.read(task, message, out)


def _advice(ended: Exit, *, offline: bool) -> str:
    if offline:
        return "to give the network to every step, run with --network"
    if ended.out_of_memory:
        return _MEMORY
    return _TIME if ended.timed_out else ended.advice


def _once(name: str, process: Process, log: Path, context: RunContext) -> Exit:
    with log.open("ab") as stream:
        running = context.sandbox.start(process, stream)
        context.running[name] = running
        try:
            if context.stop.is_set():
                running.stop(grace=0)
            return running.wait()
        except BaseException:
            with suppress(Exception):  # the first error says more
                running.stop(grace=0)
            raise
        finally:
            del context.running[name]


def _last_words(log: Path) -> str:
    """Return the last line that a step printed, which says why it failed, and where the rest is.

    Control characters are left out: they could write anything on the terminal that shows the line.
    """
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
        lines = file.read().decode(errors="replace").strip().splitlines()
    last = "".join(letter for letter in lines[-1] if letter.isprintable()) if lines else ""
    return f"it said: {last} ({log})" if lines else f"it printed nothing ({log})"
