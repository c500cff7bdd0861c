"""Which Python an image has, and where its files are."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import BuilderError
from builder.packages.python import DEFAULT, Python, of_config, of_debian
from builder.platform import ARM64


@pytest.mark.parametrize(
    ("packages", "found"),
    [
        ({"python3.13-minimal": "3.13.5-2", "libc6": "2.41-12"}, DEFAULT),
        ({"python3.11-minimal": "3.11.2-6", "libc6": "2.36-9"}, Python("3.11", glibc=36)),
        ({"python3.13-minimal": "1", "python3.14-minimal": "1"}, Python("3.14")),
        ({"busybox-static": "1"}, None),
    ],
)
def test_it_is_what_the_debian_packages_bring(
    packages: dict[str, str], found: Python | None
) -> None:
    assert of_debian(packages) == found


def test_an_image_says_which_it_has() -> None:
    assert of_config({"Env": ["PATH=/usr/bin", "PYTHON_VERSION=3.12.4"]}).version == "3.12"
    assert of_config({"Env": None}, ARM64) == Python(platform=ARM64)
    with pytest.raises(BuilderError, match=r"Python 3\.9 is too old: .* 3\.11 and newer"):
        of_config({"Env": ["PYTHON_VERSION=3.9.1"]})


@pytest.mark.parametrize("merged", [True, False])
def test_the_loader_is_found_before_and_after_debian_merged_usr(
    tmp_path: Path, merged: bool
) -> None:
    folder = "usr/lib/x86_64-linux-gnu" if merged else "lib/x86_64-linux-gnu"
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "ld-linux-x86-64.so.2").touch()
    loader, libraries = DEFAULT.loading(tmp_path)
    assert (tmp_path / loader).exists()
    assert folder in libraries.split(":")
