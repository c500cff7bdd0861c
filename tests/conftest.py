"""Real peers for the tests: a registry process on loopback, and the Docker Engine if it answers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.store import Store
from tests import registries


def missing(what: str, command: str) -> None:
    """Skip with the command that would enable the test; fail where nothing may be skipped."""
    message = f"{what} is missing; {command}"
    if os.environ.get("PLATELINE_REQUIRE_ALL"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def registry_host(tmp_path: Path) -> Iterator[str]:
    """Yield HOST:PORT of an empty registry of Debian's package, ended after the test."""
    if not shutil.which(registries.PROGRAM):
        missing("docker-registry", "apt-get install docker-registry")
    with registries.serve(tmp_path / "registry") as host:
        yield host
