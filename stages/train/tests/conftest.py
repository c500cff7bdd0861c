"""The tests compute as the stage does: deterministically."""

import pytest
from train.stage import make_deterministic

make_deterministic()


def pytest_configure(config: pytest.Config) -> None:
    """Keep quiet about what TensorFlow's and tf2onnx's own dependencies deprecate."""
    for module in ("gast", "keras"):
        config.addinivalue_line("filterwarnings", rf"ignore:::{module}\.")
    config.addinivalue_line("markers", "slow: takes more than about ten seconds")
