"""A Compose file started on this machine, and the address where its function answers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.serving.workload import PORT


def up(file: Path, name: str) -> tuple[bool, str]:
    """Start or update the service `name` of a Compose file.

    Return whether it ran before, and its address. The project is called as the service. Raises
    PipelineError with what Compose says.
    """
    compose = [*_program(), "--file", str(file), "--project-name", name]
    existed = bool(_run([*compose, "ps", "--quiet", name]).strip())
    _run([*compose, "up", "--detach"])
    where = _run([*compose, "port", name, str(PORT)])
    return existed, f"http://{where.strip()}"


def _program() -> list[str]:
    """Return Docker Compose as it is here; raises PipelineError where it is not installed."""
    if shutil.which("docker"):
        asked = subprocess.run(["docker", "compose", "version"], check=False, capture_output=True)
        if not asked.returncode:
            return ["docker", "compose"]
    if found := shutil.which("docker-compose"):
        return [found]
    raise PipelineError(
        "Docker Compose is not installed; install with `apt-get install docker-compose`, or write "
        "the file by --dry-run"
    )


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise PipelineError(
            f"{' '.join(command)} failed with exit code {done.returncode}: "
            f"{done.stderr.strip()[-1000:]}"
        )
    return done.stdout
