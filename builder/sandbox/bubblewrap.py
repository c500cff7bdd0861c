"""Images as processes by bubblewrap: no daemon, no root, one overlay entry a layer.

Options: https://github.com/containers/bubblewrap/blob/v0.11.0/bwrap.xml.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from builder.sandbox import gpu, host
from builder.sandbox.confine import landlock, memory, reaper, seccomp
from builder.sandbox.confine.hold import EVERY, Hold
from builder.sandbox.process import Exit, Process
from builder.sandbox.unpack import folders, whole
from builder.store import Store

_CONFINED = [sys.executable, "-I", "-S", "-B", landlock.__file__]
_NETWORK_FILES = ("/etc/resolv.conf", "/etc/hosts")


def free_port() -> int:
    """Return a TCP port of loopback that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@dataclass(frozen=True)
class Bubblewrap:
    """Runs images out of `store`."""

    store: Store
    name: str = "bubblewrap"

    def start(
        self, process: Process, stdout: BinaryIO | int | None = None, stdin: bytes = b""
    ) -> BubblewrapProcess:
        """Start `process`; both output streams go to `stdout`, `stdin` is fed to it.

        Raises BuilderError where bubblewrap cannot run here, and as `unpack.folders`.
        """
        source = subprocess.PIPE if stdin else subprocess.DEVNULL
        return self._start(process, stdout, source, stdin)

    def attach(self, process: Process) -> Exit:
        """Run `process` on the caller's own stdin and stdout, Ctrl-C passed on to it.

        Raises as `start`.
        """
        running = self._start(process, None, None, b"")
        before = signal.signal(signal.SIGINT, lambda *_: running.send(signal.SIGINT))
        try:
            return running.wait()
        except BaseException:
            running.stop(grace=0)
            raise
        finally:
            signal.signal(signal.SIGINT, before)

    def _start(
        self, process: Process, stdout: BinaryIO | int | None, source: int | None, stdin: bytes
    ) -> BubblewrapProcess:
        ports = {port: free_port() for port in process.ports}
        env = process.environment()
        env |= {name: str(ports[port]) for port, name in process.ports.items()}
        points = Path(tempfile.mkdtemp(dir=self.store.root / "tmp"))
        reaper.adopt()
        with ExitStack() as stack:
            told, tell = _pipe(stack)
            wait, go = _pipe(stack)
            # Undone where something fails before the process is the caller's.
            undo = stack.enter_context(ExitStack())
            undo.callback(shutil.rmtree, points, ignore_errors=True)
            command = self._command(process, points, env)
            # Without a network of the host's there are no abstract sockets of it either.
            before = _CONFINED if process.network and landlock.works() else []
            passed = {"--info-fd": tell, "--block-fd": wait}
            if program := seccomp.program():
                passed["--seccomp"] = _holding(program, stack)
            for name, pipe in passed.items():
                command[1:1] = [name, str(pipe.fileno())]
            hold = Hold(process.memory, stdout, [m.source for m in process.mounts if m.writable])
            undo.callback(hold.release)
            started = subprocess.Popen(
                [*before, *command],
                pass_fds=[pipe.fileno() for pipe in passed.values()],
                stdin=source,
                stdout=stdout,
                stderr=subprocess.STDOUT if stdout is not None else None,
                start_new_session=True,
                env={},
            )
            undo.callback(started.wait)
            undo.callback(started.kill)
            # The first process inside waits, so that it is held before it starts anything.
            tell.close()
            first = _first(told)
            if first is not None:
                hold.take(first)
            go.write(b"1")
            undo.pop_all()
        return BubblewrapProcess(started, process, points, ports, stdin, first, hold)

    def _command(self, process: Process, points: Path, env: Mapping[str, str]) -> list[str]:
        user, _, group = (
            process.user or process.image.config["config"].get("User") or "0"
        ).partition(":")
        user = user if user.isdigit() else "65532"
        options = ["--unshare-all", "--die-with-parent", "--clearenv", "--uid", user,
                   "--gid", group if group.isdigit() else user]  # fmt: skip
        mounts = [(m.source.resolve(), m.target, m.writable) for m in process.mounts]
        devices: Mapping[str, Path] = {}
        if process.gpus:
            devices = process.gpus.devices
            mounts += [(path.resolve(), at, False) for at, path in process.gpus.libraries.items()]
            own = env.get("LD_LIBRARY_PATH", "")
            env = {**env, "LD_LIBRARY_PATH": ":".join(filter(None, (gpu.LIBRARIES, own)))}
        if process.network:
            options += ["--share-net"]
            mounts += [(Path(p), p, False) for p in _NETWORK_FILES if Path(p).exists()]
        for folder in ("proc", "dev", "tmp"):
            (points / folder).mkdir(exist_ok=True)
        for source, target, _ in mounts:
            point = points / target.strip("/")
            if source.is_dir():
                point.mkdir(parents=True, exist_ok=True)
            else:
                point.parent.mkdir(parents=True, exist_ok=True)
                point.touch()
        bwrap = host.bubblewrap(self.store.root)
        if bwrap.overlay:
            for layer in (*folders(self.store, process.image), points):
                options += ["--overlay-src", str(layer)]
            options += ["--ro-overlay", "/"]
        else:
            options += ["--tmpfs", "/", *_joined(whole(self.store, process.image), points, "/")]
        options += ["--proc", "/proc", "--dev", "/dev"]
        for target, source in devices.items():
            options += ["--dev-bind", str(source), target]
        # A root caller's process owns the host's sysctls, whatever its number inside.
        options += ["--ro-bind", "/proc/sys", "/proc/sys"]
        for folder in ("/tmp", "/dev/shm"):  # noqa: S108 - both are memory
            options += ["--size", str(process.memory)] if process.memory else []
            options += ["--perms", "1777", "--tmpfs", folder]
        for source, target, writable in sorted(mounts, key=lambda mount: mount[1]):
            options += ["--bind" if writable else "--ro-bind", str(source), target]
        options += [] if bwrap.overlay else ["--remount-ro", "/"]
        options += [
            "--chdir",
            process.workdir or process.image.config["config"].get("WorkingDir") or "/",
        ]
        for name, value in env.items():
            options += ["--setenv", name, value]
        return [bwrap.program, *options, "--", *process.words()]


def _joined(folder: Path, points: Path, at: str) -> list[str]:
    """Return the options that show `folder` at `at`, with room for the mount points of `points`.

    For where there is no overlay: a folder that has mount points in it is made anew, and what else
    is in it is bound one by one; bwrap makes the mount points.
    """
    options = []
    for path in sorted(folder.iterdir()):
        inner, there = points / path.name, f"{at}{path.name}"
        if path.is_symlink():
            options += ["--symlink", str(path.readlink()), there]
        elif path.is_dir() and inner.is_dir() and any(inner.iterdir()):
            options += ["--perms", f"{path.stat().st_mode & 0o1777:04o}", "--dir", there]
            options += _joined(path, inner, there + "/")
        else:
            options += ["--ro-bind", str(path), there]
    return options


def _first(told: BinaryIO) -> int | None:
    """Return the number of the first process inside, as bwrap tells it; None where it failed."""
    try:
        return int(json.loads(told.read())["child-pid"])
    except (ValueError, KeyError):
        return None


def _pipe(stack: ExitStack) -> tuple[BinaryIO, BinaryIO]:
    read, write = os.pipe()
    reading = stack.enter_context(cast("BinaryIO", os.fdopen(read, "rb", buffering=0)))
    return reading, stack.enter_context(cast("BinaryIO", os.fdopen(write, "wb", buffering=0)))


def _holding(data: bytes, stack: ExitStack) -> BinaryIO:
    """Return what `data` can be read from (it must fit a pipe's 64 KiB)."""
    read, write = _pipe(stack)
    write.write(data)
    write.close()
    return read


class BubblewrapProcess:
    """A process that bubblewrap started; ends with its whole process tree."""

    def __init__(
        self,
        started: subprocess.Popen[bytes],
        process: Process,
        points: Path,
        ports: Mapping[int, int],
        stdin: bytes,
        first: int | None,
        hold: Hold,
    ) -> None:
        self.ports = ports
        self._first = first
        self._hold = hold
        self._process = started
        self._timeout = process.timeout
        self._points = points
        self._began = time.monotonic()
        self._timed_out = False
        self._out_of_memory = False
        self._broke = ""
        self._peak = 0
        self._exit: Exit | None = None
        self._waiting = threading.Lock()  # one thread waits, another may stop
        if stdin:
            threading.Thread(target=self._feed, args=(stdin,), daemon=True).start()

    def _feed(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            self._process.stdin.close()
        except BrokenPipeError:
            pass

    def wait(self) -> Exit:
        """Wait for the end and return how it came."""
        with self._waiting:
            return self._wait()

    def _wait(self) -> Exit:
        if self._exit is not None:
            return self._exit
        self._watch()
        _, status, _ = os.wait4(self._process.pid, 0)
        max_rss = self._reap()
        out_of_memory = self._out_of_memory or self._hold.ran_out()
        self._hold.release()
        code = os.waitstatus_to_exitcode(status)
        self._process.returncode = code
        shutil.rmtree(self._points, ignore_errors=True)
        # bwrap says 128 + signal, as a shell does; a negative code is a signal to bwrap itself.
        number = -code if code < 0 else code - 128 if 128 < code < 160 else None
        code = code if code >= 0 else 128 - code
        self._exit = Exit(
            # As on a cluster, where one process that is killed for memory fails the whole.
            code=code or (137 if out_of_memory or self._broke else 0),
            signal=number,
            timed_out=self._timed_out,
            out_of_memory=out_of_memory,
            broke=self._broke,
            max_rss=max_rss,
            seconds=time.monotonic() - self._began,
        )
        return self._exit

    def _reap(self) -> int | None:
        """Wait for the first process inside, and return the peak of what ran under it, in bytes."""
        peak = None if self._first is None else reaper.peak(self._first)
        return None if peak is None else max(peak, self._peak)

    def _watch(self) -> None:
        """Wait for the end, and kill the tree when it breaks a limit."""
        with os.fdopen(os.pidfd_open(self._process.pid)) as process:
            ended = select.poll()
            ended.register(process, select.POLLIN)
            while not ended.poll(EVERY * 1000):
                self._timed_out = self._late()
                self._broke = "" if self._timed_out else self._hold.broken()
                if not (self._timed_out or self._broke):  # it takes longer the more processes are
                    self._out_of_memory = self._hold.out_of_memory()
                if self._timed_out or self._out_of_memory or self._broke:
                    self._kill()
                    return

    def _late(self) -> bool:
        return self._timeout is not None and time.monotonic() - self._began > self._timeout

    def _kill(self) -> None:
        self._peak = memory.peak(self._process.pid)  # the kernel does not add up what it kills
        # The first inside too: just started, it does not yet die with its parent.
        first = [pid for pid in memory.children(self._process.pid) if pid == self._first]
        for pid in (self._process.pid, *first):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to what runs inside."""
        for child in memory.children(self._process.pid):
            for inner in memory.children(child):
                with suppress(ProcessLookupError):
                    os.kill(inner, number)

    def stop(self, grace: float = 10.0) -> Exit:
        """Send SIGTERM to what runs inside, and kill the tree after `grace` seconds."""
        if self._exit is None and grace:
            self.send(signal.SIGTERM)
            timer = threading.Timer(grace, self._kill)
            timer.daemon = True
            timer.start()
            try:
                return self.wait()
            finally:
                timer.cancel()
        if self._exit is None:
            self._kill()
        return self.wait()
