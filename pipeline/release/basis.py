"""The function image that a packaged image stands on: named by it, and held against it.

What is known of a packaged image is what is known of its base, as long as it adds models only.
"""

from __future__ import annotations

from typing import Any

from builder import oci
from builder.errors import BuilderError
from builder.oci.reference import Reference
from builder.registry import pull
from builder.registry.client import Registries
from builder.sandbox import layer_tar
from builder.store import Store
from pipeline.errors import PipelineError
from pipeline.release.trace import BASE_DIGEST, BASE_NAME

_FOLDER = "models"
_RUN_BY = ("Cmd", "Entrypoint", "Env", "User", "WorkingDir")  # what a container starts as


def base_of(registries: Registries, store: Store, reference: Reference) -> Reference:
    """Return the pinned name of the image on which the packaged image `reference` stands.

    Its top layer is brought into the store and read, that of each platform where it is an index.
    Raises PipelineError where the image is not that base with one more layer of plain files in
    /models and the same start; and BuilderError where a registry lacks or damages something.
    """
    named = _named(registries, store, reference)
    if not all(image.layers for image in named.images):
        raise _no_package(reference, "it has no layers")
    bases = {str(base): base for base in map(_base, [reference] * len(named.images), named.images)}
    if len(bases) != 1:
        raise _no_package(reference, f"its images stand on {' and '.join(sorted(bases))}")
    (base,) = bases.values()
    under = {_platform(image): image for image in _named(registries, store, base).images}
    for image in named.images:
        if _platform(image) not in under:
            raise _no_package(reference, f"{base} has no image for {_platform(image)}")
        _check(registries, store, reference, image, base, under[_platform(image)])
    return base


def _base(reference: Reference, image: oci.Image) -> Reference:
    """Return the name of the function image that an image says it stands on."""
    try:
        names = image.config["config"]["Labels"]
        return Reference.parse(f"{names[BASE_NAME]}@{names[BASE_DIGEST]}")
    except (KeyError, TypeError, BuilderError):
        raise _no_package(reference, "it names no function image") from None


def _platform(image: oci.Image) -> str:
    return f"{image.config.get('os')}/{image.config.get('architecture')}"


def _check(
    registries: Registries,
    store: Store,
    reference: Reference,
    image: oci.Image,
    base: Reference,
    under: oci.Image,
) -> None:
    """Raise PipelineError where `image` is not `under` with one more layer of models."""
    if [layer.diff_id for layer in image.layers[:-1]] != [layer.diff_id for layer in under.layers]:
        raise _no_package(reference, f"it is not {base} with one more layer")
    if _start(image) != _start(under):
        raise _no_package(reference, f"it starts otherwise than {base}, on which it stands")
    top = image.layers[-1]
    pull.fetch(store, registries.at(reference.host), reference.repository, top.blob)
    for entry in layer_tar.read(store, top):
        plain = entry.kind == "file" and entry.path.rpartition("/")[0] == _FOLDER
        if not plain and (entry.kind, entry.path) != ("dir", _FOLDER):
            raise _no_package(reference, f"its top layer has {entry.path!r}, which is no model")


def _named(registries: Registries, store: Store, reference: Reference) -> oci.Image | oci.Index:
    registry = registries.at(reference.host)
    found = pull.named(store, registry, reference.repository, reference.digest)
    if found is None:
        raise BuilderError(f"{reference} is not in the registry; push it or mend the digest")
    return found


def _start(image: oci.Image) -> dict[str, Any]:
    """Return what a container of the image starts as; engines write nothing in several ways."""
    settings = image.config.get("config") or {}
    return {key: settings[key] for key in _RUN_BY if settings.get(key)}


def _no_package(reference: Reference, why: str) -> PipelineError:
    return PipelineError(
        f"{reference} is no image that the package stage made: {why}; package the models again"
    )
