"""Which image a run takes where a package pins an index, and what it refuses."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from builder import oci
from builder.platform import AMD64, ARM64
from builder.store import Store
from pipeline.errors import PipelineError
from pipeline.run.runner import find_images
from pipeline.spec.package import Package
from tests.builder import small


def pinning(digest: str) -> Package:
    container = {"image": f"localhost/t/a@{digest}"}
    return Package(
        "sha256:" + "1" * 64,
        "p",
        {"deploymentSpec": {"executors": {"e": {"container": container}}}},
        {},
    )


def taken(store: Store, digest: str) -> oci.Image:
    (found,) = find_images(pinning(digest), store, lambda _: None).values()
    return found


@pytest.mark.parametrize("platform", [AMD64, ARM64])
def test_a_run_takes_the_image_for_its_machine(
    store: Store, platform: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = small.index(store, small.image(store))
    machine = platform.machine  # type: ignore[attr-defined]
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    image = taken(store, found.digest)
    assert image.config["architecture"] == platform.architecture  # type: ignore[attr-defined]
    assert image in found.images


def test_an_image_for_another_machine_is_refused_by_name(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = small.index(store, small.image(store))
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="x86_64"))
    with pytest.raises(PipelineError, match=r"is for linux/arm64 and this machine is linux/amd64"):
        taken(store, found.images[1].digest)
    with pytest.raises(PipelineError, match="neither in the store"):
        taken(store, "sha256:" + "0" * 64)
