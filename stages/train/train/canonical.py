"""One spelling of an ONNX graph: the same network gives the same bytes.

tf2onnx numbers constants and orders nodes by sets of strings and of objects, which differ from
process to process.
"""

from __future__ import annotations

import re

import onnx


def canonical(model: onnx.ModelProto, output: str) -> onnx.ModelProto:
    """Return `model` with its nodes in the order in which its only output needs them.

    Nodes keep their names less tf2onnx's running numbers; tensors are named after the node that
    makes them, or first takes them. The input keeps its name; the output is called `output`.
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    constants = {constant.name: constant for constant in graph.initializer}
    ordered = _in_order(makers, graph.output[0].name)
    names = {given.name: given.name for given in graph.input}
    taken: dict[str, int] = {}
    nodes, initializers = [], []
    for before in ordered:
        node = onnx.NodeProto()
        node.CopyFrom(before)
        stem = re.sub(r"__\d+", "", before.name) or before.op_type
        taken[stem] = taken.get(stem, -1) + 1
        node.name = f"{stem}.{taken[stem]}" if taken[stem] else stem
        for place, name in enumerate(before.input):
            if name in constants and name not in names:
                names[name] = f"{node.name}/{place}"
                initializers.append(onnx.TensorProto())
                initializers[-1].CopyFrom(constants[name])
                initializers[-1].name = names[name]
        for place, name in enumerate(before.output):
            names[name] = f"{node.name}:{place}" if name else ""
        names[graph.output[0].name] = output
        node.input[:] = [names[name] if name else "" for name in before.input]
        node.output[:] = [names[name] for name in before.output]
        nodes.append(node)
    inputs = [_declared(given, given.name) for given in graph.input]
    result = _declared(graph.output[0], output)
    made = onnx.helper.make_graph(nodes, "network", inputs, [result], initializers)
    return onnx.helper.make_model(
        made, opset_imports=model.opset_import, ir_version=model.ir_version, producer_name="train"
    )


def _declared(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    """Return `value` called `name`, with `n` for what its open axis is called."""
    made = onnx.ValueInfoProto()
    made.CopyFrom(value)
    made.name = name
    for axis in made.type.tensor_type.shape.dim:
        if not axis.HasField("dim_value"):
            axis.dim_param = "n"
    return made


def _in_order(makers: dict[str, onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    """Return the nodes that `output` needs, each after those whose results it takes."""
    ordered: list[onnx.NodeProto] = []
    seen: set[str] = set()
    stack = [(output, False)]
    while stack:
        name, expanded = stack.pop()
        node = makers.get(name)
        if node is None or (not expanded and node.output[0] in seen):
            continue
        if expanded:
            ordered.append(node)
            continue
        seen.add(node.output[0])
        stack.append((name, True))
        stack += [(taken, False) for taken in reversed(node.input)]
    return ordered
