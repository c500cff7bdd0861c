"""A run of pytest that was started ahead sees the files of the image it is for, and no others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from builder.build.workspace import Workspace
from builder.sandbox.bubblewrap import Bubblewrap
from builder.store import Store
from builder.testing.ahead import Ahead
from builder.testing.stage_tests import run_tests

TEST = """
import sys
from pathlib import Path
loaded = {name for name in ("small", "graphlib", "pytest", "hypothesis") if name in sys.modules}
import graphlib, hypothesis, small
def test_it(request):
    print("SAW", small.VALUE, *sorted(path.name for path in Path("/app").iterdir()),
          *sorted(loaded), *request.config.invocation_params.args[-1:])
"""


@dataclass
class Counted:
    """Bubblewrap, and the processes that it started."""

    sandbox: Bubblewrap
    name: str = "bubblewrap"
    started: list[Any] = field(default_factory=list)

    def start(self, *given: Any) -> Any:
        self.started.append(self.sandbox.start(*given))
        return self.started[-1]

    def attach(self, process: Any) -> Any:
        raise AssertionError


@pytest.fixture
def root(small: Path) -> Path:
    (small / "stages/small/Dockerfile").write_text("FROM base\nCOPY app/ /app/\nCOPY x /etc/x\n")
    (small / "stages/small/tests/test_it.py").write_text(TEST)
    (small / "app").mkdir()
    (small / "x").write_text("x")
    (small / "app/small.py").write_text(f"VALUE = 1  # {small} {time.time()}\n")
    return small


@pytest.fixture
def ahead() -> Iterator[tuple[Ahead, Counted]]:
    store = Store.open()
    counted = Counted(Bubblewrap(store))
    made = Ahead(counted, store)
    yield made, counted
    made.close()


@pytest.mark.slow
def test_the_files_are_those_of_the_new_image_and_the_rest_is_loaded_before(
    root: Path, ahead: tuple[Ahead, Counted], tmp_path: Path
) -> None:
    def saw(number: int) -> list[str]:
        with (tmp_path / "said").open("w+b") as output:
            ended = run_tests(Workspace.load(root), Store.open(), ahead[0], "small",
                              ["-s", f"--verbosity={number}"], output=output)  # fmt: skip
            output.seek(0)
            text = output.read().decode()
        assert (ended.code, ended.cached) == (0, False), text
        return next(line for line in text.splitlines() if "SAW" in line).split("SAW ")[1].split()

    # pytest's own start loads pytest, and the plugin of hypothesis some of it.
    first = saw(0)
    assert first[:2] == ["1", "small.py"]
    assert "graphlib" not in first
    assert len(ahead[1].started) == 2, "the tests, and the next ones ahead"

    (root / "app/small.py").write_text(f"VALUE = 2  # {tmp_path} {time.time()}\n")
    (root / "app/more.py").write_text("")
    assert saw(0)[:3] == ["2", "more.py", "small.py"]
    (root / "app/more.py").unlink()
    (root / "app/small.py").write_text(f"VALUE = 3  # {tmp_path} {time.time()}\n")
    third = saw(0)
    assert third[:2] == ["3", "small.py"]
    assert {"graphlib", "hypothesis"} <= set(third)
    assert "small" not in third, "what may have changed is not loaded ahead"
    assert len(ahead[1].started) == 4, "one each time, which was there already"

    (root / "x").write_text("another")
    (root / "app/small.py").write_text(f"VALUE = 4  # {tmp_path} {time.time()}\n")
    assert saw(0)[:2] == ["4", "small.py"]
    assert len(ahead[1].started) == 6, "an image that differs elsewhere gets a process of its own"


@pytest.mark.slow
def test_what_waits_is_ended_and_leaves_nothing(root: Path, tmp_path: Path) -> None:
    store = Store.open()
    before = set((store.root / "tmp").iterdir())
    counted = Counted(Bubblewrap(store))
    ahead = Ahead(counted, store)
    with (tmp_path / "said").open("wb") as output:
        run_tests(Workspace.load(root), store, ahead, "small", [], output=output)
    ahead.close()
    assert counted.started[-1].wait().code == 137
    ours = {
        path for path in set((store.root / "tmp").iterdir()) - before if (path / "said").exists()
    }
    assert ours == set()
