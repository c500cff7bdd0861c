"""What is wrong with a compiled package, found without running it; also with others' packages.

The backend finds these faults hours later, or never: a container fails, a value is a literal
placeholder, or a result of yesterday's image is taken from the cache. Source of the rules:
api/v2alpha1/pipeline_spec.proto and backend/src/v2 (driver, cacheutils) of kubeflow/pipelines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from builder import oci
from pipeline.errors import PipelineError
from pipeline.spec import names, placeholders, values
from pipeline.spec.package import STUBS, Fault, Package, read
from pipeline.spec.rules.arguments import check_arguments, words
from pipeline.spec.rules.backend import check_backend
from pipeline.spec.rules.catalogue import BACKENDS, RULES, known_backend
from pipeline.spec.rules.finding import Finding, Found, declared, texts
from pipeline.spec.rules.inputs import check_inputs
from pipeline.spec.rules.lines import Lines
from pipeline.spec.rules.naming import check_names
from pipeline.spec.rules.notes import check_notes
from pipeline.spec.rules.wiring import check_wiring

__all__ = ["Finding", "examine", "lint"]


def lint(path: Path, backend: str = BACKENDS[-1]) -> list[Finding]:
    """Return the faults of the package at `path` on a backend, in the order of their places.

    Raises PipelineError for a file that is missing or no compiled pipeline at all, and for a
    backend of which nothing is known.
    """
    return _placed(path, [f for f in _kept(path, backend) if RULES[f.rule].fault])


def examine(path: Path, backend: str = BACKENDS[-1]) -> tuple[list[Finding], list[Finding]]:
    """Return the faults of the package at `path`, and what else is worth knowing of it.

    Raises PipelineError as `lint` does.
    """
    placed = _placed(path, _kept(path, backend))
    return (
        [finding for finding in placed if RULES[finding.rule].fault],
        [finding for finding in placed if not RULES[finding.rule].fault],
    )


def _kept(path: Path, backend: str) -> list[Finding]:
    """Return the findings that hold on a backend, without their lines."""
    version = known_backend(backend)
    package, faults = read(path)
    return [f for f in sorted(_findings(package, faults)) if RULES[f.rule].holds(version)]


def _placed(path: Path, found: list[Finding]) -> list[Finding]:
    """Return findings with their lines, for which the package is read again."""
    if not found:
        return []
    lines = Lines(path.read_bytes())
    return [replace(f, line=lines.of(f"{f.where}.{_field(f)}")) for f in found]


_NO_FIELD = re.compile(r'no field named "(\w+)"')


def _field(finding: Finding) -> str:
    found = _NO_FIELD.search(finding.message)
    return found[1] if found else ""


def _findings(package: Package, faults: list[Fault]) -> set[Finding]:
    found = {
        Finding(
            fault.where, "unknown-field",
            f"{fault.message}; mend the spelling, or compile the package again",
        )
        for fault in faults
    }  # fmt: skip
    if not all(fault.readable for fault in faults):
        return found  # what else would be found follows from the missing part
    half = tuple(f"{fault.where}." for fault in faults)
    for check in (
        check_names,
        _executors,
        check_wiring,
        check_inputs,
        check_arguments,
        check_backend,
        check_notes,
        _definitions,
        _strings,
    ):
        # A name that is missing where another is misspelt is no second fault.
        found.update(fault for fault in check(package) if not fault.where.startswith(half))
    return found


# Executors: what a container is.

_SECRET_NAME = re.compile(
    r"(?i)(^|[_.-])(pass(word|wd|phrase)|secret|token|credentials?|(api|access|private)[_-]?key)$"
)
_SECRET_FLAG = re.compile(
    r"(?i)^--?(pass(word|wd)|secret|token|(api|access|private)-?key)=(?!\{\{)(.+)"
)
_SECRET_VALUE = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\bAKIA[0-9A-Z]{16}\b"  # access key of AWS
    r"|\bgh[pousr]_[A-Za-z0-9]{36,}|\bgithub_pat_\w{40,}|\bglpat-[\w-]{20,}"
    r"|\bxox[abprs]-[\w-]{10,}|\bAIza[\w-]{35}\b"
    r"|\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}"  # JSON web token
    r"|://[^/\s:@{]+:[^/\s@{]+@"  # user and password in a URL
    r'|"auth"\s*:\s*"[A-Za-z0-9+/=]{8,}"'  # Docker's config.json
)


def _executors(package: Package) -> Found:
    executors = package.spec["deploymentSpec"].get("executors", {})
    for label, executor in executors.items():
        yield from _importer(label, executor.get("importer"))
        container = executor.get("container")
        if container is None:
            continue
        image = container.get("image", "")
        if image not in STUBS and not oci.is_digest(image.partition("@")[2]):
            yield Finding(
                label, "image-without-digest",
                f"the image {image!r} can change under its name; write repository@sha256:… "
                "(`invoke compile` does)",
            )  # fmt: skip
        for where, word in words(container):
            if _SECRET_FLAG.match(word):
                yield _secret(f"{label}.{where}")
        for entry in container.get("env", []):
            name, value = entry.get("name", ""), entry.get("value", "")
            if _SECRET_NAME.search(name) and value and not value.startswith(("/", "{{")):
                yield _secret(f"{label}.env.{name}")
    for label in package.kubernetes:
        if label not in executors:
            yield Finding(
                f"platforms.kubernetes.{label}", "missing-executor",
                "the Kubernetes part describes an executor that the pipeline does not have; "
                "compile both parts together",
            )  # fmt: skip
    for name, component in package.spec.get("components", {}).items():
        label = component.get("executorLabel")
        if label in executors:
            yield from _arguments(name, component, executors[label].get("container", {}))


def _importer(label: str, importer: Mapping[str, Any] | None) -> Found:
    """Check an importer's place and metadata (backend/src/v2/component/importer_launcher.go)."""
    if importer is None:
        return
    uri = importer.get("artifactUri", {})
    if "constant" in uri:
        try:
            names.imported(str(uri["constant"]))
        except PipelineError as error:
            yield Finding(f"{label}.artifactUri", "bad-path", str(error))
    for where, text in texts(importer.get("metadata", {})):
        if any(found.side for found in placeholders.find(text)):
            yield Finding(
                f"{label}.metadata.{where}", "literal-placeholder",
                f"the backend's importer does not fill in {text[:80]!r}; use a constant, or let a "
                "step write the metadata",
            )  # fmt: skip


def _secret(where: str) -> Finding:
    return Finding(
        where, "secret-in-argument",
        "a secret in an argument, a variable or a parameter is shown to everyone who sees the "
        "run; mount it from a secret by kfp.kubernetes.use_secret_as_volume",
    )  # fmt: skip


def _arguments(name: str, component: Mapping[str, Any], container: Mapping[str, Any]) -> Found:
    """Check that placeholders name what the component declares, and pass no secret."""
    for where, word in words(container):
        found = [one for one in placeholders.find(word) if one.side]
        shown = {one.name for one in found}
        if "{{$}}" in word:  # the executor input, with every parameter
            shown |= set(declared(component, "inputs", "parameters"))
        for key in sorted(filter(_SECRET_NAME.search, shown)):
            if key in declared(component, "inputs", "parameters"):
                yield _secret(f"{name}.{where} ({key})")
        for one in found:
            if one.name in declared(component, one.side, one.kind) or one.name.startswith(
                "pipelinechannel--"
            ):
                continue
            yield Finding(
                f"{name}.{where}", f"missing-{one.side[:-1]}",
                f"{one.text} names no {one.kind[:-1]} among the {one.side} of the component; "
                "declare it, or mend the name",
            )  # fmt: skip


# Values.


def _definitions(package: Package) -> Found:
    """Check defaults: that they are of their type, and no secrets."""
    components = {"root": package.spec["root"], **package.spec.get("components", {})}
    for name, component in components.items():
        for key, definition in declared(component, "inputs", "parameters").items():
            if "defaultValue" not in definition:
                continue
            value, where = definition["defaultValue"], f"{name}.{key}"
            if isinstance(value, str) and value and _SECRET_NAME.search(key):
                yield _secret(where)
            try:
                values.coerce(value, definition.get("parameterType", ""), key)
            except PipelineError as error:
                yield Finding(where, "wrong-type", f"{error}; mend the default")


def _strings(package: Package) -> Found:
    """Check every string of every part."""
    for where, text in texts({**package.spec, "platforms.kubernetes": package.kubernetes}):
        if "{{channel:" in text:
            yield Finding(
                where,
                "unresolved-channel",
                f"{text[:80]!r} is a literal placeholder of the compiler, not a value; pass the "
                "parameter as an argument instead of formatting it into a string",
            )
        if _SECRET_VALUE.search(text):
            yield _secret(where)
