"""Builds that cannot be: one message with the file and the way out; partial output is removed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from builder.store import Store
from tests.cli.conftest import ROOT, refused


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of the files that git knows, to be spoilt."""
    folder = tmp_path / "checkout"
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if name.startswith(
            ("builder/", "cli/", "pipeline/", "stages/", "tasks.py", ".dockerignore")
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


def invoke(checkout: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli", *words], cwd=checkout, env={**os.environ, **environment},
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip


def test_a_recipe_with_run_is_refused_with_its_line_and_the_way_out(checkout: Path):
    recipe = checkout / "stages" / "prepare" / "Dockerfile"
    line = len(recipe.read_text().splitlines()) + 1
    with recipe.open("a") as file:
        file.write("RUN pip install numpy\n")
    done = invoke(checkout, "build-images")
    refused(done, f"stages/prepare/Dockerfile:{line}", "RUN", "requirements.in")


def test_a_debian_lock_with_a_wrong_hash_is_refused_with_the_package(
    checkout: Path, tmp_path: Path
):
    lock = checkout / "stages" / "base" / "debian.lock"
    lines = lock.read_text().splitlines(keepends=True)
    name = lines[2].split()[0]
    lines[2] = re.sub(r"[0-9a-f]{64}", "0" * 64, lines[2])
    lock.write_text("".join(lines))
    done = invoke(
        checkout, "build-images", "--targets", "base",
        PLATELINE_STORE=str(tmp_path / "cache" / "store"),
    )  # fmt: skip
    refused(done, name, "0000000000")


@pytest.mark.slow
def test_a_wheel_lock_with_a_wrong_hash_is_refused_with_the_wheel(checkout: Path, tmp_path: Path):
    lock = checkout / "stages" / "testing" / "requirements.linux-amd64.lock"
    text = lock.read_text()
    name = re.search(r"^([a-z0-9-]+)==", text, re.MULTILINE).group(1)
    first = re.search(r"sha256:[0-9a-f]{64}", text).group()
    lock.write_text(text.replace(first, "sha256:" + "0" * 64))
    done = invoke(
        checkout, "build-images", "--targets", "testing",
        PLATELINE_STORE=str(tmp_path / "cache" / "store"),
    )  # fmt: skip
    refused(done, name, "hash", "invoke lock")


def test_a_store_that_cannot_be_written_is_named(checkout: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    store = tmp_path / "file" / "store"
    refused(invoke(checkout, "build-images", PLATELINE_STORE=str(store)), str(store))


def test_an_unknown_target_is_refused_with_those_there_are(checkout: Path):
    refused(invoke(checkout, "build-images", "--targets", "trian"), "trian", "train")


def test_an_engine_that_does_not_exist_is_refused_with_those_there_are(checkout: Path):
    done = invoke(checkout, "check-plate", ".", "--engine", "rkt")
    refused(done, "rkt", "bubblewrap")


@pytest.mark.slow
def test_ctrl_c_in_a_build_leaves_nothing_half_written(checkout: Path, tmp_path: Path):
    store = tmp_path / "cache" / "store"
    environment = {**os.environ, "PLATELINE_STORE": str(store)}
    wheels = Path(os.environ.get("PLATELINE_STORE", Path.home() / ".cache/plateline/store"))
    (tmp_path / "cache").mkdir()
    if (wheels.parent / "downloads").is_dir():
        (tmp_path / "cache" / "downloads").symlink_to(wheels.parent / "downloads")
    for _ in range(3):
        started = subprocess.Popen(
            [sys.executable, "-m", "cli", "build-images", "--targets", "prepare"], cwd=checkout,
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert started.stderr.readline().startswith("  ")  # a layer was made, the next one is
        started.send_signal(signal.SIGINT)
        _, said = started.communicate(timeout=60)
        assert "Traceback" not in said
        assert started.returncode == 130, said
        assert said.endswith("interrupted; partial output was removed\n")
        assert not list((store / "tmp").iterdir())
        kept = Store.open(store)
        for blob in (store / "blobs" / "sha256").glob("*"):
            kept.verify(f"sha256:{blob.name}")
    done = invoke(checkout, "build-images", "--targets", "prepare", PLATELINE_STORE=str(store))
    assert done.returncode == 0, done.stderr
    clean = invoke(checkout, "build-images", "--targets", "prepare")
    digest = re.compile(r"sha256:[0-9a-f]{64}")
    assert digest.findall(done.stdout) == digest.findall(clean.stdout)


def test_what_a_bad_recipe_does_not_stop_is_pushed_and_the_rest_is_named(
    checkout: Path, tmp_path: Path, registry_host: str
) -> None:
    with (checkout / "stages/train/Dockerfile").open("a") as file:
        file.write("RUN make\n")
    (checkout / "stages/prepare/requirements.linux-amd64.lock").unlink()
    prefix = f"{registry_host}/plateline"
    done = invoke(checkout, "push-images", "--registry", prefix, "--targets", "base,train")
    refused(done, "train not built: stages/train/Dockerfile:", f"pushed to {prefix}: base")
    for words in (["compile", "--registry", prefix], ["compile", "--allow-local"]):
        done = invoke(checkout, *words)
        refused(done, "train not built: stages/train/Dockerfile:", "prepare not built: ")
        assert "lock --targets prepare" in done.stderr
    assert invoke(checkout, "explain", "base").returncode == 0
    drawn = invoke(checkout, "graph")
    assert drawn.returncode == 0
    assert "what train stands on is not known: stages/train/Dockerfile:" in drawn.stderr
