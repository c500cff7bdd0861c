"""What the quality gate of validate found, read from a packaged image, as a statement to be signed.

validate writes it into the manifest that lies beside the models, so it comes from the image itself:
nothing that only refers to the image is believed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from builder import oci
from builder.oci.reference import Reference
from builder.registry import pull
from builder.registry.client import Registry
from builder.sandbox import layer_tar
from builder.store import Store
from pipeline.errors import PipelineError

# docs/policy.md describes its form.
QUALITY_GATE = "urn:plateline:quality-gate:v1"
_FOLDER = "models"
_MANIFEST = "manifest.json"
_LARGEST_MANIFEST = 4 << 20
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Gate:
    """A packaged image, and the predicate about it."""

    image: oci.Descriptor
    predicate: Mapping[str, Any]


def read(registry: Registry, store: Store, reference: Reference) -> Gate:
    """Return what the gate found of the models in a packaged image, which is named by digest.

    Its top layer, which is the same for each platform, is brought into the store, and each model is
    hashed. Raises PipelineError where
    the image has no models, other ones than its manifest names, none that passed, or was made by a
    validate that did not write it; and BuilderError where the registry lacks or damages it.
    """
    if not reference.digest:
        raise PipelineError(f"{reference} is a tag, which can move; name the image by @sha256:…")
    named = pull.named(store, registry, reference.repository, reference.digest)
    if named is None or not all(image.layers for image in named.images):
        raise PipelineError(f"{reference} is not there, or has no layers")
    top, *others = [image.layers[-1] for image in named.images]
    if any(layer.blob.digest != top.blob.digest for layer in others):
        raise PipelineError(
            f"{reference} has other models for one platform than for another; package them again"
        )
    pull.fetch(store, registry, reference.repository, top.blob)
    manifest, hashes = _models(store, top)
    return Gate(named.manifest, predicate(manifest, hashes, str(reference)))


def _models(store: Store, layer: oci.Layer) -> tuple[bytes, dict[str, str]]:
    """Return the models' manifest, and the SHA-256 of each other file beside it."""
    manifest, hashes = b"", {}
    for entry in layer_tar.read(store, layer):
        folder, _, name = entry.path.rpartition("/")
        if entry.kind != "file" or folder != _FOLDER:
            continue
        with entry.open() as stream:
            if name == _MANIFEST:
                manifest = stream.read(_LARGEST_MANIFEST)
                continue
            seen = hashlib.sha256()
            while data := stream.read(_CHUNK):
                seen.update(data)
            hashes[name] = seen.hexdigest()
    return manifest, hashes


def predicate(manifest: bytes, hashes: Mapping[str, str], name: str) -> dict[str, Any]:
    """Return the predicate for a manifest and the models beside it; pure.

    Raises PipelineError as `read` does; `name` is the image's.
    """
    try:
        document = json.loads(manifest, parse_constant=_no_number)
        gate, models = document["gate"], document["models"]
        threshold = float(gate["f1_threshold"])
        reached = {model: float(found["weighted_f1"]) for model, found in gate["models"].items()}
        wanted = {model["file"]: model["sha256"].removeprefix("sha256:") for model in models}
        said = [
            {
                "name": model["name"],
                "fold": model["fold"],
                "variant": model["variant"],
                "digest": {"sha256": wanted[model["file"]]},
                "metrics": gate["models"][model["fold"]],
            }
            for model in models
        ]
        plate = gate["plate_digest"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise PipelineError(
            f"the top layer of {name} does not say what the quality gate found; it holds no models "
            "of the package stage, or was made before validate wrote that: run the pipeline again"
        ) from None
    if not wanted or wanted != dict(hashes):
        raise PipelineError(f"the models in {name} are not those that its manifest names")
    # What is signed follows from the numbers, not from the word beside them.
    passed = all(f1 >= threshold for f1 in reached.values())
    if not reached or not passed or gate["passed"] is not True:
        raise PipelineError(
            f"the models in {name} did not pass the gate, a weighted F1 of {threshold:g} for each "
            f"({', '.join(f'{model}: {f1:.3g}' for model, f1 in reached.items())}); only a pass is "
            "signed"
        )
    if not isinstance(plate, str) or not oci.is_digest(plate):
        raise PipelineError(f"{name} does not say which plate its models were judged on")
    return {
        "result": "PASSED",
        "thresholds": {"weighted_f1": threshold},
        "plate": {"digest": {"sha256": plate.removeprefix("sha256:")}},
        "manifest": {"digest": {"sha256": hashlib.sha256(manifest).hexdigest()}},
        "models": said,
    }


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")
