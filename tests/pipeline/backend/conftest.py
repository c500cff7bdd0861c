"""The small image, and packages around it."""

from __future__ import annotations

import pytest
import yaml
from kfp import compiler

from pipeline.spec.package import load
from tests.pipeline.run.conftest import busybox, written


@pytest.fixture
def image(store):
    return f"localhost/test/busybox@{busybox(store).digest}"


@pytest.fixture
def package(image, tmp_path):
    """Return a package written by hand: see `written`."""

    def do(steps):
        path = tmp_path / "written.yaml"
        path.write_text(yaml.safe_dump_all(written(image, steps, None)))
        return load(path)

    return do


@pytest.fixture
def compiled(tmp_path):
    """Return the package of a pipeline function."""

    def do(function):
        path = tmp_path / "package.yaml"
        compiler.Compiler().compile(function, str(path))
        return load(path)

    return do
