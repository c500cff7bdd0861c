"""What each image will be made of, as data, and the keys that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from builder import oci
from builder.errors import BuilderError
from builder.oci import canonical, layer
from builder.oci.layer_plan import LayerPlan

# Part of every key: a change in how images are made changes all of them.
FORMAT = "image-1"
CREATED = "2020-01-01T00:00:00Z"
GZIP, ZSTD = COMPRESSIONS = ("gzip", "zstd")


@dataclass(frozen=True, slots=True)
class LayerStep:
    """A layer to be, with its key, what the recipe says for it, and on which line.

    `shape` is what the folders and links of the layer depend on: no content of a file where these
    are known before it is made, otherwise the key. `gzip` is the step whose tar this one compresses
    by zstd, where it does.
    """

    key: str
    plan: LayerPlan
    created_by: str
    line: int
    shape: str
    gzip: LayerStep | None = None


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """An image to be: `needs` are the images that its layers copy from.

    `pulled` is set for an image of a registry, which is there already. `native` are the Debian
    packages at its root, the lowest first, as platform.NATIVE has them: their Python compiles for
    every platform. `compression` is how its layers are compressed; those of a `pulled` one are as
    they came.
    """

    name: str
    key: str
    base: ImagePlan | None
    needs: tuple[ImagePlan, ...]
    layers: tuple[LayerStep, ...]
    config: Mapping[str, Any]
    pulled: oci.Image | None = None
    native: tuple[LayerPlan, ...] = ()
    compression: str = GZIP

    def shape(self) -> tuple[str, ...]:
        """Return what the folders and links of the image depend on."""
        if self.pulled:
            return (self.key,)
        below = self.base.shape() if self.base else ()
        return (*below, *(step.shape for step in self.layers))

    def record(self) -> dict[str, Any]:
        """Return what the key was made of, for a later plan to be compared with."""
        return {
            "name": self.name,
            "key": self.key,
            "format": [FORMAT, layer.FORMAT],
            "base": self.base.record() if self.base else None,
            "needs": [need.record() for need in self.needs],
            "layers": [[s.key, s.line, s.created_by, s.plan.inputs] for s in self.layers],
            "config": self.config.get("config") or {},
        }


def action_key(value: Mapping[str, Any]) -> str:
    """Return the key of what depends on `value` and on this format."""
    return canonical.sha256(canonical.dumps({"format": FORMAT, **value})).removeprefix("sha256:")


def in_zstd(plan: ImagePlan) -> ImagePlan:
    """Return the plan of the same image with its layers compressed by zstd.

    Files, config and diff_ids are the same, digests and keys others. An image of a registry is as
    it came, and so are the images that are copied from.
    """
    if plan.pulled:
        return plan
    from builder.oci.zstd import FORMAT as zstd  # noqa: N811 - costs time

    def other(kind: str, key: str) -> str:
        return action_key({kind: key, "compression": zstd})

    return replace(
        plan,
        key=other("image", plan.key),
        base=in_zstd(plan.base) if plan.base else None,
        layers=tuple(
            replace(step, key=other("layer", step.key), gzip=step) for step in plan.layers
        ),
        compression=ZSTD,
    )


def check_compression(text: str) -> None:
    """Raise BuilderError where `text` names no compression that is known."""
    if text not in COMPRESSIONS:
        known = " or ".join(COMPRESSIONS)
        raise BuilderError(f"no layer is compressed by {text!r} here; write {known}")
