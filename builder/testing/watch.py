"""The tests of a stage, run again after each save; a newer save ends what still runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.sandbox.process import Exit, Process, Running, Sandbox
from builder.store import Store
from builder.testing.stage_tests import Tested, run_tests

_FROM_FILES = ("COPY", "ADD")
Then = Callable[[Workspace, Sandbox], Callable[[], object]]


def folders(root: Path, name: str) -> list[Path]:
    """Return the folders of a workspace whose files can change the image `name` or its tests.

    They are `stages`, and those at the top that a recipe copies from. Raises BuilderError where
    there is no such target.
    """
    workspace = Workspace.load(root)
    workspace.target(name)
    found = {"stages"}
    for target in workspace.targets.values():
        try:
            stages = target.recipe.stages
        except BuilderError:
            continue  # the build of those that need it will say so
        words = [
            word
            for stage in stages
            for instruction in stage.instructions
            if instruction.name in _FROM_FILES and "from" not in instruction.flags
            for word in instruction.value.split()
        ]
        found |= {word.strip('[]",').partition("/")[0] for word in words}
    return sorted(root / each for each in found if each and (root / each).is_dir())


def watch(
    root: Path,
    store: Store,
    sandbox: Sandbox,
    name: str,
    arguments: Sequence[str],
    saves: Iterable[object],
    ended: Callable[[Tested | BuilderError], object],
    output: BinaryIO | int | None = None,
    then: Then | None = None,
) -> None:
    """Run the tests of the target `name` now and after each of `saves`, until those end.

    `ended` is told how each run ended, from its thread, unless a newer save ended it. What cannot
    be built is told too, and the next save tries again. `then` is done after tests that passed; it
    gets the workspace and a sandbox whose processes a newer save ends, and what it returns is
    called unless one did. Nothing runs any more when this returns or raises.
    """
    current = _Round(root, store, sandbox, name, arguments, ended, output, then)
    try:
        current.start()
        for _ in saves:
            current.end()
            current = _Round(root, store, sandbox, name, arguments, ended, output, then)
            current.start()
        current.join()
    finally:
        current.end()


class _Round(threading.Thread):
    """One run of the tests, which can be ended from outside."""

    def __init__(
        self,
        root: Path,
        store: Store,
        sandbox: Sandbox,
        name: str,
        arguments: Sequence[str],
        ended: Callable[[Tested | BuilderError], object],
        output: BinaryIO | int | None,
        then: Then | None,
    ) -> None:
        super().__init__(daemon=True)
        self._then = then
        self._asked = (root, store, name, arguments, output)
        self._sandbox, self._ended = sandbox, ended
        self._lock, self._over = threading.Lock(), False
        self._running: Running | None = None

    def run(self) -> None:
        root, store, name, arguments, output = self._asked
        found: Tested | BuilderError
        try:
            found = run_tests(
                Workspace.load(root), store, _Ending(self, self._sandbox), name, arguments,
                output=output,
            )  # fmt: skip
        except BuilderError as error:
            found = error
        except OSError as error:  # a file that went away while it was read
            found = BuilderError(f"cannot read {error.filename} ({error.strerror}); save again")
        if not self._over:
            self._ended(found)
        if self._then and isinstance(found, Tested) and not (found.code or self._over):
            tell = self._then(Workspace.load(root), _Ending(self, self._sandbox))
            if not self._over:
                tell()

    def start_in(self, process: Process, stdout: BinaryIO | int | None, stdin: bytes) -> Running:
        """Start a process of this round; raises BuilderError where the round is over."""
        with self._lock:
            if self._over:
                raise BuilderError("a newer save came")
            self._running = self._sandbox.start(process, stdout, stdin)
            return self._running

    def end(self) -> None:
        """End the round: its process is killed, and what it builds is waited for."""
        with self._lock:
            self._over = True
            running = self._running
        if self.is_alive():
            if running:
                running.stop(grace=0)
            self.join()


class _Ending:
    """The sandbox of a round, which knows the process that it started."""

    def __init__(self, round_: _Round, sandbox: Sandbox) -> None:
        self._round, self._sandbox = round_, sandbox

    @property
    def name(self) -> str:
        return self._sandbox.name

    def start(
        self, process: Process, stdout: BinaryIO | int | None = None, stdin: bytes = b""
    ) -> Running:
        return self._round.start_in(process, stdout, stdin)

    def attach(self, process: Process) -> Exit:
        return self._sandbox.attach(process)
