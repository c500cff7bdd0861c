"""Open Inference Protocol v2: tensors as JSON or, by the binary extension, as bytes after it.

https://github.com/kserve/open-inference-protocol and Triton's extension_binary_data.md. Only what
the models have: one input, tiles UINT8 [n, 256, 256, 3], and one output, probability FP32 [n, 1].
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from common.errors import StageError
from common.tiling import TILE
from numpy.typing import NDArray

from .pictures import parse_json

LENGTH = "inference-header-content-length"
# A number in JSON costs some thirty times a byte: longer bodies would stop everything else.
LONGEST_JSON = 4 << 20
_SHAPE = [TILE, TILE, 3]
INPUT = {"name": "tiles", "datatype": "UINT8", "shape": [-1, *_SHAPE]}
OUTPUT = {"name": "probability", "datatype": "FP32", "shape": [-1, 1]}


@dataclass(frozen=True)
class Asked:
    """A request to infer: its id, its tiles uint8 [n, 256, 256, 3], and how to answer."""

    id: str | None
    tiles: NDArray[np.uint8]
    binary: bool


def decode(body: bytes, headers: Mapping[str, str]) -> Asked:
    """Read the body of an infer request; raises StageError that says what does not fit."""
    length = headers.get(LENGTH, str(len(body)))
    if not length.isdecimal() or int(length) > len(body):
        raise StageError(f"{LENGTH} is {length!r}, the body has {len(body)} bytes")
    if int(length) > LONGEST_JSON:
        raise StageError(
            f"the JSON is longer than {LONGEST_JSON} bytes; send binary tensors, or pictures to /"
        )
    document = parse_json(body[: int(length)])
    _expect(isinstance(document, dict), "the body is no JSON object")
    inputs = document.get("inputs")
    _expect(
        isinstance(inputs, list) and len(inputs) == 1 and isinstance(inputs[0], dict),
        "inputs must hold one tensor, tiles",
    )
    tensor = inputs[0]
    for name in ("name", "datatype"):
        _expect(tensor.get(name) == INPUT[name], f"the input's {name} must be {INPUT[name]}")
    shape = tensor.get("shape")
    _expect(
        isinstance(shape, list)
        and len(shape) == 4
        and shape[1:] == _SHAPE
        and all(type(n) is int and n > 0 for n in shape),
        f"the input's shape must be [n, {TILE}, {TILE}, 3] with n from 1 on",
    )
    identity = document.get("id")
    _expect(identity is None or isinstance(identity, str), "id must be a string")
    values = _values(tensor, body[int(length) :])
    _expect(
        values.size == np.prod(shape, dtype=object), f"the data does not fill the shape {shape}"
    )
    return Asked(identity, values.reshape(shape), _wants_binary(document))


def _values(tensor: dict[str, Any], binary: bytes) -> NDArray[np.uint8]:
    parameters = tensor.get("parameters") or {}
    _expect(isinstance(parameters, dict), "parameters must be an object")
    if (size := parameters.get("binary_data_size")) is not None:
        _expect(
            type(size) is int and size == len(binary) and "data" not in tensor,
            f"binary_data_size is {size!r}, {len(binary)} bytes follow the JSON; send no data then",
        )
        return np.frombuffer(binary, np.uint8)
    _expect(not binary, f"{len(binary)} bytes follow the JSON that no binary_data_size tells of")
    try:
        values = np.array(tensor.get("data"))
    except ValueError as error:
        raise StageError(f"data is no tensor ({error})") from None
    _expect(
        values.dtype.kind in "iu" and values.size > 0 and values.min() >= 0 and values.max() < 256,
        "data must be whole numbers from 0 to 255",
    )
    return values.astype(np.uint8)


def _wants_binary(document: dict[str, Any]) -> bool:
    """Return whether the output goes after the JSON: it says so, or the request does."""
    outputs = document.get("outputs") or []
    _expect(
        isinstance(outputs, list) and all(isinstance(o, dict) for o in outputs),
        "outputs must be a list of objects",
    )
    for output in outputs:
        _expect(output.get("name") == OUTPUT["name"], f"the only output is {OUTPUT['name']}")
    asked = [document.get("parameters"), *(o.get("parameters") for o in outputs)]
    _expect(all(isinstance(p, dict | None) for p in asked), "parameters must be an object")
    whole, *each = [p or {} for p in asked]
    default = whole.get("binary_data_output", False)
    return bool(each[0].get("binary_data", default) if each else default)


def encode(model: str, asked: Asked, values: NDArray[np.float64]) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of the answer `values`, [n]."""
    data = values.astype("<f4")
    output: dict[str, Any] = {**OUTPUT, "shape": [len(data), 1]}
    if asked.binary:
        output["parameters"] = {"binary_data_size": data.nbytes}
    else:
        output["data"] = data.tolist()
    document = {"model_name": model, "model_version": "1", "outputs": [output]}
    if asked.id is not None:
        document["id"] = asked.id
    head = json.dumps(document).encode()
    if not asked.binary:
        return head, {"Content-Type": "application/json"}
    return head + data.tobytes(), {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }


def _expect(condition: object, message: str) -> None:
    if not condition:
        raise StageError(message)
