"""Every network that the stage offers: tiles in, features out, in two parts that make one."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from common import digest
from common.errors import StageError
from train import network

SCALING = network.Normalisation((0.0, 0.0, 0.0), (30.0, 30.0, 30.0))


def tiles() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3)).astype(np.uint8)


def test_the_two_parts_are_the_whole() -> None:
    body = network.build("EfficientNet_Lite0", SCALING)
    assert body.frozen is not None
    found = np.asarray(body.tunable(body.frozen(tiles())))
    assert np.allclose(found, np.asarray(body.model(tiles())), atol=1e-5)
    assert found.shape == (2, 464)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "features"),
    [("ResNet50", 7168), ("Inception_v3", 6208), ("Inception_Resnet_v2", 5888)],
)
def test_the_networks_of_keras_applications_take_raw_tiles(name: str, features: int) -> None:
    body = network.build(name, SCALING, "none")
    assert body.frozen is None
    assert body.model.output_shape == (None, features)
    assert np.isfinite(np.asarray(body.model(tiles()[:1]))).all()


def test_a_file_of_weights_is_checked_and_read(tmp_path: Path) -> None:
    path = tmp_path / "resnet.weights.h5"
    tensor = keras.Input((256, 256, 3))
    made = keras.applications.ResNet50(include_top=False, weights=None, input_tensor=tensor)
    made.save_weights(path)
    with pytest.raises(StageError, match="weights_sha256 is empty"):
        network.check_weights(str(path), "")
    source = network.check_weights(str(path), digest.file_sha256(path))
    body = network.build("ResNet50", SCALING, source)
    name = "conv5_block3_3_conv"
    assert (
        np.asarray(body.model.get_layer(name).kernel) == np.asarray(made.get_layer(name).kernel)
    ).all()
    assert body.frozen is not None
    path.write_bytes(b"no weights")
    with pytest.raises(StageError, match="of ResNet50 cannot be loaded"):
        network.build("ResNet50", SCALING, str(path))
