"""The tests compute as the stage does: deterministically."""

from dataclasses import replace
from pathlib import Path

import pytest
from keras.src.applications import resnet
from small import make_tiles
from train import efficientnet, network
from train.stage import make_deterministic

make_deterministic()


def pytest_configure(config: pytest.Config) -> None:
    """Keep quiet about what TensorFlow's and tf2onnx's own dependencies deprecate."""
    for module in ("gast", "keras"):
        config.addinivalue_line("filterwarnings", rf"ignore:::{module}\.")
    config.addinivalue_line("markers", "slow: takes more than about ten seconds")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiles(tmp_path_factory.mktemp("source") / "tiles")


@pytest.fixture
def thin_lite0(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make EfficientNet_Lite0 of one block a group with an eighth of the filters.

    Its "pretrained" weights are random. For claims about the stage that hold for any network:
    TensorFlow takes seconds to trace the real one.
    """
    groups = [
        (kernel, stride, expansion, filters // 8, 1)
        for kernel, stride, expansion, filters, _ in efficientnet.GROUPS
    ]
    monkeypatch.setattr(efficientnet, "GROUPS", tuple(groups))
    kind = network.MODEL_TYPES["EfficientNet_Lite0"]
    thin = replace(kind, load=lambda _model, _source: None)
    monkeypatch.setitem(network.MODEL_TYPES, "EfficientNet_Lite0", thin)


@pytest.fixture
def thin_resnet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ResNet50 with all its layers and an eighth of the filters: 1.6 MB instead of 94."""
    real = resnet.stack_residual_blocks_v1
    monkeypatch.setattr(
        resnet,
        "stack_residual_blocks_v1",
        lambda x, filters, *members, **more: real(x, filters // 8, *members, **more),
    )
