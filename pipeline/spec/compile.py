"""Pinned images and settings in, a package out: the same inputs give the same bytes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from builder.errors import BuilderError
from builder.oci import canonical
from builder.store import Store
from pipeline.errors import PipelineError
from pipeline.spec.provenance import Provenance
from pipeline.spec.sdk import compiler

FORMAT = 3
_LIBRARIES = ("kfp", "kfp-kubernetes", "kfp-pipeline-spec", "protobuf", "PyYAML")


@dataclass(frozen=True)
class Definition:
    """A pipeline to compile.

    `targets` are the images that it runs, `options` what else decides its content, `folder` holds
    the sources of the pipeline, and `build` returns it for target -> repository@sha256:…
    """

    targets: tuple[str, ...]
    options: Mapping[str, Any]
    folder: Path
    build: Callable[[Mapping[str, str]], Callable[..., Any]]


@dataclass(frozen=True)
class Compiled:
    """A package: its bytes, its digest, and whether they were known already."""

    data: bytes
    digest: str
    cached: bool


def compile_package(
    definition: Definition, pins: Mapping[str, str], provenance: Provenance, store: Store
) -> Compiled:
    """Compile a pipeline with `pins` (target -> repository@sha256:…), check it, and keep it.

    What was compiled before from the same inputs comes from the store: kfp is then not imported.
    Raises PipelineError for an image that is not pinned and for what the lint refuses.
    """
    key = package_key(definition, pins, provenance)
    if found := store.get_result(key):
        try:
            data = store.read(found["package"])
            return Compiled(data, found["package"], cached=True)
        except BuilderError:
            pass  # removed or damaged: made again below
    data = _compile(definition, pins, provenance)
    digest = store.add(data).digest
    store.put_result(key, {"package": digest})
    return Compiled(data, digest, cached=False)


def package_key(definition: Definition, pins: Mapping[str, str], provenance: Provenance) -> str:
    """Return the action key of a package: all that its bytes, or its being refused, depend on.

    The code counts with every file of the rooms that take part, so that none can be forgotten.
    """
    rooms = {
        "definition": definition.folder, "spec": Path(__file__).parent,
        "oci": Path(canonical.__file__).parent,
    }  # fmt: skip
    code = {
        f"{room}/{path.relative_to(folder).as_posix()}": canonical.sha256(path.read_bytes())
        for room, folder in rooms.items()
        for path in sorted(folder.rglob("*.py"))
    }
    versions = {name: version(name) for name in _LIBRARIES}
    action = {
        "package": FORMAT, "code": code, "versions": versions, "pins": dict(pins),
        "options": dict(definition.options), "provenance": asdict(provenance),
    }  # fmt: skip
    return canonical.sha256(canonical.dumps(action)).removeprefix("sha256:")


def version(package: str) -> str:
    """Return the version of an installed package, from the name of its folder of metadata.

    As importlib.metadata does, which loads email, csv and zipfile for it, longer than all else that
    a known package takes. Source of the name:
    https://packaging.python.org/specifications/recording-installed-packages/.
    """
    start, end = f"{package.replace('-', '_')}-".lower(), ".dist-info"
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - names alone
        except OSError:
            continue
        for name in names:
            if name.endswith(end) and name.lower().startswith(start):
                return name[len(start) : -len(end)]
    from importlib import metadata

    return metadata.version(package)


def _compile(definition: Definition, pins: Mapping[str, str], provenance: Provenance) -> bytes:
    import tempfile

    from pipeline.spec import lint
    from pipeline.spec.package import image_digest

    for name in definition.targets:
        if name not in pins:
            raise PipelineError(f"no image was given for {name}; build it by `invoke build-images`")
        image_digest(pins[name])
    kfp = compiler()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "package.yaml"
        pipeline: Any = definition.build(pins)
        info = pipeline.pipeline_spec.pipeline_info
        info.description = provenance.described(info.description)
        kfp.compile(pipeline, str(path))
        data = path.read_bytes()
        findings = lint.lint(path)
    if findings:
        raise PipelineError("the pipeline cannot be released: " + "; ".join(map(str, findings)))
    return data


def remember(store: Store, checkout: Path, digest: str) -> None:
    """Keep that the checkout at `checkout` compiled the package `digest`."""
    if compiled_here(store, checkout, digest):
        return
    store.put_result(
        _compiled_key(checkout, digest), {"compiled": digest, "in": str(checkout.resolve())}
    )


def compiled_here(store: Store, checkout: Path, digest: str) -> bool:
    """Tell whether the checkout at `checkout` compiled the package `digest`."""
    found = store.get_result(_compiled_key(checkout, digest))
    return found is not None and found.get("compiled") == digest


def _compiled_key(checkout: Path, digest: str) -> str:
    action = {"compiled": digest, "in": str(checkout.resolve())}
    return canonical.sha256(canonical.dumps(action)).removeprefix("sha256:")


def write(data: bytes, path: Path) -> None:
    """Write a package, whole or not at all; raises PipelineError where that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise PipelineError(f"cannot write {path} ({error.strerror}); choose --output") from None
