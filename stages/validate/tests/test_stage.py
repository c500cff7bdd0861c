"""The validate stage, end to end, on tiny ONNX models serialised by hand."""

import json
import struct

import numpy as np
import pytest
from common import digest
from common.errors import StageError
from common.stage_io import StageIO
from common.tiles import Tile, write_index, write_plate
from validate.stage import validate


def _int(field, value):
    return _varint(field << 3) + _varint(value)


def _varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def _part(field, data):
    data = data.encode() if isinstance(data, str) else data
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _node(kind, inputs, output, attribute=b""):
    names = b"".join(_part(1, name) for name in inputs)
    return _part(1, names + _part(2, output) + _part(4, kind) + attribute)


def _value(name, kind, dims):
    shape = b"".join(_part(1, _part(2, d) if isinstance(d, str) else _int(1, d)) for d in dims)
    return _part(1, name) + _part(2, _part(1, _int(1, kind) + _part(2, shape)))


def _tensor(name, dims, values):
    raw = struct.pack(f"<{len(values)}f", *values)
    return _part(
        5, b"".join(_int(1, d) for d in dims) + _int(2, 1) + _part(8, name) + _part(9, raw)
    )


def onnx_model(weight, bias):
    """Return an ONNX file: sigmoid(weight * mean of the green channel + bias)."""
    axes = _part(5, _part(1, "axes") + _int(8, 1) + _int(8, 2) + _int(20, 7))
    keep = _part(5, _part(1, "keepdims") + _int(3, 0) + _int(20, 2))
    graph = (
        _node("Cast", ["tiles"], "f", _part(5, _part(1, "to") + _int(3, 1) + _int(20, 2)))
        + _node("ReduceMean", ["f"], "m", axes + keep)
        + _node("MatMul", ["m", "w"], "x")
        + _node("Add", ["x", "b"], "y")
        + _node("Sigmoid", ["y"], "probability")
        + _part(2, "g")
        + _tensor("w", [3, 1], [0, weight, 0])
        + _tensor("b", [1], [bias])
        + _part(11, _value("tiles", 2, ["n", 256, 256, 3]))
        + _part(12, _value("probability", 1, ["n", 1]))
    )
    return _int(1, 8) + _part(7, graph) + _part(8, _int(2, 13))


GOOD = onnx_model(0.1, -10)


def run(folder, models=None, labels=True, spoil=lambda _: None, threshold=0.9):
    tiles = folder / "tiles"
    tiles.mkdir()
    index, pictures, wells = [], [], []
    for row, fold in (("A", "A"), ("B", "B")):
        for column in range(1, 7):
            kind = int(column > 3)
            role, label = ("positive" if kind else "negative"), (kind if labels else 0)
            name = f"{row}{column:02d}"
            wells.append({"well": name, "fold": fold})
            for x in range(2):
                index.append(Tile(name, row, column, 0, 0, x, "", None, "", role, fold, label, ""))
                picture = np.zeros((256, 256, 3), np.uint8)
                picture[..., 1] = 150 + column if kind else 50 + column
                pictures.append(picture)
    np.save(tiles / "tiles.npy", np.array(pictures))
    write_index(tiles / "tiles.csv", index)
    write_plate(
        tiles,
        {
            "folds": ["A", "B"],
            "classes": ["negative", "positive"],
            "tile": 256,
            "layout": {"name": "test"},
            "wells": wells,
        },
    )
    collected = []
    for fold in ("A", "B"):
        model = folder / f"model-{fold}"
        model.mkdir()
        for name, data in {"model.onnx": GOOD, **(models or {})}.items():
            (model / name).write_bytes(data)
        files = digest.file_hashes(model)
        (model / "model.json").write_text(
            json.dumps(
                {
                    "fold": fold,
                    "model_type": "test",
                    "train_wells": [],
                    "validation_wells": [],
                    "files": files,
                }
            )
        )
        collected.append({"uri": str(model)})
    spoil(folder)
    names = ("servable", "results", "metrics", "classification", "report")
    task = StageIO(
        {
            "inputs": {
                "parameterValues": {"f1_threshold": threshold},
                "artifacts": {
                    "tiles": {"artifacts": [{"uri": str(tiles)}]},
                    "models": {"artifacts": collected},
                },
            },
            "outputs": {
                "artifacts": {n: {"artifacts": [{"uri": str(folder / "out" / n)}]} for n in names}
            },
        }
    )
    validate(task)
    return task, json.loads((folder / "out/servable/manifest.json").read_text())


def test_right_models_pass_and_are_written_with_their_hashes(tmp_path):
    task, manifest = run(tmp_path)
    assert task.output_parameters() == {"passed": True}
    for entry in manifest["models"]:
        assert digest.file_sha256(tmp_path / "out/servable" / entry["file"]) == entry["sha256"]
    rows = task.output_metadata()["classification"]["confusionMatrix"]["rows"]
    assert rows == [{"row": [6, 0]}, {"row": [0, 6]}]  # only wells that are there are counted


def test_int8_is_served_when_it_calls_every_well_alike(tmp_path):
    _, manifest = run(tmp_path, {"model.int8.onnx": onnx_model(0.1, -10.1)})
    assert {entry["variant"] for entry in manifest["models"]} == {"int8"}


@pytest.mark.parametrize("other", [onnx_model(0.1, -15.45), onnx_model(float("nan"), 0), b"x"])
def test_an_int8_that_changes_a_call_or_fails_is_not_served(tmp_path, other):
    _, manifest = run(tmp_path, {"model.int8.onnx": other})
    assert {entry["variant"] for entry in manifest["models"]} == {"fp32"}


def test_constant_scores_do_not_pass(tmp_path):
    task, _ = run(tmp_path, {"model.onnx": onnx_model(0, 0)})
    assert task.output_parameters() == {"passed": False}


def test_one_failing_model_fails_the_gate(tmp_path):
    def spoil(folder):
        (folder / "model-B/model.onnx").write_bytes(onnx_model(0, 0))
        path = folder / "model-B/model.json"
        document = json.loads(path.read_text())
        document["files"] = {"model.onnx": digest.file_sha256(folder / "model-B/model.onnx")}
        path.write_text(json.dumps(document))

    assert run(tmp_path, spoil=spoil)[0].output_parameters() == {"passed": False}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"models": {"model.onnx": onnx_model(float("nan"), 0)}}, "NaN"),
        ({"labels": False}, "both classes"),
        ({"spoil": lambda f: (f / "model-A/model.onnx").write_bytes(b"x")}, "train again"),
    ],
)
def test_what_cannot_be_judged_is_an_error(tmp_path, given, message):
    with pytest.raises(StageError, match=message):
        run(tmp_path, **given)
