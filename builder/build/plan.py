"""What each image will be made of, as data, and the keys that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from builder import oci
from builder.oci import canonical, layer
from builder.oci.layer_plan import LayerPlan

# Part of every key: a change in how images are made changes all of them.
FORMAT = "image-1"
CREATED = "2020-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class LayerStep:
    """A layer to be, with its key, what the recipe says for it, and on which line.

    `shape` is what the folders and links of the layer depend on: no content of a file where these
    are known before it is made, otherwise the key.
    """

    key: str
    plan: LayerPlan
    created_by: str
    line: int
    shape: str


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """An image to be: `needs` are the images that its layers copy from.

    `pulled` is set for an image of a registry, which is there already. `native` are the Debian
    packages at its root, the lowest first, as platform.NATIVE has them: their Python compiles for
    every platform.
    """

    name: str
    key: str
    base: ImagePlan | None
    needs: tuple[ImagePlan, ...]
    layers: tuple[LayerStep, ...]
    config: Mapping[str, Any]
    pulled: oci.Image | None = None
    native: tuple[LayerPlan, ...] = ()

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
