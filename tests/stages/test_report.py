"""What the validate stage made in its image: its report in a browser, its metrics for KFP."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.browser import chromium, shown
from tests.stages.made import run_example

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """The folder of the outputs for the example plate of the stage's own tests."""
    return run_example(tmp_path_factory.mktemp("report"), "validate", "example.py")


@pytest.fixture(scope="module")
def report(judged):
    return shutil.copyfile(judged / "report", judged / "report.html")


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(params=[(1280, "light"), (420, "light"), (400, "dark")], ids=str)
def page(request, browser, report):
    return shown(browser, report, *request.param)


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
    assert len(charts) == 9  # plate, ramp, two series, ROC, reliability, montage, two folds' curves
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


def test_the_table_of_wells_is_sorted_by_keyboard(page):
    page.find_element("css selector", "details.wells summary").send_keys("\n")
    heads = page.find_elements("css selector", "details.wells th[data-sort]")
    assert [head.get_attribute("aria-sort") for head in heads] == ["ascending"] + [None] * 8
    names = [head.text.rstrip(" ↑↕") for head in heads]
    for name, descending in (("Dose", False), ("Dose", True), ("Probability", False)):
        place = names.index(name)
        heads[place].find_element("css selector", "button").send_keys(" ")
        said = [head.get_attribute("aria-sort") for head in heads]
        assert said == [("descending" if descending else "ascending") if i == place else None
                        for i in range(9)]  # fmt: skip
        values = page.execute_script(
            "return [...document.querySelectorAll('details.wells tbody tr')]"
            f".map(r => r.cells[{place}].dataset.v ?? r.cells[{place}].textContent)"
        )
        known = [float(v) for v in values if v]
        assert len(values) == 48
        assert values[len(known) :] == [""] * (48 - len(known))  # no dose: last either way
        assert known == sorted(known, reverse=descending)


def test_no_other_script_runs(page):
    page.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.strange = 1';"
        "document.body.append(s);"
        "const i = document.createElement('img'); i.setAttribute('onerror', 'window.strange = 2');"
        "i.src = 'data:,'; document.body.append(i);"
    )
    assert page.execute_script("return window.strange ?? null") is None
    refused = [line["message"] for line in page.get_log("browser")]
    assert sum("Content Security Policy" in text for text in refused) == 2


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
