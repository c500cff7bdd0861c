"""Checkpoints on the workspace volume: a stage's outputs, saved whole or not at all.

    <root>/<workspace_name>/<stage>[-<variant>]/manifest.json, outputs/<artifact>[/…]

Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from . import digest
from .errors import StageError
from .stage_io import StageIO

FORMAT = 1
STALE_AFTER = 600.0  # seconds without a sign of life from a lock's owner
_BEAT = 30.0
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
        if not _NAME.fullmatch(part) or ".." in part:
            raise StageError(
                f"{part!r} cannot name a folder of the workspace; use letters, digits, - _ ."
            )
    folder = root / name / (f"{stage}-{variant}" if variant else stage)
    if restore:
        _restore(task, folder)
        return
    with lock(folder):
        compute()
        _save(task, folder)


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


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the lock file beside `folder`; it says who writes there and since when.

    A lock whose owner gave no sign of life for `STALE_AFTER` seconds, or whose process on this
    very host is gone, is taken over. Raises StageError where another run holds it or where the
    workspace cannot be written.
    """
    path = folder.with_name(f".{folder.name}.lock")
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(error.errno, "it is a file") from None
        try:
            _create(path, owner)
        except FileExistsError:
            _refuse_or_clear(path, folder)
            _create(path, owner)
    except FileExistsError:
        raise StageError(f"another run has just begun to write {folder}; wait for it") from None
    except OSError as error:
        raise StageError(
            f"the workspace {path.parent} cannot be written: {error.strerror or error}; check the "
            "volume, or run with an empty workspace_name"
        ) from None
    done = threading.Event()
    beat = threading.Thread(target=_keep_alive, args=(path, done), daemon=True)
    beat.start()
    try:
        yield
    finally:
        done.set()
        beat.join()
        path.unlink(missing_ok=True)


def _create(path: Path, owner: dict[str, Any]) -> None:
    with path.open("x", encoding="utf-8") as file:
        json.dump(owner, file)


def _keep_alive(path: Path, done: threading.Event) -> None:
    while not done.wait(_BEAT):
        with contextlib.suppress(OSError):
            os.utime(path)


def _refuse_or_clear(path: Path, folder: Path) -> None:
    try:
        silent = time.time() - path.stat().st_mtime
        owner = json.loads(path.read_text(encoding="utf-8"))
        host, pid, since = owner["host"], int(owner["pid"]), float(owner["since"])
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        host, pid, since = "unknown", 0, time.time() - silent
    gone = host == socket.gethostname() and pid > 0 and not _alive(pid)
    if gone or silent > STALE_AFTER:
        path.unlink(missing_ok=True)
        return
    raise StageError(
        f"another run writes {folder}: process {pid} on {host}, for "
        f"{(time.time() - since) / 60:.0f} minutes, "
        f"last seen {silent:.0f} s ago; wait for it, or use another workspace_name"
    )


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
