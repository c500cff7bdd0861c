"""Checkpoints on the workspace volume: a stage's outputs, saved whole or not at all.

    <root>/<workspace_name>/<stage>[-<variant>]/manifest.json, outputs/<artifact>[/…]

Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from . import digest
from .errors import StageError
from .lock import lock
from .stage_io import StageIO

FORMAT = 1
_NAME = re.compile(r"[\w.-][\w. -]*")
# Parameters that say where, whether and how often, not of what.
_NO_INPUT = {"checkpoint", "checkpoints_digest", "workspace_name", "fresh"}


def workspace_root() -> Path:
    """Return where the workspace volume is mounted."""
    return Path(os.environ.get("PLATELINE_WORKSPACE", "/mnt/workspace"))


def with_checkpoint(
    task: StageIO,
    stage: str,
    *,
    variant: str = "",
    restore: bool,
    compute: Callable[[], None],
) -> None:
    """Re-emit the saved outputs of `stage` when `restore`, else call `compute` and save them.

    Without a workspace (`workspace_name` empty, or no volume) it only computes. Raises StageError
    where a checkpoint is asked for and does not fit, or where another run holds the workspace.
    """
    name = task.parameter("workspace_name", str, "")
    root = workspace_root()
    if not name or not root.is_dir():
        if restore:
            raise StageError(
                f"the checkpoint of {stage} was asked for, but there is no workspace "
                f"({'workspace_name is empty' if not name else f'nothing is mounted at {root}'})"
            )
        compute()
        return
    for part in [name, variant] if variant else [name]:
        checked(part)
    folder = root / name / (f"{stage}-{variant}" if variant else stage)
    if restore:
        _restore(task, folder)
        return
    with lock(folder) as held:
        compute()
        held.check()
        _save(task, folder)


def checked(name: str) -> str:
    """Return the name of a folder of the workspace; raises StageError where it cannot be one."""
    if name and (not _NAME.fullmatch(name) or ".." in name):
        raise StageError(
            f"{name!r} cannot name a folder of the workspace; use letters, digits, - _ ."
        )
    return name


def saved(name: str, stages: Iterable[str]) -> str:
    """Return the digest of the manifests that the workspace `name` holds of `stages`.

    Empty where `stages` are none. A manifest names all that its checkpoint holds.
    """
    wanted = set(stages)
    if not wanted or not name:
        return ""
    folder = workspace_root() / name
    found = {
        path.parent.name: digest.file_sha256(path)
        for path in folder.glob("*/manifest.json")
        if path.parent.name.partition("-")[0] in wanted
    }
    return digest.of_hashes(found)


def _identity(task: StageIO) -> dict[str, Any]:
    """Return what a checkpoint depends on: parameters, inputs' digests, the image."""
    entries = task.document.get("inputs", {}).get("artifacts", {})
    return {
        "parameters": {
            key: value for key, value in sorted(task.parameters().items()) if key not in _NO_INPUT
        },
        "inputs": {
            name: sorted(digest.folder_digest(artifact.path) for artifact in task.inputs(name))
            for name in sorted(entries)
        },
        "image": os.environ.get("PLATELINE_IMAGE", ""),
    }


def _save(task: StageIO, folder: Path) -> None:
    fresh = folder.with_name(f".{folder.name}.new")
    old = folder.with_name(f".{folder.name}.old")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        (fresh / "outputs").mkdir(parents=True)
        for name in task.written():
            source = task.output(name)
            if source.is_dir():
                shutil.copytree(source, fresh / "outputs" / name)
            elif source.exists():
                shutil.copyfile(source, fresh / "outputs" / name)
        manifest = {
            "format": FORMAT,
            **_identity(task),
            "files": digest.file_hashes(fresh / "outputs"),
            "output_parameters": task.output_parameters(),
            "output_metadata": task.output_metadata(),
        }
        (fresh / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise StageError(
            f"cannot save the checkpoint {folder}: {error.strerror or error}; make room or check "
            "the volume, or run with an empty workspace_name"
        ) from None


def _restore(task: StageIO, folder: Path) -> None:
    manifest = _manifest(folder)
    identity = _identity(task)
    for key, now in identity.items():
        then = manifest.get(key)
        if then != now:
            raise StageError(
                f"the checkpoint {folder} does not fit: its {key} were {_differing(then, now)}; "
                "run without this checkpoint to make it anew"
            )
    source = folder / "outputs"
    found = digest.file_hashes(source)
    changed = sorted(
        name
        for name in found.keys() | manifest["files"]
        if found.get(name) != manifest["files"].get(name)
    )
    if changed:
        raise StageError(
            f"the checkpoint {folder} was changed after it was saved ({', '.join(changed[:3])}); "
            "run without this checkpoint to make it anew"
        )
    try:
        for saved in sorted(source.iterdir()):
            target = task.output(saved.name)
            if saved.is_dir():
                shutil.copytree(saved, target, dirs_exist_ok=True)
            else:
                shutil.copyfile(saved, target)
    except OSError as error:
        raise StageError(
            f"cannot copy the checkpoint {folder}: {error.strerror or error}"
        ) from None
    for name, value in manifest["output_parameters"].items():
        task.set_parameter(name, value)
    for name, metadata in manifest["output_metadata"].items():
        task.set_metadata(name, metadata)


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise StageError(f"{path} has format {manifest['format']!r}, not {FORMAT}")
        return {**manifest, "files": dict(manifest["files"])}
    except FileNotFoundError:
        raise StageError(
            f"there is no checkpoint at {folder}; make it by a run without this checkpoint, in "
            "which the step really runs: one that is taken from the cache writes none (the "
            "parameter fresh, set to a new text, makes all run)"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageError(f"cannot read the checkpoint {path}: {error}") from None


def _differing(then: Any, now: Any) -> str:
    if isinstance(then, dict) and isinstance(now, dict):
        keys = sorted(key for key in then.keys() | now if then.get(key) != now.get(key))
        return ", ".join(f"{key} = {then.get(key)!r} and are now {now.get(key)!r}" for key in keys)
    return f"{then!r} and are now {now!r}"
