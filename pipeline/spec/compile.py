"""Pinned images and settings in, a package out: the same inputs give the same bytes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from builder.errors import BuilderError
from builder.oci import canonical
from builder.store import Store
from pipeline.errors import PipelineError
from pipeline.spec.provenance import Provenance

FORMAT = 1
STAGES = ("prepare", "train", "validate", "package")
TARGETS = (*STAGES, "function")
BUILDERS = ("registry", "docker")


@dataclass(frozen=True)
class Settings:
    """What is fixed when the pipeline is compiled: GPUs a train step, and who builds the image."""

    gpus: int = 0
    builder: str = "registry"

    def __post_init__(self) -> None:
        if self.gpus < 0:
            raise PipelineError(f"--gpus {self.gpus}: give 0 or a positive number")
        if self.builder not in BUILDERS:
            raise PipelineError(f"--builder {self.builder}: give one of {', '.join(BUILDERS)}")


@dataclass(frozen=True)
class Compiled:
    """A package: its bytes, its digest, and whether they were known already."""

    data: bytes
    digest: str
    cached: bool


def compile_package(
    pins: Mapping[str, str], settings: Settings, provenance: Provenance, store: Store
) -> Compiled:
    """Compile the pipeline with `pins` (target -> repository@sha256:…), check it, and keep it.

    What was compiled before from the same inputs comes from the store: kfp is then not imported.
    Raises PipelineError for an image that is not pinned and for what the lint refuses.
    """
    key = _key(pins, settings, provenance)
    if found := store.get_result(key):
        try:
            data = store.read(found["package"])
            return Compiled(data, found["package"], cached=True)
        except BuilderError:
            pass  # removed or damaged: made again below
    data = _compile(pins, settings, provenance)
    digest = store.add(data).digest
    store.put_result(key, {"package": digest})
    return Compiled(data, digest, cached=False)


def _key(pins: Mapping[str, str], settings: Settings, provenance: Provenance) -> str:
    here = Path(__file__).parent
    files = (
        "definition.py", "mounts.py", "compile.py", "lint.py", "run/package.py", "run/wiring.py",
    )  # fmt: skip
    code = {name: canonical.sha256((here / name).read_bytes()) for name in files}
    versions = {name: metadata.version(name) for name in ("kfp", "kfp-kubernetes")}
    return canonical.sha256(
        canonical.dumps(
            {
                "package": FORMAT, "code": code, "versions": versions, "pins": dict(pins),
                "settings": asdict(settings), "provenance": asdict(provenance),
            }
        )
    )  # fmt: skip


def _compile(pins: Mapping[str, str], settings: Settings, provenance: Provenance) -> bytes:
    from kfp import compiler

    from pipeline.definition import plate_to_model
    from pipeline.spec import lint
    from pipeline.spec.package import image_digest

    for name in TARGETS:
        if name not in pins:
            raise PipelineError(f"no image was given for {name}; build it by `invoke build-images`")
        image_digest(pins[name])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "package.yaml"
        compiler.Compiler().compile(plate_to_model.build(pins, settings), str(path))
        data = f"{provenance.line()}\n".encode() + path.read_bytes()
        path.write_bytes(data)
        findings = lint.lint(path)
    if findings:
        raise PipelineError("the pipeline cannot be released: " + "; ".join(map(str, findings)))
    return data


def write(data: bytes, path: Path) -> None:
    """Write a package, whole or not at all; raises PipelineError where that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise PipelineError(f"cannot write {path} ({error.strerror}); choose --output") from None
