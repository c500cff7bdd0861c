"""The validate stage's report, made in its image, opened in a browser."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from builder.build import build
from builder.sandbox import choose
from builder.sandbox.process import Mount, Process, run
from builder.store import Store
from builder.workspace import Workspace
from tests.conftest import missing

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The report of the example plate of the stage's own tests."""
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
    page = folder / "report.html"
    shutil.copyfile(folder / "out/report", page)
    return page


@pytest.fixture(scope="module")
def browser():
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        missing("a browser", "apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(shutil.which("chromedriver"))
    )
    yield browser
    browser.quit()


@pytest.fixture(params=[(1280, "light"), (400, "light"), (400, "dark")], ids=str)
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


def test_nothing_is_asked_of_a_network(page):
    asked = page.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in asked if not name.startswith("data:")] == []
