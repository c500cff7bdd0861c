"""A tiny ONNX model, serialised by hand: the image holds onnxruntime, not onnx.

Field numbers are those of onnx.proto3.
"""

import struct


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
