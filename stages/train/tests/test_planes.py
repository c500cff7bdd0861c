"""A channel is taken out of the planes where a graph has them, and with the same values."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from train.planes import by_planes

PIXELS = np.arange(2 * 4 * 5 * 3, dtype=np.float32).reshape(2, 4, 5, 3)


def graph(perm: tuple[int, ...], taken: int, axis: int, *, read_twice: bool) -> onnx.ModelProto:
    """Return pixels -> (planes, the channel `taken` of `axis`), by the nodes that Keras exports."""
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=perm),
        helper.make_node("Slice", ["pixels", "from", "to", "axes"], ["sliced"], name="slice"),
        helper.make_node("Squeeze", ["sliced", "axes"], ["channel"]),
    ]
    ranks = {"planes": 4, "channel": 3}
    if read_twice:
        nodes.append(helper.make_node("Identity", ["sliced"], ["again"]))
        ranks["again"] = 4
    made = helper.make_graph(
        nodes, "taken",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, PIXELS.shape)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * ranks[n]) for n in ranks],
        [
            helper.make_tensor(name, TensorProto.INT64, [1], [value])
            for name, value in (("from", taken), ("to", taken + 1), ("axes", axis))
        ],
    )  # fmt: skip
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


def answers(model: onnx.ModelProto) -> list[bytes]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return [np.asarray(found).tobytes() for found in session.run(None, {"pixels": PIXELS})]


@pytest.mark.parametrize("taken", [0, 2])
def test_a_channel_is_taken_out_of_the_planes(taken: int) -> None:
    model = graph((0, 3, 1, 2), taken, 3, read_twice=False)
    before = answers(model)
    by_planes(model)
    onnx.checker.check_model(model, full_check=True)
    assert model.graph.node[1].input[0] == "planes"
    assert answers(model) == before


@pytest.mark.parametrize(
    ("perm", "axis", "read_twice"),
    [((0, 2, 1, 3), 3, False), ((0, 3, 1, 2), 2, False), ((0, 3, 1, 2), 3, True)],
)
def test_what_is_taken_otherwise_stays_as_it_is(
    perm: tuple[int, ...], axis: int, *, read_twice: bool
) -> None:
    model = graph(perm, 1, axis, read_twice=read_twice)
    before = model.SerializeToString()
    by_planes(model)
    assert model.SerializeToString() == before
