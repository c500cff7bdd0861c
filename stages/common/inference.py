"""What a served ONNX file answers for tiles: the same code for validate and for score.

onnxruntime is in the images of those two alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from .errors import StageError
from .tiles import Tiles


def probabilities(
    path: Path,
    tiles: Tiles,
    rows: Sequence[int],
    progress: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float64]:
    """Return the ONNX file's probability of each of these rows of the tiles.

    One tile a run and one thread a run, as the served function does it: on two cores half the
    processor time of batches on two threads, and the same numbers whatever the number of cores.
    Raises StageError where onnxruntime cannot run it or an answer is not between 0 and 1.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3

    def answer(row: int) -> float:
        (found,) = session.run(["probability"], {"tiles": tiles.array[row : row + 1]})
        return float(np.asarray(found).reshape(()))

    answers: list[float] = []
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for value in pool.map(answer, rows):
                answers.append(value)
                progress(len(answers))
    except Exception as error:  # noqa: BLE001 - onnxruntime's own exceptions share no public base
        raise StageError(f"onnxruntime cannot run {path}: {error}; train again") from None
    if wrong := [value for value in answers if not 0 <= value <= 1]:
        raise StageError(f"{path} answers {wrong[0]}, not a probability; train again")
    return np.array(answers)
