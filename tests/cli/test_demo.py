"""The main job on a real plate, BBBC013v1 (Ilya Ravkin; Ljosa et al., Nature Methods 2012; CC BY
3.0, Broad Bioimage Benchmark Collection), which is not part of this repository."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from builder.store import Store
from tests.cli.conftest import ROOT, Task
from tests.conftest import missing

BBBC013 = Path(os.environ.get("PLATELINE_BBBC013", ROOT / "../shared/data/bbbc013v1")).resolve()


@pytest.mark.slow
def test_the_demo_on_the_real_plate_calls_every_held_out_control_right(
    invoke: Task, tmp_path: Path
):
    if not BBBC013.is_dir():
        missing(f"the plate {BBBC013}", "get BBBC013v1 and set PLATELINE_BBBC013 to its folder")
    done = invoke("demo", "--plate", str(BBBC013), "--layout", "bbbc013", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    models = facts["metrics"]["models"]
    assert set(models) == {"A-D", "E-H"}
    for model in models.values():
        (right, wrong), (also_wrong, also_right) = model["well"]["confusion"]
        assert (right + also_right, wrong + also_wrong) == (12, 0)
        assert model["tile"]["accuracy"] >= 0.99
    assert len(facts["answers"]) == 2
    for answer in facts["answers"].values():
        assert answer["class"] == answer["expected"]
    assert Path(facts["report"]).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert facts["package"].startswith("sha256:")
    served = Store.open().image(facts["function_image"].partition("@")[2])
    base = facts["images"]["function"]["digest"]
    assert served.config["config"]["Labels"]["org.opencontainers.image.base.digest"] == base
    again = invoke(
        "demo", "--plate", str(BBBC013), "--layout", "bbbc013", "--json",
        PYTHONHASHSEED="7", TZ="Asia/Kathmandu", LC_ALL="C",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    second = json.loads(again.stdout)
    assert second["function_image"] == facts["function_image"]
    steps = json.loads((Path(second["page"]).parent / "run.json").read_text())["steps"]
    ran = {name.rpartition(".")[2] for name, step in steps.items() if step["state"] == "succeeded"}
    assert ran == {"scan", "summary"}, "all else comes from the cache"
