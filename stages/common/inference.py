"""What a served ONNX file answers for tiles: the same code for validate and for score.

onnxruntime is in the images of those two alone. It computes on a GPU where it was built for one and
one is there.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from .errors import StageError
from .tiles import Tiles

_PROCESSOR, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_WARNING = "warning: computing on the processor, in an image for NVIDIA GPUs:"
_EXACT = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}


@functools.cache
def providers() -> list[str | tuple[str, dict[str, str]]]:
    """Return what onnxruntime is to compute with, the processor last.

    Where it was built for CUDA and this machine has no GPU, a line says so, once.
    """
    if _CUDA not in onnxruntime.get_available_providers():
        return [_PROCESSOR]
    if reason := no_gpu():
        print(f"{_WARNING} {reason}", flush=True)
        return [_PROCESSOR]
    onnxruntime.preload_dlls()  # the CUDA of the wheels beside it
    return [(_CUDA, _EXACT), _PROCESSOR]


def no_gpu() -> str:
    """Return why the driver of this machine offers no GPU, '' where it does.

    By the driver itself (cuInit, cuDeviceGetCount of the CUDA Driver API): onnxruntime prints pages
    where it fails.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver is here (libcuda.so.1)"
    count = ctypes.c_int()
    if failed := driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return f"the NVIDIA driver finds no GPU (error {failed})"
    return "" if count.value else "the NVIDIA driver finds no GPU"


def probabilities(
    path: Path,
    tiles: Tiles,
    rows: Sequence[int],
    progress: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float64]:
    """Return the ONNX file's probability of each of these rows of the tiles.

    One tile a run and one thread a run, as the served function does it: on two cores half the
    processor time of batches on two threads, and the same numbers whatever the number of cores.
    A GPU rounds otherwise; it computes in full float32, as the function does.
    Raises StageError where onnxruntime cannot run it or an answer is not between 0 and 1.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    wanted = providers()
    options.use_deterministic_compute = len(wanted) > 1

    def answer(row: int) -> float:
        (found,) = session.run(["probability"], {"tiles": tiles.array[row : row + 1]})
        return float(np.asarray(found).reshape(()))

    answers: list[float] = []
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
        if len(wanted) > 1 and session.get_providers() == [_PROCESSOR]:
            print(f"{_WARNING} onnxruntime could not start CUDA", flush=True)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for value in pool.map(answer, rows):
                answers.append(value)
                progress(len(answers))
    except Exception as error:  # noqa: BLE001 - onnxruntime's own exceptions share no public base
        raise StageError(f"onnxruntime cannot run {path}: {error}; train again") from None
    if wrong := [value for value in answers if not 0 <= value <= 1]:
        raise StageError(f"{path} answers {wrong[0]}, not a probability; train again")
    return np.array(answers)
