"""Open Inference Protocol v2: tensors as JSON or, by the binary extension, as bytes after it.

https://github.com/kserve/open-inference-protocol and Triton's extension_binary_data.md. Only what
the models have: one input, tiles UINT8 [n, 256, 256, 3], and one output, probability FP32 [n, 1].
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from common.errors import StageError
from common.tiling import TILE
from numpy.typing import NDArray

from .pictures import parse_json

LENGTH = "inference-header-content-length"
# A number in JSON costs some thirty times a byte: longer bodies would stop everything else.
LONGEST_JSON = 4 << 20
SHORTEST_LIST = 6  # bytes for each list in the JSON, at least; a pixel has 8: [0,0,0],
_SHAPE = [TILE, TILE, 3]
_NO_BYTES = "data must be whole numbers from 0 to 255"
INPUT = {"name": "tiles", "datatype": "UINT8", "shape": [-1, *_SHAPE]}
OUTPUT = {"name": "probability", "datatype": "FP32", "shape": [-1, 1]}


@dataclass(frozen=True)
class Asked:
    """A request to infer: its id, its tiles uint8 [n, 256, 256, 3], and how to answer."""

    id: str | None
    tiles: NDArray[np.uint8]
    binary: bool


def decode(body: bytes, lengths: Sequence[str] = ()) -> Asked:
    """Read the body of an infer request, `lengths` being what LENGTH says, if it is there.

    Memory: the JSON's values take at most 25 times its bytes, which are limited; binary tensors
    are not copied. Raises StageError that says what does not fit.
    """
    length = _length(lengths, len(body))
    if length > LONGEST_JSON:
        raise StageError(
            f"the JSON is longer than {LONGEST_JSON} bytes; send binary tensors, or pictures to /"
        )
    text = body[:length]
    lists = text.count(b"[")
    _expect(lists <= length // SHORTEST_LIST + 100, "the JSON has more lists than a tensor needs")
    document = parse_json(text, b'"{')  # most of a tensor are numbers
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
    values = _values(tensor, memoryview(body)[length:])
    _expect(len(values) == math.prod(shape), f"the data does not fill the shape {shape}")
    tiles = np.frombuffer(values, np.uint8).reshape(shape)
    return Asked(identity, tiles, _wants_binary(document))


def _length(lengths: Sequence[str], size: int) -> int:
    """Return how many of the body's `size` bytes are JSON."""
    if not lengths:
        return size
    _expect(len(lengths) == 1, f"{LENGTH} is there {len(lengths)} times; send it once")
    text = lengths[0]
    if not re.fullmatch("[0-9]{1,18}", text) or int(text) > size:
        raise StageError(f"{LENGTH} is {text[:20]!r}, the body has {size} bytes")
    return int(text)


def _values(tensor: dict[str, Any], binary: memoryview) -> bytes | memoryview:
    """Return the tensor's bytes."""
    parameters = tensor.get("parameters") or {}
    _expect(isinstance(parameters, dict), "parameters must be an object")
    if (size := parameters.get("binary_data_size")) is not None:
        _expect(
            type(size) is int and size == len(binary) and "data" not in tensor,
            f"binary_data_size is {size!r:.20}, {len(binary)} bytes follow the JSON; send no data "
            "then",
        )
        return binary
    _expect(not binary, f"{len(binary)} bytes follow the JSON that no binary_data_size tells of")
    return _numbers(tensor.get("data"), tensor["shape"])


def _numbers(data: Any, shape: Sequence[int]) -> bytes:
    """Return the numbers of `data`, flat or nested as `shape` is.

    Each is looked at before an array is made: numpy makes one of strings where there is one
    string, and takes for every element what the longest of them needs.
    """
    _expect(isinstance(data, list) and data, f"data must be a list that fills the shape {shape}")
    if isinstance(data[0], list):
        _expect(len(data) == shape[0], f"the data does not fill the shape {shape}")
        for length in shape[1:]:
            fits = set(map(type, data)) == {list} and set(map(len, data)) == {length}
            _expect(fits, f"data must be flat, or nested as the shape {shape}")
            data = list(chain.from_iterable(data))
    _expect(len(data) == math.prod(shape), f"the data does not fill the shape {shape}")
    try:
        _expect(set(map(type, data)) == {int}, _NO_BYTES)  # True would pass for 1
        return bytes(data)
    except ValueError:
        raise StageError(_NO_BYTES) from None


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
