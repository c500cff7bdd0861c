"""The tests compute as the stage does: deterministically."""

from pathlib import Path

import pytest
from small import make_tiles
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
