"""What the frozen layers make of tiles: computed once a view of them, and never trained."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import tensorflow
from numpy.typing import NDArray

from train import batches, export

Maps = list[NDArray[np.float32]]


def computing(frozen: keras.Model) -> Callable[[NDArray[np.uint8]], Maps]:
    """Return what computes the outputs of `frozen`, [n, …] each, of tiles [n, 256, 256, 3].

    On processors onnxruntime computes them, one tile a thread: in a third of TensorFlow's time, and
    to the same last bit whatever the number of cores. On a GPU TensorFlow does.
    """
    if tensorflow.config.list_logical_devices("GPU"):
        return lambda tiles: batches.run(frozen, [tiles])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "frozen.onnx")
        export.write_onnx(frozen, file)
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def computed(tile: NDArray[np.uint8]) -> Maps:
        found: Maps = session.run(None, {"tiles": tile[None]})
        return found

    def compute(tiles: NDArray[np.uint8]) -> Maps:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            return [np.concatenate(each) for each in zip(*pool.map(computed, tiles), strict=True)]

    return compute
