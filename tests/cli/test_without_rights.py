"""The tasks in a plain Debian container of an ordinary user, which can isolate nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.build.make import build
from builder.build.workspace import Workspace
from builder.packages.download import downloads_folder
from builder.store import Store
from pipeline.definition.stages import TARGETS
from tests import debian_hosts
from tests.conftest import missing
from tests.debian_hosts import ROOT

VERSION = f"3.{sys.version_info.minor}"
InContainer = Callable[..., tuple[int, str, str]]
SOURCES = (
    "builder", "pipeline", "stages", "cli", "tasks.py", "pyproject.toml", "requirements.lock",
    ".dockerignore", ".gitignore",
)  # fmt: skip
IDENTITY = ("-c", "user.name=n", "-c", "user.email=e@localhost")


@pytest.fixture
def in_container(tmp_path: Path) -> Iterator[InContainer]:
    """Yield a function that runs a task there and returns its exit code, stdout and stderr.

    All share one store, empty at first, and one clone of this checkout. The network is the host's.
    """
    engine = debian_hosts.docker_engine()
    suites = [suite for suite, version in debian_hosts.SUITES.items() if version == VERSION]
    if not suites:
        versions = ", ".join(debian_hosts.SUITES.values())
        missing(f"a release of Debian with Python {VERSION}", f"run the tests by one of {versions}")
    image = debian_hosts.user_land(engine, tmp_path / "host", suites[0], "git", "ca-certificates")
    home = tmp_path / "home"
    code = debian_hosts.checkout(home / "code", *SOURCES)
    for words in (["init", "-q"], ["add", "."], [*IDENTITY, "commit", "-q", "-m", "all"]):
        subprocess.run(["git", *words], cwd=code, check=True)
    (home / "plateline/downloads").mkdir(parents=True)
    subprocess.run(["chown", "-R", "1000:1000", str(home)], check=True)
    container = engine.client.containers.create(
        image, ["-c", "import signal; signal.pause()"], entrypoint=[f"/usr/bin/python{VERSION}"],
        user="1000:1000", working_dir="/home/u/code", network_mode="host", init=True,
        environment={"HOME": "/home/u", "PYTHONPATH": "/site:/home/u/code",
                     "PLATELINE_STORE": "/home/u/plateline/store", "LC_ALL": "C.UTF-8",
                     "PYTHONDONTWRITEBYTECODE": "1"},
        volumes={
            str(home): {"bind": "/home/u", "mode": "rw"},
            str(downloads_folder()): {"bind": "/home/u/plateline/downloads", "mode": "ro"},
            sysconfig.get_path("purelib"): {"bind": "/site", "mode": "ro"},
        },
    )  # fmt: skip

    def run(*words: str) -> tuple[int, str, str]:
        command = [f"/usr/bin/python{VERSION}", "-m", "cli", *words]
        code, (out, err) = container.exec_run(command, demux=True)
        return code, (out or b"").decode(), (err or b"").decode()

    try:
        container.start()
        yield run
    finally:
        container.remove(force=True)


def answer(ended: tuple[int, str, str]) -> Any:
    code, out, err = ended
    assert code == 0, err[-3000:]
    return json.loads(out)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # all images from an empty store
def test_images_packages_and_releases_are_made_there_with_the_same_digests(
    in_container: InContainer, registry_host: str
) -> None:
    built = build(Workspace.load(ROOT), Store.open(), list(TARGETS))
    here = {name: b.image.digest for name, b in built.items()}
    prefix = f"{registry_host}/plateline"
    there = answer(in_container("build-images", "--targets", ",".join(TARGETS), "--json"))
    assert {name: image["digest"] for name, image in there.items()} == here
    pushed = answer(
        in_container("push-images", "--registry", prefix, "--targets", ",".join(TARGETS), "--json")
    )
    pins = {name: f"{prefix}/{name}@{digest}" for name, digest in here.items()}
    assert {name: image["reference"] for name, image in pushed.items()} == pins
    compiled = answer(in_container("compile", "--registry", prefix, "--json"))
    assert compiled["pins"] == pins
    assert in_container("lint", "dist/plateline.yaml")[0] == 0
    verified = in_container("verify-images", "base")
    assert verified[0] == 0, verified[2]
    assert "all digests match" in verified[2]
    code, _, said = in_container("release", "--registry", prefix)
    assert code == 1
    assert "--no-test" in said
    released = answer(in_container("release", "--registry", prefix, "--no-test", "--json"))
    assert released["images"] == here


@pytest.mark.slow
def test_what_needs_isolation_says_what_this_container_needs(in_container: InContainer) -> None:
    for words in (["demo"], ["doctor"], ["test-stage", "validate"]):
        code, out, said = in_container(*words)
        assert code == 1, words
        assert "Traceback" not in said
        for word in ("seccomp=unconfined", "systempaths=unconfined", "podman", "Docker"):
            assert word in out + said, (words, said)
