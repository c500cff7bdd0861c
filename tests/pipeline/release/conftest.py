from __future__ import annotations

import pytest

from builder import oci
from builder.store import Store
from pipeline.definition.stages import TARGETS
from tests.pipeline.release.parts import image


@pytest.fixture
def images(store: Store) -> dict[str, oci.Image]:
    """Return a small image for each target of the pipeline."""
    return {name: image(store, name) for name in TARGETS}


@pytest.fixture
def in_memory(request: pytest.FixtureRequest) -> bool:
    """Tell that the images are small; a slow test releases whole ones."""
    return request.node.get_closest_marker("slow") is None
