"""A build of an sdist is held in: no network, nothing outside, one wheel of Python alone."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from builder.build.make import build
from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.sandbox import wheel_build
from builder.store import Store, default_root

ROOT = Path(__file__).parents[3]
NAME = "p-1-py3-none-any.whl"
WRITES = f"open(out + '/{NAME}', 'w').write('wheel')"


def made(folder: Path, body: str) -> tuple[str, bytes]:
    """Build an sdist whose backend's hook does `body`."""
    hooks = folder / "hooks-1-py3-none-any.whl"
    with zipfile.ZipFile(hooks, "w") as wheel:
        wheel.writestr("hooks.py", f"import os, socket\ndef build_wheel(out, _):\n    {body}\n")
    with tarfile.open(folder / "p-1.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("p-1/a"), io.BytesIO())
    store = Store(default_root())
    image = build(Workspace.load(ROOT), store, ["base"])["base"].image
    return wheel_build.build(store, image, folder / "p-1.tar.gz", "hooks", [hooks], "x")


@pytest.mark.slow
def test_a_wheel_comes_out(tmp_path: Path) -> None:
    assert made(tmp_path, WRITES) == (NAME, b"wheel")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("socket.create_connection(('192.0.2.1', 80), 2)", "does not build without network"),
        ("open('/usr/x', 'w')", "Read-only file system|Permission denied"),
        (f"os.symlink('/etc/passwd', out + '/{NAME}')", "left no single file"),
        ("pass", "left no single file"),
        ("open(out + '/p-1-cp313-cp313-linux_x86_64.whl', 'w')", "no wheel of Python alone"),
    ],
)
def test_what_it_may_not_do_ends_it(tmp_path: Path, body: str, reason: str) -> None:
    with pytest.raises(BuilderError, match=reason):
        made(tmp_path, body)
