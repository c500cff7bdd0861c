"""What pip says is told truthfully."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import BuilderError
from builder.packages import pip
from tests.registries import free_port


def test_an_index_that_cannot_be_reached_is_not_a_missing_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{free_port()}/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_RETRIES", "1")
    words = ["download", "--no-cache-dir", "--no-deps", "-d", str(tmp_path), "sampleproject==9"]
    with pytest.raises(BuilderError, match="the package index cannot be reached") as refusal:
        pip.run(words, "downloading the wheels of x")
    assert "has no wheel" not in str(refusal.value)
