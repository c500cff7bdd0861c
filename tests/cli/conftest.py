"""Tasks as a person types them: a process in a folder of its own, over the real store."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import task

ROOT = task.ROOT
Task = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def invoke(tmp_path: Path) -> Task:
    """Return a function that runs `invoke WORDS` in tmp_path and returns how it ended."""

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*task.TASK, *words],
            cwd=tmp_path, env=task.environment(**environment), capture_output=True, text=True,
            check=False, timeout=600,
        )  # fmt: skip

    return run


def refused(done: subprocess.CompletedProcess[str], *names: str) -> None:
    """Assert that a task failed with one message that holds `names`, and no traceback."""
    assert done.returncode not in {0, -2}, done.stdout
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    for name in names:
        assert name in done.stderr, done.stderr


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the package of this checkout, its images built in the real store."""
    path = tmp_path_factory.mktemp("package") / "plateline.yaml"
    subprocess.run(
        [sys.executable, "-m", "cli", "compile", "--allow-local", "--output", str(path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    return path


@pytest.fixture(scope="session")
def tried_once(compiled: Path) -> Path:
    """Return that package with steps that are not tried again, after a pause, where they fail.

    This checkout did not compile it: `run` needs --trust.
    """
    path = compiled.with_name("once.yaml")
    text, number = re.subn("maxRetryCount: [0-9]+", "maxRetryCount: 0", compiled.read_text())
    assert number
    path.write_text(text)
    return path
