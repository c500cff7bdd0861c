"""The same network is the same bytes, whatever its parts were called and how they were sorted."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from train.canonical import canonical


def network(suffix: str, random: np.random.Generator) -> onnx.ModelProto:
    """y = relu(x + a) * b, and a node that nothing needs."""
    x, axis = "x", f"unk__{suffix}"
    nodes = [
        helper.make_node("Add", [x, f"a{suffix}"], [f"sum{suffix}"], name=f"add__{suffix}"),
        helper.make_node("Relu", [f"sum{suffix}"], [f"r{suffix}"], name=f"relu__{suffix}"),
        helper.make_node("Mul", [f"r{suffix}", f"b{suffix}"], [f"y{suffix}"], name="mul"),
        helper.make_node("Abs", [x], [f"unused{suffix}"], name="unused"),
    ]
    constants = [
        numpy_helper.from_array(np.float32([value]), f"{name}{suffix}")
        for name, value in (("a", 2.0), ("b", 3.0))
    ]
    declared = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [axis, 4])
        for name in (x, f"y{suffix}")
    ]
    return helper.make_model(
        helper.make_graph(
            [nodes[n] for n in random.permutation(4)], f"g{suffix}", declared[:1], declared[1:],
            [constants[n] for n in random.permutation(2)],
        ),
        opset_imports=[helper.make_opsetid("", 18)], ir_version=8,
    )  # fmt: skip


@given(st.integers(0, 10**6), st.integers(0, 10**6))
@settings(deadline=None)
def test_names_and_order_do_not_reach_the_bytes(one: int, two: int) -> None:
    made = [
        canonical(network(str(seed), np.random.default_rng(seed)), "y").SerializeToString()
        for seed in (one, two)
    ]
    assert made[0] == made[1]


def test_it_still_computes_the_same() -> None:
    made = canonical(network("7", np.random.default_rng(1)), "y")
    onnx.checker.check_model(made, full_check=True)
    session = onnxruntime.InferenceSession(made.SerializeToString())
    (found,) = session.run(["y"], {"x": np.float32([[-5, -1, 0, 1]])})
    assert found.tolist() == [[0, 3, 6, 9]]
    assert [node.op_type for node in made.graph.node] == ["Add", "Relu", "Mul"]
