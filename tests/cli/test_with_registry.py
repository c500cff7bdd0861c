"""What goes through a registry: one in a container, its image made by the builder itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from builder.build.make import build
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.sandbox.docker import Docker
from builder.store import Store
from tests import task
from tests.cli.conftest import ROOT, Task, refused
from tests.conftest import missing


@pytest.fixture(scope="session")
def docker_compose_command() -> str:
    """Debian's package is a program of its own."""
    return "docker-compose"


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    return str(ROOT / "tests" / "compose.yaml")


@pytest.fixture(scope="session")
def docker_setup(registry_image: None) -> str:
    """Start what compose.yaml names, once the image it needs is in the engine."""
    return "up -d"


@pytest.fixture(scope="session")
def registry_image() -> None:
    """Build the registry's image and load it into the engine, where compose looks for it."""
    store = Store.open()
    try:
        sandbox = Docker(store)
    except BuilderError as error:
        missing(f"a Docker Engine ({error})", "apt-get install docker.io, then start dockerd")
    if not shutil.which("docker-compose"):
        missing("docker-compose", "apt-get install docker-compose")
    image = build(Workspace.load(ROOT / "tests" / "registry"), store)["registry"].image
    os.environ["PLATELINE_REGISTRY_IMAGE"] = sandbox.load(image)


@pytest.fixture(scope="session")
def filled(docker_services) -> str:
    """Return HOST/PREFIX of the registry after a push of every image."""
    host = f"127.0.0.1:{docker_services.port_for('registry', 5000)}"
    docker_services.wait_until_responsive(timeout=30, pause=0.2, check=lambda: _answers(host))
    subprocess.run(
        [sys.executable, "-m", "cli", "push-images", "--registry", f"{host}/plateline"],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    return f"{host}/plateline"


def _answers(host: str) -> bool:
    try:
        urllib.request.urlopen(f"http://{host}/v2/", timeout=1).close()
    except (urllib.error.URLError, OSError):
        return False
    return True


@pytest.fixture(scope="module")
def fresh(filled: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return an empty store after `compile --registry`, and what that printed."""
    folder = tmp_path_factory.mktemp("fresh")
    store = folder / "cache" / "store"
    done = subprocess.run(
        [*task.TASK, "compile", "--registry", filled, "--json"],
        cwd=folder, capture_output=True, text=True, check=False,
        env=task.environment(PLATELINE_STORE=str(store), PLATELINE_CACHE_SAMPLE="0"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return store, json.loads(done.stdout)


def test_a_fresh_clone_compiles_from_a_filled_registry_without_a_layer(
    fresh: tuple[Path, dict[str, Any]], filled: str
):
    store, said = fresh
    assert said["pins"]
    assert all(p.startswith(f"{filled}/") and "@sha256:" in p for p in said["pins"].values())
    kept = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    assert kept < 2_000_000, "layers were downloaded"


def test_both_ways_to_the_images_give_the_same_package(
    invoke: Task, filled: str, fresh: tuple[Path, dict[str, Any]]
):
    built = json.loads(invoke("compile", "--registry", filled, "--json").stdout)
    assert built["digest"] == fresh[1]["digest"]


def test_a_registry_that_lacks_the_images_is_refused_with_the_command(invoke: Task, filled: str):
    elsewhere = f"{filled}-elsewhere"
    done = invoke("compile", "--registry", elsewhere)
    refused(done, f"{elsewhere}/prepare@sha256:", f"push-images --registry {elsewhere}")


def test_no_registry_at_all_is_refused_with_both_ways_out(invoke: Task):
    refused(invoke("compile", PLATELINE_REGISTRY=""), "--registry", "--allow-local")


def test_a_release_is_listed_and_comes_back_byte_for_byte_without_the_source(
    invoke: Task, filled: str, tmp_path: Path
):
    made = invoke(
        "release", "--registry", filled, "--allow-dirty", "--no-test", "--tag", "v1", "--json"
    )
    assert made.returncode == 0, made.stderr
    facts = json.loads(made.stdout)
    listed = json.loads(invoke("releases", "--registry", filled, "--json").stdout)["releases"]
    assert facts["package"] in [release["package"] for release in listed]
    package = (tmp_path / "dist" / "plateline.yaml").read_bytes()
    for which in ("v1", facts["package"], facts["release"].partition("@")[2]):
        invoke("pull-release", which, "--registry", filled, "--output", "back.yaml")
        assert (tmp_path / "back.yaml").read_bytes() == package
    again = invoke(
        "release", "--registry", filled, "--allow-dirty", "--no-test", "--tag", "v1", "--json"
    )
    assert json.loads(again.stdout)["release"] == facts["release"]


def test_an_unknown_release_is_refused(invoke: Task, filled: str):
    refused(invoke("pull-release", "v999", "--registry", filled), "v999", "invoke releases")


def test_diff_names_the_setting_that_changed(invoke: Task, filled: str, tmp_path: Path):
    invoke("compile", "--registry", filled, "--output", "one.yaml")
    settings = tmp_path / "settings.toml"
    settings.write_text('[cluster.stages.train]\ncpu = ["3", "5"]\n')
    other = ("--output", "two.yaml", "--settings", str(settings))
    invoke("compile", "--registry", filled, *other)
    changes = json.loads(invoke("diff", "one.yaml", "two.yaml", "--json").stdout)["changes"]
    assert [change["name"] for change in changes] == ["exec-train resources"]
    assert "'resourceCpuLimit': '5'" in changes[0]["new"]
