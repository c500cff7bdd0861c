"""Which image a run takes where a package pins an index, and what it refuses."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from builder import oci
from builder.oci.reference import Reference
from builder.platform import AMD64, ARM64, Platform, here
from builder.registry.client import Registry
from builder.registry.pull import pull
from builder.store import Store
from pipeline.errors import PipelineError
from pipeline.run.runner import find_images
from pipeline.spec.package import Package
from tests.builder import small


def pinning(digest: str, name: str = "localhost/t/a") -> Package:
    container = {"image": f"{name}@{digest}"}
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
    store: Store, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = small.index(store, small.image(store))
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=platform.machine))
    image = taken(store, found.digest)
    assert image.config["architecture"] == platform.architecture
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


def test_an_index_that_the_store_lacks_comes_from_its_registry_for_this_machine(
    store: Store, registry_host: str, tmp_path: Path
) -> None:
    found, fresh = small.index(store, small.image(store)), Store.open(tmp_path / "fresh")
    with Registry(registry_host) as registry:
        pin = small.push_index(store, found, f"{registry_host}/p", "a", registry)
        ((name, image),) = find_images(
            pinning(found.digest, pin.partition("@")[0]),
            fresh,
            lambda asked: pull(fresh, registry, Reference.parse(asked)),
        ).items()
    assert name == pin
    assert image == found.images[[AMD64, ARM64].index(here())]
    assert all(fresh.has(layer.blob) for layer in image.layers)
