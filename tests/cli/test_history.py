"""`invoke runs` and `invoke compare` where there is little to list, and what is typed wrongly."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Task, refused


def test_a_run_without_a_record_is_listed_with_the_reason(invoke: Task, tmp_path: Path) -> None:
    (tmp_path / "runs/20260101-000000-abc/steps").mkdir(parents=True)
    (tmp_path / "runs/workspace").mkdir()
    done = invoke("runs", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["runs"] == []
    assert "the run goes on" in found["unreadable"]["20260101-000000-abc"]
    refused(invoke("compare", "2026", "2026"), "20260101-000000-abc/run.json is not there")


def test_what_is_not_there_is_named(invoke: Task, tmp_path: Path) -> None:
    refused(invoke("runs"), "runs cannot be listed", "--runs DIR")
    (tmp_path / "runs").mkdir()
    refused(invoke("compare", "1", "2"), "'1'", "./invoke runs")
