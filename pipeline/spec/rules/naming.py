"""Names and paths of a package that may not be used, and values that open this machine's store."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipeline.errors import PipelineError
from pipeline.spec import names
from pipeline.spec.kubernetes import constant_name, source
from pipeline.spec.package import PINNED, Package, dags
from pipeline.spec.rules.finding import Finding, Found, declared, texts

_PIPELINE = re.compile(r"[^\x00-\x1f\x7f/\\]{1,128}")
# Setting -> the kind of its entries' name; these become volumes of a pod, named after it.
_VOLUMES = {"pvcMount": "pvcName", "secretAsVolume": "secretName",
            "configMapAsVolume": "configMapName", "emptyDirMounts": "volumeName",
            "genericEphemeralVolume": "volumeName"}  # fmt: skip
# Setting -> the kind of its entries' name, and the field of a pair that names the key.
_PULLS = {"imagePullSecret": "secretName"}
_VARIABLES = {"secretAsEnv": ("secretName", "secretKey"),
              "configMapAsEnv": ("configMapName", "configMapKey")}  # fmt: skip


def check_names(package: Package) -> Found:
    """Yield every name and path of `package` that would lead somewhere else than it should."""
    if not _PIPELINE.fullmatch(package.name):
        yield Finding(
            "pipelineInfo.name", "bad-name",
            f"{package.name[:120]!r} cannot name a pipeline; use at most 128 signs, no slashes and "
            "no control characters",
        )  # fmt: skip
    yield from _keys(package)
    defaults = {
        name: found.get("defaultValue", "")
        for name, found in declared(package.spec["root"], "inputs", "parameters").items()
    }
    for label, executor in package.spec["deploymentSpec"].get("executors", {}).items():
        yield from _executor(label, executor)
    for label, settings in package.kubernetes.items():
        yield from _kubernetes(f"platforms.kubernetes.{label}", settings, defaults)
    yield from _store(package)
    for where, text in texts({**package.spec, "platforms.kubernetes": package.kubernetes}):
        if "\0" in text:
            yield Finding(
                where, "bad-name",
                "it holds a NUL character, which no argument, variable or path can; remove it",
            )  # fmt: skip


def _refused(where: str, rule: str, check: Callable[..., Any], *words: str) -> Found:
    try:
        check(*words)
    except PipelineError as error:
        yield Finding(where, rule, str(error))


def _keys(package: Package) -> Found:
    def key(where: str, what: str, name: str) -> Found:
        yield from _refused(where, "bad-name", names.key, what, name)

    for name in package.spec["deploymentSpec"].get("executors", {}):
        yield from key("deploymentSpec.executors", "the executor", name)
    components = package.spec.get("components", {})
    for name in components:
        yield from key("components", "the component", name)
    for name, component in {"root": package.spec["root"], **components}.items():
        for side in ("inputs", "outputs"):
            for kind in ("parameters", "artifacts"):
                for inner in declared(component, side, kind):
                    yield from key(f"{name}.{side}", f"the {side[:-1]} {kind[:-1]}", inner)
    for name, component in dags(package):
        for task in component["dag"].get("tasks", {}):
            yield from key(name, "the task", task)


def _executor(label: str, executor: Mapping[str, Any]) -> Found:
    for entry in executor.get("container", {}).get("env", []):
        yield from _refused(f"{label}.env", "bad-name", names.variable, entry.get("name", ""))
    uri = executor.get("importer", {"artifactUri": {"constant": ""}}).get("artifactUri", {})
    if not uri.keys() & {"constant", "runtimeParameter"}:
        yield Finding(
            f"{label}.artifactUri", "bad-path",
            "it takes the artifact from nowhere; give it an artifact_uri",
        )  # fmt: skip


def _kubernetes(where: str, settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> Found:
    mounted: list[str] = []
    for setting, kind in _VOLUMES.items():
        for place, entry in _entries(where, settings, setting):
            path = entry.get("mountPath", "")
            yield from _refused(f"{place}.mountPath", "bad-path", names.mount_path, path)
            yield from _refused(
                f"{place}.subPath", "bad-path", names.sub_path, entry.get("subPath", "")
            )
            if name := _name(entry, kind, defaults):
                yield from _refused(f"{place}.{kind}", "bad-name", names.label, f"the {kind}", name)
            if path.rstrip("/") in mounted:
                yield Finding(
                    f"{place}.mountPath", "bad-path",
                    f"{path!r} is mounted twice; choose another folder for one of them",
                )  # fmt: skip
            mounted.append(path.rstrip("/"))
    for setting, kind in _PULLS.items():
        for place, entry in _entries(where, settings, setting):
            if name := constant_name(entry, kind):
                yield from _refused(
                    f"{place}.{kind}", "bad-name", names.subdomain, f"the {kind}", name
                )
    for setting, (kind, field) in _VARIABLES.items():
        for place, entry in _entries(where, settings, setting):
            if name := constant_name(entry, kind):
                yield from _refused(
                    f"{place}.{kind}", "bad-name", names.subdomain, f"the {kind}", name
                )
            for pair in entry.get("keyToEnv", []):
                yield from _refused(
                    f"{place}.{field}", "bad-name", names.secret_key, pair.get(field, "")
                )
                yield from _refused(
                    f"{place}.envVar", "bad-name", names.variable, pair.get("envVar", "")
                )
    for place, entry in _entries(where, settings, "fieldPathAsEnv"):
        yield from _refused(f"{place}.name", "bad-name", names.variable, entry.get("name", ""))


def _name(entry: Mapping[str, Any], kind: str, defaults: Mapping[str, Any]) -> str:
    """Return the name in `entry`, where a parameter holds it that of a run which leaves it out.

    The compiler calls what it hands down to a loop or a condition pipelinechannel--<parameter>.
    """
    handed = str(source(entry, kind).get("componentInputParameter", ""))
    return constant_name(entry, kind) or str(
        defaults.get(handed.removeprefix("pipelinechannel--"), "")
    )


def _entries(
    where: str, settings: Mapping[str, Any], setting: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for index, entry in enumerate(settings.get(setting, [])):
        yield f"{where}.{setting}[{index}]", entry


def _store(package: Package) -> Found:
    """Check that nothing but a parameter of the run names this machine's own store."""

    def opens(where: str, value: Any) -> Found:
        if names.reaches_store(value) and not PINNED.fullmatch(value):
            yield Finding(
                where, "store-access",
                f"{value[:120]!r} lets the step write images into the store of the machine that "
                "runs it; make it a parameter of the pipeline, or name a registry",
            )  # fmt: skip

    for name, component in package.spec.get("components", {}).items():
        for key, definition in declared(component, "inputs", "parameters").items():
            yield from opens(f"{name}.{key}", definition.get("defaultValue"))
    for name, component in dags(package):
        for task, found in component["dag"].get("tasks", {}).items():
            for key, given in found.get("inputs", {}).get("parameters", {}).items():
                yield from opens(
                    f"{name}.{task}.{key}", given.get("runtimeValue", {}).get("constant")
                )
