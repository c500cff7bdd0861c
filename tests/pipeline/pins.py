"""Images and an origin for packages that tests compile."""

from __future__ import annotations

from pipeline.definition.stages import MODEL, TARGETS, images_of
from pipeline.spec.provenance import Provenance

_NAMES = (*TARGETS, *images_of(MODEL, 1))
PINS = {name: f"registry.test/p/{name}@sha256:{'ab' * 32}" for name in _NAMES}
MADE = Provenance("c" * 40, dirty=False, images={}, locks={})
