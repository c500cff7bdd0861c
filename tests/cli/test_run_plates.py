"""`run --plates`: several plates to one model; a broken one is named and the others go on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Task, refused
from tests.cli.plates import LAYOUT, write_plate

PARAMETERS = ("epochs=1", "on_reject=skip", "f1_threshold=1", "most_tiles=40")


@pytest.fixture(scope="module")
def of_plates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "plates.yaml"
    subprocess.run(
        [sys.executable, "-m", "cli", "compile", "--pipeline", "plateline-plates",
         "--allow-local", "--output", str(path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    return path


def screen(folder: Path, plates: int, broken: int) -> Path:
    """Write plates and their list; the first `broken` lack a control's image."""
    for number in range(1, plates + 1):
        write_plate(folder / f"P{number}")
        if number <= broken:
            (folder / f"P{number}/c1-A1.bmp").unlink()
    (folder / "small.toml").write_text(LAYOUT)
    lines = "".join(f"P{number},small.toml\n" for number in range(1, plates + 1))
    (folder / "plates.csv").write_text("folder,layout\n" + lines)
    return folder / "plates.csv"


def run(invoke: Task, package: Path, plates: Path) -> subprocess.CompletedProcess[str]:
    words = [word for one in PARAMETERS for word in ("--param", one)]
    return invoke("run", "--file", str(package), "--plates", str(plates), "--json", *words)


@pytest.mark.slow
def test_plates_are_trained_and_judged_together_and_the_broken_one_is_named(
    invoke: Task, of_plates: Path, tmp_path: Path
):
    listed = screen(tmp_path / "screen é", 3, broken=1)
    done = run(invoke, of_plates, listed)
    assert done.returncode == 0, done.stderr
    steps = json.loads(done.stdout)["steps"]
    assert sum(name.endswith(".control-tiles") for name in steps) == 3
    assert sum(name.endswith(".train") for name in steps) == 2
    (metrics,) = (tmp_path / "runs").glob("*/steps/*validate/out/results/metrics.json")
    found = json.loads(metrics.read_text())
    assert {(one["plate"], one["fold"]) for one in found["plates"]} == {("P2", "P2"), ("P3", "P3")}
    assert [one["positive"] for one in found["plates"]] == [4, 4]
    (broken,) = found["broken_plates"]
    assert broken["plate"] == "P1"
    assert "well A01 lacks its signal image" in broken["problem"]
    (report,) = (tmp_path / "runs").glob("*/steps/*validate/out/report")
    assert "1 of 3 plates could not be used" in report.read_text()
    (ending,) = (tmp_path / "runs").glob("*/steps/*plates-summary/out/summary")
    assert f"- P1: {' '.join(broken['problem'].split())}" in ending.read_text()
    again = run(invoke, of_plates, listed)
    steps = json.loads(again.stdout)["steps"]
    assert {s["state"] for name, s in steps.items() if name.endswith(".train")} == {"cached"}


@pytest.mark.slow
def test_a_run_without_enough_plates_says_why_each_cannot_be_used(
    invoke: Task, of_plates: Path, tmp_path: Path
):
    done = run(invoke, of_plates, screen(tmp_path / "screen", 3, broken=2))
    refused(done, "1 of 3 plates can be used", "P1: ", "P2: ", "well A01 lacks its signal image")
    listed = tmp_path / "screen/plates.csv"
    listed.write_text("folder,layout\n../elsewhere,bbbc013\n")
    refused(run(invoke, of_plates, listed), "line 2: ../elsewhere leads out of the volume")
