"""`invoke shell`: a Python prompt in a stage's image, at a terminal or by a pipe."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from builder.errors import BuilderError
from builder.sandbox.engines import choose
from builder.store import Store
from tests.conftest import missing

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["bubblewrap", "docker"])
def engine(request: pytest.FixtureRequest) -> str:
    try:
        choose(request.param, Store.open())
    except BuilderError as error:
        missing(str(error), "apt-get install docker.io, then start dockerd")
    return str(request.param)


def piped(engine: str, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["./invoke", "shell", "base", "--engine", engine, *options],
        cwd=ROOT, input=script, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_what_comes_by_a_pipe_is_run_in_the_image(engine: str) -> None:
    done = piped(engine, "import os, sys; print(os.getuid(), sys.prefix); sys.exit(5)")
    assert (done.returncode, done.stdout.split()) == (5, ["65532", "/opt/venv"]), done.stderr


def test_the_time_limit_and_the_missing_network_hold_in_a_shell(engine: str) -> None:
    late = piped(engine, "import time; time.sleep(60)", "--timeout", "2")
    assert (late.returncode, "time limit" in late.stderr) == (137, True)
    alone = piped(engine, "import socket; socket.create_connection(('203.0.113.1', 80), 3)")
    assert "unreachable" in alone.stderr + alone.stdout


class Terminal:
    """`invoke shell base` at a pseudo-terminal."""

    def __init__(self, engine: str) -> None:
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.chdir(ROOT)
            os.execv("./invoke", ["./invoke", "shell", "base", "--engine", engine])
        self.seen = ""

    def until(self, text: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < end, f"{text!r} did not come: {self.seen!r}"
            if select.select([self.fd], [], [], 0.2)[0]:
                self.seen += os.read(self.fd, 4096).decode(errors="replace")
        self.seen = self.seen.partition(text)[2]

    def type(self, line: str) -> None:
        os.write(self.fd, line.encode())

    def end(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_at_a_terminal_there_is_a_prompt_that_ctrl_c_does_not_end(engine: str) -> None:
    terminal = Terminal(engine)
    try:
        terminal.until(">>> ")
        terminal.type("print(6 * 7, 'is the answer')\r")
        terminal.until("42 is the answer")
        terminal.until(">>> ")
        terminal.type("import time; print('be' + 'gun'); time.sleep(60)\r")
        terminal.until("begun")
        terminal.type("\x03")
        terminal.until("KeyboardInterrupt")
        terminal.until(">>> ")
        terminal.type("exit(3)\r")
        assert terminal.end() == 3
    except BaseException:
        os.kill(terminal.pid, signal.SIGKILL)
        raise
