"""The trained network as files: Keras, ONNX, and ONNX with 8-bit integers."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
import onnx
import onnxruntime
from common.errors import StageError
from numpy.typing import NDArray
from onnxruntime import quantization
from onnxruntime.quantization import calibrate

from train.canonical import canonical
from train.planes import by_planes

NAMES = ("model.keras", "model.onnx", "model.int8.onnx")
# How far the exported file may be from the network it was exported from, in probability.
_PARITY = 1e-4
# What is computed in 8 bits: what costs time, and what lies between two of those.
_QUANTISED = ("Conv", "Add", "Relu", "Clip", "MaxPool", "AveragePool", "Concat")


def export(model: keras.Model, tiles: NDArray[np.uint8], folder: Path) -> None:
    """Write the three files of `model` into `folder`; `tiles` [n, 256, 256, 3] calibrate 8 bits.

    Raises StageError where the ONNX file answers otherwise than the network on the first tiles.
    """
    keras_file, fp32, int8 = (folder / name for name in NAMES)
    model.save(keras_file)
    write_onnx(model, fp32)
    named = canonical(onnx.load(fp32), "probability")
    by_planes(named)
    onnx.checker.check_model(named, full_check=True)
    onnx.save(named, fp32)
    sample = np.ascontiguousarray(tiles[:4])
    apart = float(np.abs(_answer(fp32, sample) - np.asarray(model(sample))).max())
    if not apart <= _PARITY:
        raise StageError(f"the exported model differs from the trained one by {apart:.2g}")
    quantise(fp32, int8, tiles)


def write_onnx(model: keras.Model, path: Path) -> None:
    """Write `model`, which takes tiles [n, 256, 256, 3] as uint8, as Keras' own export does."""
    signature = [keras.InputSpec(dtype="uint8", shape=(None, 256, 256, 3), name="tiles")]
    model.export(path, format="onnx", input_signature=signature, verbose=False)


def quantise(fp32: Path, int8: Path, tiles: NDArray[np.uint8]) -> None:
    """Write `int8`, the network of `fp32` with 8-bit weights and maps between them.

    Static quantisation: the maps' ranges are those on `tiles`. What comes before the first
    convolution, moments and head, where small differences count, stay as they are.
    """
    logging.getLogger().setLevel(logging.ERROR)  # it advises a step that Keras' export has done
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(calibrate.CalibraterBase, "create_inference_session", _calibrating),
    ):
        folded = Path(folder, "folded.onnx")
        _fold(fp32, folded)
        outside = [node.name for node in onnx.load(folded).graph.node if _outside(node)]
        quantization.quantize_static(
            folded,
            int8,
            _Calibration(tiles),
            per_channel=True,
            op_types_to_quantize=list(_QUANTISED),
            nodes_to_exclude=outside,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            extra_options={"TemporaryFolder": folder},
        )


def _calibrating(calibrater: Any) -> None:
    """Open the session that measures the maps' ranges, as `calibrater` would, on one thread.

    With more, each waits for the others by spinning, after every one of hundreds of small
    operations: that costs twice the processor time, and more where another fold wants the cores.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    calibrater.infer_session = onnxruntime.InferenceSession(
        calibrater.augmented_model_path, options, providers=calibrater.execution_providers
    )


def _fold(path: Path, folded: Path) -> None:
    """Write `folded`, the network of `path` with its batch normalisations in its convolutions.

    Else onnxruntime does so when it loads the network, which it cannot once they are in 8 bits.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _outside(node: onnx.NodeProto) -> bool:
    return any(p in node.name for p in ("normalise", "caffe", "moments_", "early", "features"))


class _Calibration(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Hands over one tile after the other."""

    def __init__(self, tiles: NDArray[np.uint8]) -> None:
        self._tiles = iter(tiles)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        tile = next(self._tiles, None)
        return None if tile is None else {"tiles": tile[None]}


def _answer(path: Path, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(["probability"], {"tiles": tiles})[0]
    return found
