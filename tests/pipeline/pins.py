"""Images and an origin for packages that tests compile."""

from __future__ import annotations

from pipeline.definition.stages import TARGETS
from pipeline.spec.provenance import Provenance

PINS = {name: f"registry.test/p/{name}@sha256:{'ab' * 32}" for name in TARGETS}
MADE = Provenance("c" * 40, dirty=False, images={}, locks={})
