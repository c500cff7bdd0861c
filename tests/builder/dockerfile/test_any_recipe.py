"""Any recipe gives the tree and the config that BuildKit makes of it, or is refused by name.

PLATELINE_FUZZ_SECONDS sets the length of the search. Without it a few recipes are made up, the
same ones each time.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.store import Store
from tests.builder.docker_images import DOCKER, Tree, ours, theirs
from tests.builder.recipes import Example, examples, written
from tests.conftest import missing

SECONDS = float(os.environ.get("PLATELINE_FUZZ_SECONDS") or 0)
END = time.monotonic() + SECONDS
# What is refused here alone: each stands in the table of docs/builder.md.
MEANT = re.compile(
    r"nothing matches .* \(or \.dockerignore hides it\)"
    r"|in \$\{.*\} there are :-word, :\+word and :\?message"
    r"|is empty, because .* has no value here|is empty; write a value"
    r"|follows the list|the line ends with two backslashes"
    r"|several files go to|there is no name after"
)


@pytest.fixture(scope="module", autouse=True)
def _engine() -> None:
    found = shutil.which(DOCKER)
    if not found or subprocess.run([DOCKER, "info"], capture_output=True, check=False).returncode:
        missing("a Docker Engine", "apt-get install docker.io, then start dockerd")


Image = tuple[Tree, dict[str, Any]]


def tried(make: Callable[[], Image]) -> Image | BuilderError:
    """Return what `make` makes, a WORKDIR as it is meant, or its refusal."""
    try:
        tree, config = make()
    except BuilderError as error:
        return error
    return tree, {**config, "WorkingDir": posixpath.normpath(config.get("WorkingDir", "/"))}


@pytest.mark.slow
@pytest.mark.timeout(0 if SECONDS else 900)
@settings(
    max_examples=10**6 if SECONDS else 15,
    derandomize=not SECONDS,
    database=None,
    deadline=None,
    phases=[Phase.generate, *([Phase.shrink] if SECONDS else [])],
    suppress_health_check=list(HealthCheck),
)
@given(example=examples())
def test_a_recipe_gives_what_buildkit_makes_of_it_or_is_refused(example: Example) -> None:
    if SECONDS and time.monotonic() > END:
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = written(example, folder / "context")
        store = Store.open(folder / "store")
        mine = tried(lambda: ours(store, Workspace.load(root)))
        other = tried(lambda: theirs(root, folder))
    if isinstance(mine, BuilderError):
        assert re.match(r"stages/a/Dockerfile:\d+: |\.dockerignore:\d+: ", str(mine))
        assert isinstance(other, BuilderError) or MEANT.search(str(mine)), mine
    else:
        assert mine == other
