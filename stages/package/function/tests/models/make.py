"""Write A.onnx and B.onnx, smallest models of the served kind. Needs `pip install onnx`.

    python3 make.py

Each is sigmoid(0.1 * mean of the green channel + bias), for tiles uint8 [n, 256, 256, 3].
"""

from __future__ import annotations

from pathlib import Path

from onnx import TensorProto, checker, helper, save


def model(bias: float) -> object:
    """Return the model with `bias`."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["tiles"], ["values"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["values"], ["means"], axes=[1, 2], keepdims=0),
            helper.make_node("MatMul", ["means", "weights"], ["weighted"]),
            helper.make_node("Add", ["weighted", "bias"], ["sum"]),
            helper.make_node("Sigmoid", ["sum"], ["probability"]),
        ],
        "mean-of-green",
        [helper.make_tensor_value_info("tiles", TensorProto.UINT8, ["n", 256, 256, 3])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["n", 1])],
        [
            helper.make_tensor("weights", TensorProto.FLOAT, [3, 1], [0.0, 0.1, 0.0]),
            helper.make_tensor("bias", TensorProto.FLOAT, [1], [bias]),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    checker.check_model(made)
    return made


if __name__ == "__main__":
    for name, bias in (("A", -10.0), ("B", -12.0)):
        save(model(bias), Path(__file__).parent / f"{name}.onnx")
