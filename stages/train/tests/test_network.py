"""Every network that the stage offers: tiles in, features out, in two parts that make one."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from common import digest
from common.errors import StageError
from small import answers
from train import export, network

SCALING = network.Normalisation((0.0, 0.0, 0.0), (30.0, 30.0, 30.0))


def tiles() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3)).astype(np.uint8)


def test_the_two_parts_are_the_whole() -> None:
    body = network.build("EfficientNet_Lite0", SCALING)
    assert body.frozen is not None
    found = np.asarray(body.tunable(body.frozen(tiles())))
    assert np.allclose(found, np.asarray(body.model(tiles())), atol=1e-5)
    assert found.shape == (2, 464)


def test_moments_count_what_lies_in_cells_alone() -> None:
    random = np.random.default_rng(0)
    maps, cells = random.normal(2, 3, (2, 8, 8, 5)).astype(np.float32), np.zeros((2, 8, 8), "f4")
    cells[:, :, :3] = 0.5
    found = np.asarray(network.Moments()(maps, network.Weights()(cells)))
    inside = maps[:, :, :3]
    expected = np.concatenate([inside.mean(axis=(1, 2)), inside.std(axis=(1, 2))], -1)
    assert np.allclose(found, expected, atol=1e-4)


def test_a_tile_without_cells_has_the_moments_of_all_of_it() -> None:
    dark = np.full((1, 256, 256, 3), -1, np.float32)
    cells = network.Averages(8, 8)(network.Cells()(dark))
    maps = np.random.default_rng(0).normal(0, 1, (1, 8, 8, 4)).astype(np.float32)
    found = np.asarray(network.Moments()(maps, network.Weights()(cells)))
    assert np.allclose(found[:, :4], maps.mean(axis=(1, 2)), atol=1e-5)


@pytest.mark.parametrize(("before", "after"), [(256, 32), (256, 29), (29, 8), (5, 5)])
def test_areas_share_every_pixel_out_and_keep_the_mean(before: int, after: int) -> None:
    matrix = network.areas(before, after)
    assert np.allclose(matrix.sum(axis=1), 1)
    assert np.allclose(matrix.sum(axis=0), after / before)


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


@pytest.mark.usefixtures("thin_resnet")
def test_the_export_of_a_network_of_keras_applications_answers_in_8_bits_too(
    tmp_path: Path,
) -> None:
    body = network.build("ResNet50", SCALING, "none").model
    kernel = np.random.default_rng(0).normal(0, 1e-3, body.output_shape[1]).astype(np.float32)
    export.export(network.with_head(body, kernel, 0.0), tiles()[:1], tmp_path)
    for name in ("model.onnx", "model.int8.onnx"):
        found = answers(tmp_path / name, tiles())
        assert ((found > 0) & (found < 1)).all(), name


@pytest.mark.usefixtures("thin_resnet")
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
