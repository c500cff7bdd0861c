"""The next run of pytest, started ahead: what did not change is loaded, the rest is waited for.

A sandbox around another one. Where the process to start is pytest in an image that differs from the
one of the run before only in files below /app, the process that waits is told to go, after these
files were put in place: below /app it sees those of the new image and no other. Nothing from below
/app or /tests is loaded ahead. Otherwise the process is started as ever.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from builder import oci
from builder.errors import BuilderError
from builder.sandbox.process import Exit, Mount, Process, Running, Sandbox
from builder.sandbox.unpack import unpacked
from builder.store import Store

APP = "app"
_PYTEST = ("python3", "-m", "pytest")
_INSIDE = "/ahead"
# Loads what the run before had loaded in the end, waits for pytest's arguments, and runs it. Where
# that run had changed its environment, an import may depend on when it was: then only the
# standard library and what the target `testing` brings is loaded. A module that cannot be loaded by
# itself is left to whoever imports it in its place.
_PROGRAM = f"""
import importlib, json, os, sys
sys.path[0] = os.getcwd()  # as python3 -m has it
import pytest
with open("{_INSIDE}/modules") as file:
    names = json.load(file)
for name in names:
    try:
        importlib.import_module(name)
    except BaseException:
        pass
pipe, said = os.open("{_INSIDE}/go", os.O_RDWR), b""
while not said.endswith(b"\\n"):
    said += os.read(pipe, 65536)
os.close(pipe)
importlib.invalidate_caches()
sys.path_importer_cache.clear()
words = json.loads(said)
# Modules loaded before are not rewritten, of which pytest would warn.
quiet = "ignore:Module already imported so cannot be rewritten:pytest.PytestAssertRewriteWarning"
sys.argv = [pytest.__file__.replace("__init__", "__main__"), *words]
before = dict(os.environ)
code = int(pytest.main([*words, "-W", quiet]))
before["PYTEST_VERSION"] = os.environ.get("PYTEST_VERSION", "")
after = dict(os.environ, PYTEST_VERSION=before["PYTEST_VERSION"])
safe = (os.path.dirname(os.__file__) + "/", "/opt/testing/")
def stays(name, module):
    path = vars(module).get("__file__") or ""
    own = path.startswith(("/{APP}/", "/tests/", "/tmp/")) or not path.startswith("/")
    plugin = name.startswith(("_pytest", "_hypothesis_", "pytest", "xdist")) or name == "__main__"
    return not own and not plugin and (before == after or path.startswith(safe))
with open("{_INSIDE}/loaded", "w") as file:
    json.dump([n for n, m in list(sys.modules.items()) if m and stays(n, m)], file)
raise SystemExit(code)
"""


@dataclass(frozen=True)
class _Waiting:
    """A process that waits, what it is for, and its folders: of /app and of what is said to it."""

    running: Running
    process: Process
    app: Path
    said: Path
    pipe: BinaryIO


class Ahead:
    """Starts processes in `sandbox`, and pytest of the next run before it is asked for."""

    def __init__(self, sandbox: Sandbox, store: Store) -> None:
        self._sandbox, self._store = sandbox, store
        self._lock = threading.Lock()
        self._waiting: _Waiting | None = None
        self._modules = "[]"
        self._closed = False
        # bwrap dies with the thread that started it, so that one must outlive the runs' threads.
        self._starter = ThreadPoolExecutor(1, "ahead")

    @property
    def name(self) -> str:
        return self._sandbox.name

    def attach(self, process: Process) -> Exit:
        return self._sandbox.attach(process)

    def start(
        self, process: Process, stdout: BinaryIO | int | None = None, stdin: bytes = b""
    ) -> Running:
        """Start `process`, or let the one that waits for it go; raises as the sandbox does."""
        if process.command[:3] != _PYTEST:
            return self._sandbox.start(process, stdout, stdin)
        with self._lock:
            waiting, self._waiting = self._waiting, None
        if waiting and not self._fits(waiting.process, process):
            self._end(waiting)
            waiting = None
        waiting = waiting or self._prepare(process, stdout)
        try:
            self._go(waiting, process)
        except BaseException:
            self._end(waiting)
            raise
        return _Gone(self, waiting, process, stdout)

    def close(self) -> None:
        """End the process that waits, if any; none is started any more."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, None
        if waiting:
            self._end(waiting)
        self._starter.shutdown()

    def _prepare(self, process: Process, stdout: BinaryIO | int | None) -> _Waiting:
        home = Path(tempfile.mkdtemp(dir=self._store.root / "tmp"))
        try:
            app, said = home / APP, home / "said"
            app.mkdir()
            said.mkdir()
            home.chmod(0o755)
            said.chmod(0o777)
            (said / "modules").write_text(self._modules)
            os.mkfifo(said / "go")
            (said / "go").chmod(0o666)
            # Held open on both sides, so that what is written waits for its reader.
            handle = os.open(said / "go", os.O_RDWR)
            pipe = cast("BinaryIO", os.fdopen(handle, "r+b", buffering=0))
            mounts = (Mount(app, f"/{APP}"), Mount(said, _INSIDE, writable=True))
            ahead = replace(
                process, command=("python3", "-c", _PROGRAM), mounts=(*process.mounts, *mounts)
            )
            running = self._starter.submit(self._sandbox.start, ahead, stdout).result()
            return _Waiting(running, process, app, said, pipe)
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise

    def _fits(self, before: Process, now: Process) -> bool:
        """Tell whether the two differ in pytest's arguments and in files below /app alone."""
        same = replace(now, image=before.image, command=before.command) == before
        try:
            return same and self._around(before.image) == self._around(now.image)
        except BuilderError:
            return False  # a layer deletes something, which no folder of its own can say

    def _around(self, image: oci.Image) -> tuple[object, list[str]]:
        """Return all of an image but what is below /app: its config, and its other layers."""
        own = {"rootfs", "history"}
        layers = [
            layer.diff_id
            for layer in image.layers
            if {path.name for path in unpacked(self._store, layer).iterdir()} != {APP}
        ]
        return {k: v for k, v in image.config.items() if k not in own}, layers

    def _go(self, waiting: _Waiting, process: Process) -> None:
        """Put the files of /app in place and tell pytest's arguments."""
        for layer in process.image.layers:
            folder = unpacked(self._store, layer) / APP
            if folder.is_dir():
                _lay_over(folder, waiting.app)
        waiting.pipe.write(json.dumps(process.command[3:]).encode() + b"\n")

    def ended(self, waiting: _Waiting, process: Process, stdout: BinaryIO | int | None) -> None:
        """Note what a run had loaded, and start the next one ahead."""
        self._modules = _names(waiting.said / "loaded") or self._modules
        _clear(waiting)
        with self._lock:
            if not self._closed and self._waiting is None:
                with suppress(BuilderError):
                    self._waiting = self._prepare(process, stdout)

    def _end(self, waiting: _Waiting) -> None:
        waiting.running.stop(grace=0)
        _clear(waiting)


class _Gone:
    """A process that was told to go; its time begins then, and after it the next is started."""

    def __init__(
        self, ahead: Ahead, waiting: _Waiting, process: Process, stdout: BinaryIO | int | None
    ) -> None:
        self._ahead, self._waiting, self._process, self._stdout = ahead, waiting, process, stdout
        self.ports: Mapping[int, int] = {}
        self._began = time.monotonic()
        self._stopped = False

    def wait(self) -> Exit:
        ended = self._waiting.running.wait()
        ended = replace(ended, seconds=time.monotonic() - self._began)
        if not self._stopped:
            self._ahead.ended(self._waiting, self._process, self._stdout)
        return ended

    def stop(self, grace: float = 10.0) -> Exit:
        self._stopped = True
        ended = self._waiting.running.stop(grace)
        _clear(self._waiting)
        return ended


def _clear(waiting: _Waiting) -> None:
    waiting.pipe.close()
    shutil.rmtree(waiting.said.parent, ignore_errors=True)


def _names(path: Path) -> str:
    """Return the names of modules in a file that tests may have written to; "" without them."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
            found = json.loads(file.read(1 << 20))
    except (OSError, ValueError):
        return ""
    good = isinstance(found, list) and all(isinstance(name, str) for name in found)
    return json.dumps(found) if good else ""


def _lay_over(source: Path, target: Path) -> None:
    """Put the files of a layer's folder over those of the layers below it, as links to the same."""
    for entry in os.scandir(source):
        path = target / entry.name
        if entry.is_dir(follow_symlinks=False):
            if path.is_symlink() or path.is_file():
                path.unlink()
            path.mkdir(exist_ok=True)
            _lay_over(source / entry.name, path)
            path.chmod(entry.stat().st_mode & 0o7777)
        else:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
            os.link(entry.path, path, follow_symlinks=False)
