"""Pictures in every way they can be sent, answered for the well and each tile."""

import base64
import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from common import tiling
from common.errors import StageError
from common.pooling import pooled
from conftest import MODELS, encode, tile, write_manifest
from function import pictures
from PIL import Image


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_a_tile_is_answered_by_each_model_their_mean_and_the_class(function):
    answer = function.ask(body=encode(tile(110)), Content_Type="image/png")
    assert answer.status == 200
    found = answer.json
    each = [sigmoid(11 - 10), sigmoid(11 - 12)]
    assert [m["name"] for m in found["models"]] == ["A", "B"]
    assert [m["probability"] for m in found["models"]] == pytest.approx(each, abs=1e-5)
    assert found["probability"] == pytest.approx(np.mean(each), abs=1e-5)
    assert found["class"] == "positive"
    assert found["picture"] == {"width": 256, "height": 256, "columns": 1, "rows": 1}
    assert all(m["digest"].startswith("sha256:") for m in found["models"])
    assert function.ask(body=encode(tile(90))).json["class"] == "negative"


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP"])
def test_every_format_and_way_of_sending_gives_the_same(function, form):
    data = encode(tile(107), form)
    boundary = b"--here\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\n"
    ways = [
        (data, f"image/{form.lower()}"),
        (data, "application/x-www-form-urlencoded"),  # what curl --data-binary says
        (b"--here\r\nContent-Disposition: form-data; name=note\r\n\r\nx\r\n"
         + boundary + data + b"\r\n--here--\r\n", "multipart/form-data; boundary=here"),
        (json.dumps({"image": base64.b64encode(data).decode()}), "application/json"),
    ]  # fmt: skip
    found = [function.ask(body=body, Content_Type=kind) for body, kind in ways]
    assert [answer.status for answer in found] == [200] * 4
    assert len({answer.body for answer in found}) == 1


def test_a_well_is_tiled_as_prepare_does_it_and_judged_as_validate_does_it(function):
    """`tile_well` is what prepare calls, whole batches what validate runs."""
    random = np.random.default_rng(7)
    signal, dna = random.integers(60, 200, (2, 700, 1100), np.uint8)
    signal[:, :300] //= 2
    tiles = tiling.tile_well(Image.fromarray(signal), Image.fromarray(dna))
    sessions = [onnxruntime.InferenceSession(path) for path in sorted(MODELS.glob("*.onnx"))]
    each = np.array([s.run(None, {"tiles": tiles})[0].reshape(-1) for s in sessions])
    answer = function.ask(body=encode(np.stack([signal * 0, signal, dna], axis=-1))).json
    assert answer["picture"] == {"width": 1100, "height": 700, "columns": 4, "rows": 3}
    assert answer["tiles"] == pytest.approx(each.mean(axis=0).tolist(), abs=1e-6)
    assert answer["probability"] == pytest.approx(float(pooled(each).mean()), abs=1e-6)
    assert [m["probability"] for m in answer["models"]] == pytest.approx(
        pooled(each).tolist(), abs=1e-6
    )


def test_a_well_is_scaled_as_the_layout_says_and_other_sizes_are_refused(start, models):
    write_manifest(models, layout={"size": [640, 640], "target": [768, 768]})
    random = np.random.default_rng(3)
    signal, dna = random.integers(0, 200, (2, 640, 640), np.uint8)
    tiles = tiling.tile_well(Image.fromarray(signal), Image.fromarray(dna), (768, 768))
    picture = encode(np.stack([signal * 0, signal, dna], axis=-1))
    session = onnxruntime.InferenceSession(MODELS / "A.onnx")
    with start() as function:
        found = function.ask(body=picture).json
        assert (found["picture"]["columns"], found["picture"]["rows"]) == (3, 3)
        assert found["models"][0]["probability"] == pytest.approx(
            float(pooled(session.run(None, {"tiles": tiles})[0][:, 0])), abs=1e-6
        )
        assert len(function.ask(body=encode(tile())).json["tiles"]) == 1
        assert len(function.ask(body=encode(tile(size=(768, 768)))).json["tiles"]) == 9
        refused = function.ask(body=encode(tile(size=(512, 512))))
        assert refused.status == 400
        assert "256 x 256 or 768 x 768 or 640 x 640" in refused.json["error"]


def test_the_page_takes_nothing_from_elsewhere(function):
    answer = function.ask("GET", "/", Accept="text/html")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert b"http" not in answer.body  # no address of anything


def test_openapi_names_every_address_and_what_it_answers(function):
    document = function.ask("GET", "/openapi.json").json
    for path, operations in document["paths"].items():
        path = path.replace("{model}", "A").replace("{version}", "1")  # noqa: PLW2901
        assert function.ask("PUT", path).status == 405
        for method, operation in operations.items():
            answer = function.ask(method.upper(), path)
            assert str(answer.status) in operation["responses"], path


def test_openapi_describes_the_answer_as_it_is(function):
    schema = function.ask("GET", "/openapi.json").json["components"]["schemas"]["Answer"]
    answer = function.ask(body=encode(tile())).json
    assert sorted(schema["required"]) == sorted(answer)
    kinds = {"string": str, "number": float, "array": list, "object": dict}
    for name, part in schema["properties"].items():
        assert isinstance(answer[name], kinds[part["type"]])


@pytest.mark.parametrize("token", b",[{")
def test_a_json_body_of_too_many_values_is_refused_at_the_first_that_is_too_many(token):
    most = pictures.MOST_VALUES
    filler = b'"' + b"A" * 300
    for many in (most, most + 1):
        body = b'"' + bytes([token]) * many + filler[1:] + b'"'
        if many > most:
            with pytest.raises(StageError, match="more than 1000 of the signs"):
                pictures.parse_json(body, b",[{")
        else:
            assert pictures.parse_json(body, b",[{") == body[1:-1].decode()


def test_a_start_loads_no_reader_of_plates():
    script = "import sys, function.app; print([n for n in sys.modules if n.startswith('common.')])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "common.tiling" in done.stdout
    assert "common.layout" not in done.stdout
    assert "common.kinds" not in done.stdout
