"""A task as a process in its image: the message to it, its mounts, environment and limits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.sandbox.process import Mount, Needs, Process
from pipeline.errors import PipelineError
from pipeline.run import places
from pipeline.run.beneath import Refused
from pipeline.run.step.context import RunContext, Task
from pipeline.run.step.publication import Publication, pins, targets
from pipeline.spec import kubernetes, names, placeholders, values

LOGS = "executor-logs"
_LONGEST = 128 * 1024 - 1  # bytes of one argument or variable: MAX_ARG_STRLEN of Linux


@dataclass(frozen=True)
class Container:
    """A process to run, what of its mounts enters the fingerprint, and where it may publish."""

    process: Process
    shown: list[Any]
    publication: Publication | None


def executor_input(task: Task) -> dict[str, Any]:
    """Return the ExecutorInput message of `task`; everything it writes is below /kfp/<step>."""
    inside = places.outputs_inside(task.name)
    outputs = task.component.get("outputDefinitions", {})
    artifacts = {}
    for name, definition in outputs.get("artifacts", {}).items():
        places.checked(name, "the output artifact")
        kind = definition.get("artifactType", {})
        entry = {"name": name, "uri": f"{inside}/{name}", "type": kind, "metadata": {}}
        artifacts[name] = {"artifacts": [entry]}
    # The backend's driver adds where the step's log goes; whatever walks the outputs meets it.
    log = {"name": LOGS, "uri": f"{inside}/{LOGS}", "type": {"schemaTitle": "system.Artifact"}}
    artifacts.setdefault(LOGS, {"artifacts": [{**log, "metadata": {}}]})
    return {
        "inputs": {
            "parameterValues": values.whole(dict(task.parameters)),
            "parameters": {},
            "artifacts": {
                name: {"artifacts": [{k: v for k, v in e.items() if k != "id"} for e in found]}
                for name, found in task.artifacts.items()
            },
        },
        "outputs": {
            "parameters": {
                name: {
                    "outputFile": f"{inside}/.parameters/"
                    + places.checked(name, "the output parameter")
                }
                for name in outputs.get("parameters", {})
            },
            "artifacts": artifacts,
            "outputFile": f"{inside}/.output/executor_output.json",
        },
    }


def make(task: Task, message: Mapping[str, Any], home: Path, context: RunContext) -> Container:
    """Return the container of `task`; `home` is its folder of the run.

    Raises Refused for what the package may not have, PipelineError for what is missing.
    """
    facts = placeholders.of_task(context.facts, task.name)
    words = [
        word
        for part in ("command", "args")
        for word in placeholders.substitute(task.container.get(part, []), message, facts)
    ]
    for number, word in enumerate(words):
        _check_text(word, f"argument {number}", task)
    env, shown = _environment(task, context)
    mounts = {place: Mount(path, place) for place, path in _inputs(task, context).items()}
    claims = _claims(task, context)
    if any(mount.writable for mount, _fact in claims):
        # For the locks there, and only there: what a step sees must not differ between two runs.
        env["PLATELINE_RUN"] = f"{context.folder.name} (process {os.getpid()})"
    for mount, fact in (*claims, *_secrets(task, context)):
        if mounts.get(mount.target, mount) != mount:
            raise Refused(f"two things are mounted at {mount.target}; give each its own path")
        mounts[mount.target] = mount
        shown.append(fact)
    inside = places.outputs_inside(task.name)
    mounts[inside] = Mount(home / "out", inside, writable=True)
    publication = None
    wanted = targets(task.parameters)
    if wanted or pins(task.parameters):
        if context.publish is not None and not wanted <= context.publish:
            raise Refused(
                f"it would publish to {', '.join(sorted(wanted - context.publish))}, a name made "
                "while the pipeline ran, which nobody agreed to; name it in a parameter of the "
                "pipeline"
            )
        publication = Publication.open(context.store, home / "store", task.parameters)
        mounts |= {m.target: m for m in publication.mounts(places.STORE_INSIDE)}
        env["PLATELINE_STORE"] = places.STORE_INSIDE
    gpus = context.gpus if kubernetes.accelerator(task.container)[0] == kubernetes.GPU else None
    if gpus:
        shown.append(["gpus", gpus.driver])  # they round otherwise than the processor
    process = Process(
        image=context.images[task.container["image"]], command=tuple(words), env=env,
        mounts=tuple(mounts.values()), timeout=_timeout(task.settings), memory=_memory(task),
        network=context.network or kubernetes.asks_for_network(task.settings),
        user=_user(task, tuple(mounts.values()), context), needs=_needs(task),
        gpus=gpus,
    )  # fmt: skip
    return Container(process, shown, publication)


def _check_text(text: str, what: str, task: Task) -> None:
    """Raise Refused for a text that no process can be given, and name the parameter in it."""
    size = len(text.encode(errors="surrogateescape"))
    if "\0" not in text and size <= _LONGEST:
        return
    within = [name for name, value in task.parameters.items() if values.text(value) in text]
    longest = max(within, key=lambda name: len(values.text(task.parameters[name])), default="")
    source = f", from the parameter {longest!r}," if longest else ""
    if "\0" in text:
        raise Refused(f"{what}{source} has a NUL byte in it, which no process can be given")
    raise Refused(
        f"{what}{source} has {size} bytes, and Linux takes at most {_LONGEST} for one; pass such "
        "a value as an artifact"
    )


def _environment(task: Task, context: RunContext) -> tuple[dict[str, str], list[Any]]:
    """Return the variables, and what of them the fingerprint shows: no secret."""
    env = {e["name"]: e.get("value", "") for e in task.container.get("env", [])}
    shown: list[Any] = [["env", dict(env)]]
    for secret in task.settings.get("secretAsEnv", []):
        folder = context.secrets.get(secret["name"])
        for pair in secret.get("keyToEnv", []) if folder else ():
            assert folder is not None
            key = pair.get("secretKey", "")
            env[pair.get("envVar", "")] = _key(folder, secret["name"], key)
            shown.append(["secret", secret["name"], pair, context.volume_digest(folder)])
    for name, value in env.items():
        names.variable(name)
        _check_text(value, f"the variable {name}", task)
    return env, shown


def _key(folder: Path, secret: str, key: str) -> str:
    path = folder / names.secret_key(key)
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        raise PipelineError(
            f"the key {key} of the secret {secret} ({path}) is not UTF-8 text, which a variable "
            "must be; mount the secret as a volume"
        ) from None
    except OSError as error:
        raise PipelineError(
            f"the secret {secret} has no key {key}: reading {path} failed ({error.strerror})"
        ) from None
    if "\0" in text:
        raise PipelineError(
            f"the key {key} of the secret {secret} ({path}) has a NUL byte in it, which no "
            "variable can hold; mount the secret as a volume"
        )
    return text


def _inputs(task: Task, context: RunContext) -> dict[str, Path]:
    """Return where each input artifact is seen inside -> where it lies."""
    found = {}
    for entry in (a for entries in task.artifacts.values() for a in entries):
        path = places.artifact_path(context.folder, entry["uri"])
        if path:
            found[entry["uri"].removeprefix("file://")] = path
    return found


def _claims(task: Task, context: RunContext) -> list[tuple[Mount, Any]]:
    found = []
    for mount in task.settings.get("pvcMount", []):
        claim, sub_path = mount["name"], mount.get("subPath", "")
        volume = context.volumes.get(claim)
        if volume is None:
            raise Refused(f"it mounts the claim {claim}; give a folder with --volume {claim}=DIR")
        source = places.in_claim(volume.folder, sub_path, claim, make=volume.writable)
        target = places.mount_point(mount.get("mountPath", ""))
        # What is never taken from the cache need not be read for its key: it may be a whole screen.
        seen_as_is = volume.writable or not task.caching
        digest = "" if seen_as_is else context.volume_digest(source)
        seen = Mount(source, target, writable=volume.writable)
        found.append((seen, [claim, target, sub_path, digest]))
    return found


def _secrets(task: Task, context: RunContext) -> list[tuple[Mount, Any]]:
    found = []
    for secret in task.settings.get("secretAsVolume", []):
        target = places.mount_point(secret.get("mountPath", ""))
        folder = context.secrets.get(secret["name"])
        if folder:
            # Its digest only: another login may be let in elsewhere.
            shown = [secret["name"], target, context.volume_digest(folder)]
            found.append((Mount(folder, target), shown))
    return found


def _user(task: Task, mounts: tuple[Mount, ...], context: RunContext) -> str:
    """Return whom the container runs as; "" leaves the image's user.

    In an engine that is the caller where the step writes to what belongs to the caller beside its
    outputs; bubblewrap maps every user to the caller by itself.
    """
    own = places.outputs_inside(task.name)
    if context.sandbox.name == "docker" and any(m.writable and m.target != own for m in mounts):
        return f"{os.geteuid()}:{os.getegid()}"
    security = task.settings.get("securityContext", {})
    user = str(security.get("runAsUser", ""))
    return f"{user}:{security.get('runAsGroup', user)}" if user else ""


def _timeout(settings: Mapping[str, Any]) -> float | None:
    seconds = int(settings.get("activeDeadlineSeconds", 0))
    return float(seconds) if seconds else None


def _memory(task: Task) -> int | None:
    """Return the memory limit of `task` in bytes; a parameter may hold it."""
    if text := _resource(task, "resourceMemoryLimit"):
        return kubernetes.memory(text)
    gigabytes = float(_resource(task, "memoryLimit") or 0)  # of packages before kfp 2.9
    return int(gigabytes * 1e9) or None


def _needs(task: Task) -> Needs:
    """Return what a queue is asked for.

    As Kubernetes places a pod: the processors of the request, or else of the limit. A queue ends a
    step that uses more memory than it was asked for, so of that it is the limit, or the request.
    """
    request = _resource(task, "resourceMemoryRequest")
    memory = _memory(task) or (kubernetes.memory(request) if request else 0)
    for name in ("resourceCpuRequest", "resourceCpuLimit"):
        if text := _resource(task, name):
            return Needs(task.name, kubernetes.cpus(text), memory)
    older = _resource(task, "cpuRequest") or _resource(task, "cpuLimit")  # before kfp 2.9
    return Needs(task.name, float(older or 0), memory)


def _resource(task: Task, name: str) -> str:
    resources = task.container.get("resources", {})
    return str(placeholders.filled(resources.get(name, ""), task.parameters))
