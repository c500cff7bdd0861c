"""A stage's tests run inside its image, and a pass is remembered until something changes."""

from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from builder.build.workspace import Workspace
from builder.errors import BuilderError
from builder.sandbox.bubblewrap import Bubblewrap
from builder.sandbox.process import Exit, Process
from builder.store import Store
from builder.testing.stage_tests import run_at_once, run_tests


@pytest.fixture
def workspace(small: Path) -> Workspace:
    """Return a workspace whose stage `small` has a file of tests."""
    (small / "stages/small/Dockerfile").write_text('FROM base\nCMD ["python3"]\n')
    (small / "stages/small/tests/test_it.py").write_text(
        "import os, sys\n"
        "def test_where(): assert sys.version_info[:2] == (3, 13) and os.getuid() == 65532\n"
        "def test_beside(): assert os.environ['PYTEST_XDIST_WORKER_COUNT'] == '2'\n"
        "def test_other(): assert True\n"
        "def test_plugins(pytestconfig):\n"
        "    import hypothesis.core\n"
        "    assert pytestconfig.pluginmanager.hasplugin('hypothesispytest')\n"
        "    rewritten = [name for name, module in sys.modules.items()\n"
        "                 if 'rewrite' in str(type(getattr(module, '__loader__', '')))]\n"
        "    assert set(rewritten) == {'plateline_plugins', __name__}\n"
    )
    return Workspace.load(small)


def test_a_pass_is_remembered_until_a_test_or_an_argument_changes(workspace: Workspace) -> None:
    store = Store.open()
    sandbox = Bubblewrap(store)
    test = workspace.root / "stages/small/tests/test_it.py"
    # Unique to this run, since a pass is remembered in the user's store.
    test.write_text(test.read_text() + f"# {workspace.root}\n")
    first = run_tests(workspace, store, sandbox, "small", jobs=2)
    assert (first.code, first.cached) == (0, False)
    assert run_tests(workspace, store, sandbox, "small").cached
    assert not run_tests(workspace, store, sandbox, "small", ["-k", "where"]).cached
    test.write_text(test.read_text().replace("assert True", "assert False"))
    for jobs in (2, 1):
        failed = run_tests(workspace, store, sandbox, "small", jobs=jobs)
        assert (failed.code, failed.cached) == (1, False)


def test_a_plugin_that_is_named_is_left_out(workspace: Workspace) -> None:
    store = Store.open()
    test = workspace.root / "stages/small/tests/test_it.py"
    test.write_text(
        f"# {workspace.root}\n"
        "def test_plugins(pytestconfig):\n"
        "    assert not pytestconfig.pluginmanager.hasplugin('hypothesispytest')\n"
        "    assert pytestconfig.pluginmanager.hasplugin('xdist')\n"
    )
    words = ["-p", "no:hypothesispytest"]
    assert run_tests(workspace, store, Bubblewrap(store), "small", words).code == 0


def test_a_target_without_tests_says_so(workspace: Workspace) -> None:
    store = Store.open()
    with pytest.raises(BuilderError, match="base has no tests"):
        run_tests(workspace, store, Bubblewrap(store), "base")


class Faked:
    """A sandbox whose processes end as `ends` says; each of them prints the folder it tests."""

    name = "faked"

    def __init__(self, ends: Callable[[str, threading.Event], Exit]) -> None:
        self.ends, self.stopped, self.commands = ends, [], []

    def start(self, process: Process, stdout: BinaryIO, stdin: bytes = b"") -> FakedProcess:
        self.commands.append(process.command)
        tested = process.mounts[0].source.parent.name
        stdout.write(f"tests of {tested}\n".encode())
        return FakedProcess(self, tested)


class FakedProcess:
    def __init__(self, sandbox: Faked, tested: str) -> None:
        self.sandbox, self.tested, self.over = sandbox, tested, threading.Event()

    def wait(self) -> Exit:
        return self.sandbox.ends(self.tested, self.over)

    def stop(self, grace: float = 10.0) -> None:
        self.sandbox.stopped.append(self.tested)
        self.over.set()


@pytest.fixture
def three(workspace: Workspace) -> Workspace:
    """Return a workspace with three stages that have tests, one of which has no pytest for it."""
    for name in ("large", "other"):
        shutil.copytree(workspace.root / "stages/small", workspace.root / "stages" / name)
    (workspace.root / "stages/large/Dockerfile").write_text(
        'FROM base\nCOPY stages/testing /app\nCMD ["python3"]\n'
    )
    (workspace.root / "stages/other/Dockerfile").write_text("FROM scratch\nRUN true\n")
    for test in workspace.root.glob("stages/*/tests/test_it.py"):  # no pass of them is known
        test.write_text(test.read_text() + f"# {workspace.root}\n")
    return Workspace.load(workspace.root)


def test_stages_are_tested_beside_each_other_and_what_they_print_stays_apart(
    three: Workspace,
) -> None:
    both = threading.Barrier(2, timeout=60)

    def ends(tested: str, over: threading.Event) -> Exit:
        both.wait()  # each waits for the other one to run
        return Exit(0, seconds=1.0)

    told = {}
    store = Store.open()
    names = ["small", "large", "other"]
    run_at_once(three, store, Faked(ends), names, [], 2, lambda name, one, printed: told.update(
        {name: (one, printed and printed.read())}))  # fmt: skip
    for name in ("small", "large"):
        one, printed = told[name]
        assert (one.code, one.cached, printed) == (0, False, f"tests of {name}\n".encode())
    assert "RUN" in str(told["other"][0])
    again = []
    run_at_once(three, store, Faked(ends), ["small"], [], 2, lambda *one: again.append(one))
    assert [(one.cached, printed) for _, one, printed in again] == [(True, None)]


def test_the_largest_image_begins_and_where_one_end_stops_all_the_others_are_killed(
    three: Workspace,
) -> None:
    began = []

    def ends(tested: str, over: threading.Event) -> Exit:
        began.append(tested)
        assert tested == "large" or over.wait(60)
        began.append(f"{tested} ended")
        return Exit(1)

    def ended(name: str, one: object, printed: object) -> None:
        raise KeyboardInterrupt

    for jobs in (1, 2):
        began.clear()
        sandbox = Faked(ends)
        with pytest.raises(KeyboardInterrupt):
            run_at_once(three, Store.open(), sandbox, ["small", "large"], [], jobs, ended)
        # The other may begin while the end of the first is told, and not before it.
        assert jobs == 2 or began[:2] == ["large", "large ended"]
        assert sandbox.stopped == (["small"] if "small" in began else [])


def test_a_stage_with_a_test_target_of_its_own_needs_no_xdist_there(workspace: Workspace) -> None:
    sandbox, store = Faked(lambda *_: Exit(1)), Store.open()
    run_tests(workspace, store, sandbox, "small", jobs=2, output=io.BytesIO())
    own = workspace.root / "stages/testing_small/Dockerfile"
    own.parent.mkdir()
    own.write_text("FROM small\n")
    run_tests(
        Workspace.load(workspace.root), store, sandbox, "small", jobs=2, output=io.BytesIO()
    )  # fmt: skip
    assert ["-n" in command for command in sandbox.commands] == [True, False]
