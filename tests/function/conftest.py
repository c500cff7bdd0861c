"""The function's image, built once, and a function that tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from builder import oci
from builder.build.make import build
from builder.build.workspace import Workspace
from builder.sandbox.bubblewrap import Bubblewrap
from builder.store import Store

from .running import ROOT, Function, servable, serving


@pytest.fixture(scope="session")
def built() -> Store:
    """Return the user's store: images are built there once, not once a test."""
    return Store.open()


@pytest.fixture(scope="session")
def image(built: Store) -> oci.Image:
    return build(Workspace.load(ROOT), built, ["function"])["function"].image


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    folder.chmod(0o755)  # the function's user is not the one who runs the tests
    return servable(folder)


@pytest.fixture(scope="session")
def function(built: Store, image: oci.Image, models: Path) -> Iterator[Function]:
    with serving(Bubblewrap(built), image, models) as found:
        yield found
