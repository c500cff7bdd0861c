"""After a save the tests run again as the files are then, and nothing of the run before goes on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from builder.errors import BuilderError
from builder.sandbox.bubblewrap import Bubblewrap
from builder.sandbox.process import Exit
from builder.store import Store
from builder.testing.ahead import Ahead
from builder.testing.watch import folders, watch

LIMIT = 300  # seconds until a test that waits for nothing fails


@pytest.fixture
def root(small: Path) -> Path:
    """Return a workspace whose stage `small` has a test."""
    (small / "stages/small/Dockerfile").write_text("FROM base\nCOPY code/small.py /app/\n")
    (small / "code").mkdir()
    (small / "code/small.py").write_text(f"VALUE = 1  # {small}\n")
    (small / "stages/small/tests/test_it.py").write_text(
        "from small import VALUE\ndef test_value(): assert VALUE == 1\n"
    )
    return small


class Held:
    """A process that runs until it is stopped."""

    ports: Mapping[int, int] = {}

    def __init__(self) -> None:
        self.stopped = threading.Event()

    def wait(self) -> Exit:
        assert self.stopped.wait(LIMIT)
        return Exit(137)

    def stop(self, grace: float = 10.0) -> Exit:
        self.stopped.set()
        return Exit(137)


class Sandbox:
    """Starts such processes, and tells of each."""

    name = "held"

    def __init__(self) -> None:
        self.started: queue.Queue[Held] = queue.Queue()

    def start(self, *_: Any, **__: Any) -> Held:
        made = Held()
        self.started.put(made)
        return made

    def attach(self, *_: Any) -> Exit:
        raise AssertionError


def test_a_save_ends_what_runs_and_so_does_ctrl_c(root: Path) -> None:
    sandbox, told, seen = Sandbox(), [], []

    def saves() -> Iterator[str]:
        for _ in range(2):
            seen.append(sandbox.started.get(timeout=LIMIT))
            assert not seen[-1].stopped.is_set()
            yield "saved"
            assert seen[-1].stopped.is_set()
        seen.append(sandbox.started.get(timeout=LIMIT))
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        watch(root, Store.open(), sandbox, "small", [], saves(), told.append)
    assert [each.stopped.is_set() for each in seen] == [True] * 3
    assert sandbox.started.empty()
    assert told == [], "how a run ended that a save ended is not told"
    assert threading.active_count() == before


@pytest.mark.slow
@pytest.mark.parametrize("started", ["anew", "ahead"])
def test_files_may_be_wrong_gone_or_replaced_and_the_next_save_mends_it(
    root: Path, started: str
) -> None:
    file, tests = root / "code/small.py", root / "stages/small/tests"
    good = file.read_text()
    results: queue.Queue[Any] = queue.Queue()
    seen: list[Any] = []

    def replace() -> None:
        (root / "code/.small.py.new").write_text(good.replace("1", "3", 1))
        (root / "code/.small.py.new").replace(file)

    changes: list[Callable[[], object]] = [
        lambda: file.write_text("VALUE = = 2\n"),  # no Python
        file.unlink,
        lambda: file.write_text(good.replace("1", "2", 1)),
        replace,
        lambda: file.write_text(good),
        lambda: tests.rename(root / "away"),
        lambda: (root / "away").rename(tests),
    ]

    def saves() -> Iterator[str]:
        for change in changes:
            seen.append(results.get(timeout=LIMIT))
            change()
            yield "saved"

    store = Store.open()
    sandbox = Bubblewrap(store)
    ahead = Ahead(sandbox, store)
    # The results of one must not be what the other remembers.
    words = ["-p", "no:faulthandler"] if started == "ahead" else []
    chosen = ahead if started == "ahead" else sandbox
    watch(root, store, chosen, "small", words, saves(), results.put)
    ahead.close()
    seen.append(results.get(timeout=LIMIT))
    found = [str(e) if isinstance(e, BuilderError) else (e.code, e.cached) for e in seen]
    assert found[0] == (0, False)
    assert found[1] == (2, False), "pytest cannot import it"
    assert "code/small.py" in str(found[2])
    assert found[3:6] == [(1, False), (1, False), (0, True)]
    assert "small has no tests" in str(found[6])
    assert found[7] == (0, True)


def test_what_a_recipe_copies_from_is_watched_too(root: Path) -> None:
    (root / "docs").mkdir()
    assert folders(root, "small") == [root / "code", root / "stages"]
    with pytest.raises(BuilderError, match="there is no target 'smal'"):
        folders(root, "smal")
