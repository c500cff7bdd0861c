"""The same inputs give the same package, whatever else differs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from builder.store import Store
from pipeline.errors import PipelineError
from pipeline.spec.compile import TARGETS, Settings, compile_package
from pipeline.spec.package import Package, load
from pipeline.spec.provenance import Provenance, read

ROOT = Path(__file__).resolve().parents[3]
PINS = {name: f"registry.test/p/{name}@sha256:{'ab' * 32}" for name in TARGETS}
MADE = Provenance("c" * 40, dirty=False, images={}, locks={})


def compiled(tmp_path: Path, pins=PINS) -> Package:
    path = tmp_path / "p.yaml"
    path.write_bytes(compile_package(pins, Settings(), MADE, Store.open(tmp_path / "store")).data)
    return load(path)


def test_every_container_runs_a_pinned_image_of_ours(tmp_path: Path):
    images = compiled(tmp_path).images()
    assert set(images.values()) == {pin for name, pin in PINS.items() if name != "function"}


def test_an_image_without_digest_is_refused(tmp_path: Path):
    with pytest.raises(PipelineError, match="not pinned"):
        compiled(tmp_path, pins={**PINS, "train": "registry.test/p/train:latest"})


def test_a_missing_image_is_refused(tmp_path: Path):
    with pytest.raises(PipelineError, match="train"):
        compiled(tmp_path, pins={k: v for k, v in PINS.items() if k != "train"})


@pytest.mark.parametrize("wrong", [{"gpus": -1}, {"builder": "podman"}])
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(PipelineError):
        Settings(**wrong)


def test_the_second_compilation_is_a_lookup_and_gives_the_same_bytes(tmp_path: Path):
    store = Store.open(tmp_path / "store")
    first = compile_package(PINS, Settings(), MADE, store)
    second = compile_package(PINS, Settings(), MADE, store)
    assert (first.cached, second.cached) == (False, True)
    assert first.data == second.data


@pytest.mark.parametrize(
    "change",
    [
        {"settings": Settings(gpus=1)},
        {"settings": Settings(builder="docker")},
        {"pins": {**PINS, "train": PINS["train"].replace("ab", "cd")}},
        {"provenance": replace(MADE, dirty=True)},
    ],
)
def test_whatever_enters_the_package_changes_its_digest(tmp_path: Path, change):
    store = Store.open(tmp_path / "store")
    given = {"pins": PINS, "settings": Settings(), "provenance": MADE}
    first = compile_package(**given, store=store)
    assert compile_package(**{**given, **change}, store=store).digest != first.digest


def test_a_damaged_package_in_the_store_is_made_again(tmp_path: Path):
    store = Store.open(tmp_path / "store")
    first = compile_package(PINS, Settings(), MADE, store)
    path = store.path(first.digest)
    path.chmod(0o644)
    path.write_bytes(b"x" + first.data[1:])
    assert compile_package(PINS, Settings(), MADE, store).data == first.data


SCRIPT = """
import json, sys
from pathlib import Path
from builder.store import Store
from pipeline.compile import Settings, compile_package
from pipeline.provenance import Provenance
pins = json.loads(sys.argv[1])
made = Provenance("c" * 40, False, {}, {})
print(compile_package(pins, Settings(), made, Store.open(Path(sys.argv[2]))).digest)
"""


def test_the_bytes_do_not_depend_on_path_user_time_zone_locale_or_hash_seed(tmp_path: Path):
    digests = set()
    for number, environment in enumerate(
        (
            {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "1", "USER": "a", "HOME": "/tmp"},
            {"TZ": "Asia/Tokyo", "LC_ALL": "de_DE.UTF-8", "PYTHONHASHSEED": "99", "USER": "b"},
        )
    ):
        home = tmp_path / f"checkout é {number}"
        for floor in ("builder", "pipeline"):
            shutil.copytree(ROOT / floor, home / floor)
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, json.dumps(PINS), str(home / "store")],
            cwd=home, env={**os.environ, **environment}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        digests.add(done.stdout)
    assert len(digests) == 1


def test_a_package_says_what_it_was_made_from(tmp_path: Path):
    data = compile_package(PINS, Settings(), MADE, Store.open(tmp_path / "store")).data
    assert read(data) == {"commit": "c" * 40, "dirty": False, "images": {}, "locks": {}}


def test_a_package_of_others_does_not():
    with pytest.raises(PipelineError, match="invoke compile"):
        read(b"# PIPELINE DEFINITION\n")
