"""The fuzz jobs of parsers that only the images have: each runs inside its own image."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from builder.build.workspace import Workspace
from builder.sandbox.engines import choose
from builder.sandbox.process import run
from builder.store import Store
from builder.testing import stage_tests

pytestmark = pytest.mark.slow

_HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("target", "job"),
    [("function", "head"), ("function", "tensor"), ("function", "picture"), ("prepare", "tiff")],
)
def test_inside_the_image(target: str, job: str, tmp_path: Path) -> None:
    store = Store.open()
    image = stage_tests.with_testing(Workspace.load(_HERE.parents[1]), store, target)
    env = {n: v for n in ("PLATELINE_FUZZ_SECONDS",) if (v := os.environ.get(n))}
    process = stage_tests.pytest(
        image, _HERE, ["--rootdir=/tests", f"/tests/inside/test_{job}.py"], env
    )
    with (tmp_path / "log").open("w+b") as log, store.in_use():
        ended = run(choose("auto", store), process, log)
        log.seek(0)
        text = io.TextIOWrapper(log, errors="replace").read()
    assert ended.code == 0, text
