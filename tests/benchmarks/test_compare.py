"""`bench --compare` says what got slower, from rounds in turns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import compare
from benchmarks.compare import compared

ROOT = Path(__file__).parents[2]


def test_a_ratio_is_that_of_rounds_side_by_side_so_that_a_busy_moment_counts_once() -> None:
    found = compared("x", "s", [1.0, 10.0, 1.2], [2.0, 20.0, 2.4])
    assert found.ratio == 0.5
    assert (found.here.median, found.here.least, found.here.most, found.here.rounds) == (
        1.2, 1.0, 10.0, 3,
    )  # fmt: skip


def test_more_work_costs_more_processor_time(tmp_path: Path) -> None:
    (tmp_path / "cli").mkdir()
    (tmp_path / "cli/__main__.py").write_text("import sys; sum(range(int(sys.argv[1])))")
    little, much = (compare.seconds(tmp_path, n, tmp_path) for n in ("1", "20000000"))
    assert much > little


def test_a_task_that_breaks_is_no_measurement(tmp_path: Path) -> None:
    (tmp_path / "cli").mkdir()
    (tmp_path / "cli/__main__.py").write_text("raise SystemExit('broken')")
    with pytest.raises(SystemExit, match=r"'build-images' failed.*broken"):
        compare.seconds(tmp_path, "build-images", tmp_path)


def test_a_revision_that_is_not_there_is_named() -> None:
    command = [sys.executable, "-m", "benchmarks.compare", "--compare", "no-such-revision"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no-such-revision" in done.stderr
    assert "Traceback" not in done.stderr
