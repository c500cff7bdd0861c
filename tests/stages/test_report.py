"""What the validate stage made in its image: its report in a browser, its metrics for KFP."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from builder.build.make import build
from builder.build.workspace import Workspace
from builder.sandbox.engines import choose
from builder.sandbox.process import Mount, Process, run
from builder.store import Store
from tests.browser import chromium

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """The folder of the outputs for the example plate of the stage's own tests."""
    folder = tmp_path_factory.mktemp("report")
    folder.chmod(0o777)
    store = Store.open()
    image = build(Workspace.load(ROOT), store, ["validate"])["validate"].image
    process = Process(
        image=image,
        command=("python3", "/tests/example.py", "/out"),
        env={"PYTHONPATH": "/app:/tests"},
        mounts=(
            Mount(ROOT / "stages/validate/tests", "/tests"),
            Mount(folder, "/out", writable=True),
        ),
    )
    ended = run(choose("bubblewrap", store), process, subprocess.DEVNULL)
    assert ended.code == 0, ended
    return folder / "out"


@pytest.fixture(scope="module")
def report(judged):
    return shutil.copyfile(judged / "report", judged / "report.html")


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(params=[(1280, "light"), (420, "light"), (400, "dark")], ids=str)
def page(request, browser, report):
    width, scheme = request.param
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(report.as_uri())
    return browser


def test_the_page_does_not_scroll_sideways_and_logs_nothing(page):
    wide, seen = page.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide <= seen
    assert page.get_log("browser") == []


def test_every_picture_is_there(page):
    sizes = page.execute_script("return [...document.images].map(i => [i.naturalWidth, i.width])")
    assert len(sizes) >= 26
    assert all(natural > 100 and shown > 50 for natural, shown in sizes)
    charts = page.execute_script(
        "return [...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect())"
        ".map(r => [r.width, r.height])"
    )
    assert len(charts) == 6  # plate, ramp, two series, ROC, reliability
    assert all(width > 100 and height > 20 for width, height in charts)


def test_numbers_on_the_plate_can_be_read(page):
    """Drawn at 8 pixels or more; and no letter is drawn in its own ground's colour."""
    heights = page.execute_script(
        "return [...document.querySelectorAll('svg.plate .value')]"
        ".map(t => t.getBoundingClientRect().height)"
    )
    assert len(heights) == 48
    assert min(heights) >= 8
    ink, ground = page.execute_script(
        "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    )
    assert ink != ground


def test_the_table_of_wells_opens_by_keyboard_and_leads_to_pictures(page):
    summary = page.find_element("css selector", "details.wells summary")
    table = page.find_element("css selector", "details.wells table")
    assert not table.is_displayed()
    summary.send_keys("\n")
    assert table.is_displayed()
    wide, seen = page.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide <= seen
    link = table.find_element("css selector", "a[href^='#tile-']")
    link.send_keys("\n")
    target = page.execute_script("return document.querySelector(':target').tagName")
    assert target == "FIGURE"


def test_nothing_is_asked_of_a_network(page):
    asked = page.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in asked if not name.startswith("data:")] == []


def test_the_metrics_are_what_kfp_itself_would_log(judged):
    from kfp import dsl

    made = json.loads((judged / "classification").read_text())
    own = dsl.ClassificationMetrics()
    classes = [each["displayName"] for each in made["confusionMatrix"]["annotationSpecs"]]
    counts = [row["row"] for row in made["confusionMatrix"]["rows"]]
    own.log_confusion_matrix(classes, counts)
    points = made["confidenceMetrics"]
    names = ("falsePositiveRate", "recall", "confidenceThreshold")
    own.log_roc_curve(*([point[name] for point in points] for name in names))
    assert own.metadata == made
    assert sum(map(sum, counts)) == 12  # the labelled wells of the example
    assert len(points) > 2

    flat = json.loads((judged / "metrics").read_text())
    metrics = dsl.Metrics()
    for name, value in flat.items():
        metrics.log_metric(name, value)
    assert metrics.metadata == flat
