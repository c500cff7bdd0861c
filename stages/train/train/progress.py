"""What a run has done so far, in files, so that one that was killed goes on where it stopped."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common.errors import StageError
from common.stage_io import StageIO
from common.workspace import workspace_root
from numpy.typing import NDArray


@dataclass(frozen=True)
class Progress:
    """Lists of arrays by name in `folder`, each saved whole or not at all."""

    folder: Path

    def load(self, name: str) -> list[NDArray[Any]] | None:
        """Return the arrays saved as `name`, memory-mapped, or None."""
        folder = self.folder / name
        if not folder.is_dir():
            return None
        files = sorted(folder.iterdir(), key=lambda file: int(file.stem))
        return [np.load(file, mmap_mode="r", allow_pickle=False) for file in files]

    def save(self, name: str, arrays: Sequence[NDArray[Any]]) -> None:
        """Save `arrays` as `name`, in place of what was called so; raises StageError."""
        fresh, target = self.folder / f".{name}.new", self.folder / name
        try:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            for number, array in enumerate(arrays):
                with (fresh / f"{number}.npy").open("wb") as file:
                    np.save(file, array)
                    file.flush()
                    os.fsync(file.fileno())
            shutil.rmtree(target, ignore_errors=True)
            fresh.rename(target)
        except OSError as error:
            raise StageError(
                f"cannot write {fresh}: {error.strerror or error}; make room or check the volume"
            ) from None


@contextlib.contextmanager
def progress(task: StageIO, fold: str, identity: Mapping[str, Any]) -> Iterator[Progress]:
    """Yield the progress of training `fold`: on the workspace volume, or without one in /tmp.

    What another `identity` (parameters, tiles, image) left there is thrown away. After a success
    nothing is left.
    """
    name, root = task.parameter("workspace_name", str, ""), workspace_root()
    if not name or not root.is_dir():
        with tempfile.TemporaryDirectory(prefix="train-") as temporary:
            yield Progress(Path(temporary))
        return
    folder, text = root / name / f".train-{fold}.progress", json.dumps(identity, sort_keys=True)
    stamp = folder / "identity.json"
    try:
        if not stamp.is_file() or stamp.read_text(encoding="utf-8") != text:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            stamp.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StageError(
            f"the workspace {folder.parent} cannot be written: {error.strerror or error}; check "
            "the volume, or run with an empty workspace_name"
        ) from None
    yield Progress(folder)
    shutil.rmtree(folder, ignore_errors=True)
