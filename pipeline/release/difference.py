"""What changed from one package to another."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.spec import provenance
from pipeline.spec.package import Package, load


@dataclass(frozen=True, order=True)
class Change:
    """A difference: `kind` (parameter, stage, package, …), its `name`, old and new ('' = none)."""

    kind: str
    name: str
    old: str
    new: str


def compare(one: bytes, other: bytes) -> list[Change]:
    """Return the changes from package `one` to `other`, sorted.

    Commits, parameters with their defaults, images and their layers, settings of steps, and the
    wheels and Debian packages of every lock file. Raises PipelineError for a package of others.
    """
    old, new = provenance.read(one), provenance.read(other)
    first, second = _load(one), _load(other)
    found = list(_changes("commit", {"": _commit(old)}, {"": _commit(new)}))
    found += _changes("parameter", _parameters(first), _parameters(second))
    found += _changes("image", _digests(old), _digests(new))
    for name in sorted({*old["images"], *new["images"]}):
        found += [
            Change("layer", f"{name}: {change.name}", change.old, change.new)
            for change in _changes("layer", _layers(old, name), _layers(new, name))
        ]
    found += _changes("setting", _settings(first), _settings(second))
    for lock in sorted({*old["locks"], *new["locks"]}):
        kind = "deb" if Path(lock).name.startswith("debian.") else "wheel"
        stage = Path(lock).parent.name
        found += [
            Change(kind, f"{stage}: {change.name}", change.old, change.new)
            for change in _changes(kind, _packages(old, lock), _packages(new, lock))
        ]
    return sorted(set(found))  # the locks of two platforms change alike


def _load(package: bytes) -> Package:
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write(package)
        file.flush()
        return load(Path(file.name))


def _changes(kind: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[Change]:
    for name in {*old, *new}:
        if old.get(name) != new.get(name):
            yield Change(kind, name, old.get(name, ""), new.get(name, ""))


def _commit(made: Mapping[str, Any]) -> str:
    return f"{made['commit']}{' with changes' if made['dirty'] else ''}"


def _digests(made: Mapping[str, Any]) -> dict[str, str]:
    return {name: image["digest"] for name, image in made["images"].items()}


def _layers(made: Mapping[str, Any], image: str) -> dict[str, str]:
    return dict(made["images"].get(image, {}).get("layers", {}))


def _packages(made: Mapping[str, Any], lock: str) -> dict[str, str]:
    return dict(made["locks"].get(lock, {}).get("packages", {}))


def _parameters(package: Package) -> dict[str, str]:
    declared = package.spec["root"].get("inputDefinitions", {}).get("parameters", {})
    return {
        name: f"{definition['parameterType']} = {definition.get('defaultValue')!r}"
        for name, definition in declared.items()
    }


def _settings(package: Package) -> dict[str, str]:
    """Return step and setting -> value of what is not the image: resources, limits, mounts."""
    found = {}
    executors = package.spec["deploymentSpec"].get("executors", {})
    for label, executor in executors.items():
        container = executor.get("container", {})
        for name, value in container.items():
            if name not in {"image", "env"}:
                found[f"{label} {name}"] = str(value)
    for label, settings in package.kubernetes.items():
        for name, value in settings.items():
            found[f"{label} {name}"] = str(value)
    return found
