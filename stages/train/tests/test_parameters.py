"""What the stage's parameters do, and what cannot be trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common.errors import StageError
from small import make_tiles, run, trained


@pytest.mark.usefixtures("thin_lite0")
def test_without_pretrained_weights_everything_is_trained(source: Path, tmp_path: Path) -> None:
    model = trained(source, tmp_path, weights="none", batch_size=2, most_tiles=5)
    facts = json.loads((tmp_path / "model/model.json").read_text())
    assert facts["tuned"]
    assert facts["options"]["weights"] == "none"
    first = model.get_layer("_bn0")
    assert np.asarray(first.moving_mean).any()
    assert (np.asarray(first.gamma) != 1).any()
    assert np.isfinite(np.asarray(model(np.load(source / "tiles.npy")[:2]))).all()


@pytest.mark.parametrize(
    ("made", "parameters", "says"),
    [
        ({}, {"model_type": "VGG"}, "unknown model_type 'VGG'"),
        ({}, {"optimizer": "adam"}, "unknown optimizer .adam.; there are newton, sgd"),
        ({}, {"weights": "/there/is/none.pth"}, "no file of weights /there/is/none.pth"),
        ({}, {"model_type": "ResNet50"}, "'imagenet' of ResNet50 cannot be loaded .* weights=FILE"),
        ({}, {"epochs": 0}, "epochs is 0; 1 is the least"),
        ({}, {"fold": "Z"}, "there is no fold 'Z'; the plate has A, B"),
        ({"constant": True}, {}, "signal channel of the training wells is constant"),
        ({"labels": (1,)}, {}, "class 0 has 0 training wells"),
        (
            {},
            {"optimizer": "sgd", "learning_rate": 1e30},
            r"the loss is .*(nan|inf).*lower learning_rate",
        ),
    ],
    ids=[
        "model type",
        "optimizer",
        "weights",
        "no network",
        "epochs",
        "fold",
        "constant",
        "one class",
        "diverging",
    ],
)
@pytest.mark.usefixtures("thin_lite0", "thin_resnet")
def test_what_cannot_be_trained_says_why(
    source: Path, tmp_path: Path, made: dict[str, Any], parameters: dict[str, Any], says: str
) -> None:
    source = make_tiles(tmp_path / "tiles", **made) if made else source
    with pytest.raises(StageError, match=says):
        run(source, tmp_path / "out", **parameters)
    assert not (tmp_path / "out" / "output.json").exists()


def test_tiles_that_are_not_those_that_prepare_handed_on_are_refused(
    source: Path, tmp_path: Path
) -> None:
    with pytest.raises(StageError, match=r"tiles_digest is .*the parameter fresh"):
        run(source, tmp_path / "out", tiles_digest="sha256:" + "0" * 64)
