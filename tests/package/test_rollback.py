"""A function goes back to an earlier image, and what changes by that is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.store import Store

from . import gateway
from .conftest import ROOT, Run, push_base
from .conftest import write_servable as write


@pytest.fixture
def fake() -> Iterator[gateway.Fake]:
    with gateway.serve() as state:
        yield state


@pytest.fixture
def two(store: Store, registry_host: str, run: Run, servable: Path) -> tuple[str, str]:
    """Return two images of one function, with other models, the earlier one first."""
    names = {
        "function_image": str(push_base(store, registry_host)),
        "model_repo": f"{registry_host}/served/model",
        "artifact_repo": f"{registry_host}/served/artifact",
    }
    first = run(**names)["image"]
    write(servable, {"fold_1": b"another model"})
    return first, run(**names)["image"]


def task(fake: gateway.Fake, store: Store, *words: str) -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ, "OPENFAAS_PASSWORD": fake.password, "OPENFAAS_URL": fake.url,
        "PLATELINE_STORE": str(store.root),
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "cli", *words], cwd=ROOT, env=env, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_it_goes_back_and_says_what_changes(
    fake: gateway.Fake, store: Store, two: tuple[str, str]
) -> None:
    first, second = two
    fake.not_ready = 0
    assert task(fake, store, "deploy", "--image", second).returncode == 0
    digest = first.partition("@")[2]
    dry = task(fake, store, "rollback", "--to", digest, "--dry-run", "--json")
    assert dry.returncode == 0, dry.stderr
    changed = {(c["kind"], c["old"] == "") for c in json.loads(dry.stdout)["changes"]}
    assert {("image", False), ("model", False)} <= changed
    assert fake.functions["model"]["image"] == second
    done = task(fake, store, "rollback", "--to", digest)
    assert done.returncode == 0, done.stderr
    assert fake.functions["model"]["image"] == first
    assert f"image: {second} -> {first}" in done.stderr
    assert len(fake.tiles) == 2


def test_there_must_be_something_to_go_back_from_and_to(
    fake: gateway.Fake, store: Store, two: tuple[str, str]
) -> None:
    first, second = two
    said = task(fake, store, "rollback", "--to", first)
    assert said.returncode == 1
    assert "has no function model, so there is nothing to go back from" in said.stderr
    fake.functions["model"] = {"service": "model", "image": second}
    assert "runs" in task(fake, store, "rollback", "--to", second).stderr
    lost = task(fake, store, "rollback", "--to", "v0")
    assert (lost.returncode, "has no tag v0" in lost.stderr) == (1, True)
    assert fake.functions["model"]["image"] == second
