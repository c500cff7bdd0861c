"""The image runs as any user, on a read-only root, under each engine."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from builder.errors import BuilderError
from builder.sandbox.engines import choose
from builder.sandbox.process import Mount, Process, run

from .running import png, serving


@pytest.fixture(params=["bubblewrap", "docker"])
def sandbox(request, built):
    try:
        return choose(request.param, built)
    except BuilderError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("user", ["", "12000:12000", "65534:0"])
def test_any_user_serves_on_a_read_only_root_and_ends_with_0(sandbox, image, models, user):
    with serving(sandbox, image, models, user=user) as function:
        assert function.ask(body=png()).json["class"] == "positive"
        assert function.ask("GET", "/_/health").status == 200
        assert function.metrics()['http_requests_total{code="200",method="POST"}'] == 1
        assert function.running.stop(grace=20).code == 0


def test_the_image_without_models_is_small(image):
    assert image.size <= 120e6


def test_without_models_the_function_says_what_is_missing(built, image):
    with tempfile.TemporaryFile() as output:
        ended = run(choose("bubblewrap", built), Process(image=image, timeout=30), output)
        output.seek(0)
        text = output.read().decode()
    assert ended.code == 1
    assert "cannot read the models in /models" in text
    assert "Traceback" not in text


def test_a_model_changed_by_one_byte_is_refused_by_its_digest(built, image, models, tmp_path):
    for path in models.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "A.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    process = Process(
        image=image, mounts=(Mount(Path(tmp_path), "/models"),), network=False, timeout=30
    )
    with tempfile.TemporaryFile() as output:
        assert run(choose("bubblewrap", built), process, output).code == 1
        output.seek(0)
        text = output.read().decode()
    assert "manifest.json wants" in text
    assert "A.onnx" in text
