"""Pages that a stage's code makes in its own image, for the tests that open them in a browser."""

from __future__ import annotations

import subprocess
from pathlib import Path

from builder.build.make import build
from builder.build.workspace import Workspace
from builder.sandbox.engines import choose
from builder.sandbox.process import Mount, Process, run
from builder.store import Store

ROOT = Path(__file__).parents[2]


def run_example(folder: Path, stage: str, script: str, *arguments: str) -> Path:
    """Run stages/STAGE/tests/SCRIPT in the stage's image; return the folder of what it left."""
    folder.chmod(0o777)
    store = Store.open()
    image = build(Workspace.load(ROOT), store, [stage])[stage].image
    process = Process(
        image=image,
        command=("python3", f"/tests/{script}", "/out", *arguments),
        env={"PYTHONPATH": "/app:/tests"},
        mounts=(
            Mount(ROOT / f"stages/{stage}/tests", "/tests"),
            Mount(folder, "/out", writable=True),
        ),
    )
    ended = run(choose("bubblewrap", store), process, subprocess.DEVNULL)
    assert ended.code == 0, ended
    return folder / "out"
