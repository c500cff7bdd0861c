"""The report of a screen in a browser: opened, sorted and unpacked by keyboard, wide and narrow."""

from __future__ import annotations

import shutil

import pytest

from tests.browser import chromium, shown
from tests.stages.made import run_example

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    out = run_example(tmp_path_factory.mktemp("screen"), "score", "screens.py", "4")
    return shutil.copyfile(out / "report", out / "report.html")


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(params=[(1280, "light"), (420, "light"), (420, "dark")], ids=str)
def page(request, browser, report):
    browser.get("about:blank")  # so that an address with another fragment is loaded again
    return shown(browser, report, *request.param)


def fits(page) -> bool:
    wide, seen = page.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    return bool(wide <= seen)


def unpacked(page, plate):
    """Wait for the promise that unpacks a plate; return its element."""
    page.execute_async_script(
        "const [plate, done] = arguments, at = document.getElementById('plate-' + plate);"
        "const look = () => at.dataset.ready === '' ? done() : requestAnimationFrame(look); look()",
        plate,
    )
    return page.find_element("css selector", f"#plate-{plate}")


def test_it_begins_with_the_answer_and_draws_no_plate_before_it_is_opened(page):
    seen = page.find_element("css selector", "body").text
    said = ("tested treatments are hits", "Quote Z′", "2 of 4 plates failed", "Why it failed")
    order = [seen.index(words) for words in said]
    assert order == sorted(order)
    assert page.find_elements("css selector", "svg.plate") == []
    assert fits(page)
    assert page.get_log("browser") == []


def test_a_plate_is_opened_by_keyboard_and_shows_map_montage_and_table(page):
    page.find_element("css selector", "#plate-P002 summary").send_keys("\n")
    plate = unpacked(page, "P002")
    assert len(plate.find_elements("css selector", "svg.plate title")) == 384
    assert len(plate.find_elements("css selector", "svg.montage g title")) == 384
    assert len(plate.find_elements("css selector", "tbody tr")) == 384
    assert "µm" in plate.find_element("css selector", "svg.montage").text
    heights = page.execute_script(
        "return [...document.querySelectorAll('svg.plate .value')]"
        ".map(t => t.getBoundingClientRect().height)"
    )
    assert min(heights) >= 8
    assert fits(page)
    link = plate.find_element("css selector", "tbody tr a")
    link.send_keys("\n")
    assert page.execute_script("return document.querySelector(':target').id") == "picture-P002/A01"
    assert page.get_log("browser") == []


def test_a_hit_leads_to_its_well_in_a_plate_that_was_closed(page):
    link = page.find_element("css selector", "table.hits a")
    name = link.text.replace(":", "/")
    link.send_keys("\n")
    plate = unpacked(page, name.split("/")[0])
    assert plate.get_attribute("open")
    assert page.execute_script("return document.querySelector(':target')?.id") == f"well-{name}"
    row = page.execute_script(
        "return document.querySelector(':target').getBoundingClientRect().top"
    )
    assert -1 <= row < 900


def test_tables_are_sorted_by_keyboard_also_those_unpacked(page):
    page.find_element("css selector", "#plate-P001 summary").send_keys("\n")
    unpacked(page, "P001")
    wells = "#plate-P001 table"
    for table, name in (("table.plates", "Z′, mean log odds"), (wells, "Mean log odds"),
                        (wells, "Well"), ("table.hits", "Dose")):  # fmt: skip
        heads = page.find_elements("css selector", f"{table} th[data-sort]")
        place = next(i for i, head in enumerate(heads) if head.text.rstrip(" ↑↓↕") == name)
        button = heads[place].find_element("css selector", "button")
        for direction in ("ascending", "descending"):
            button.send_keys("\n")
            if direction == "ascending" and heads[place].get_attribute("aria-sort") != direction:
                button.send_keys("\n")  # it was sorted so already
            assert heads[place].get_attribute("aria-sort") == direction
            cells = page.execute_script(
                f"return [...document.querySelectorAll('{table} tbody tr')]"
                f".map(r => r.cells[{place}].dataset.v ?? r.cells[{place}].textContent)"
            )
            known = [float(c.replace("−", "-")) for c in cells if c not in {"", "–"}]
            assert known == sorted(known, reverse=direction == "descending")
            assert all(c in {"", "–"} for c in cells[len(known) :])


def test_what_is_taken_away_is_the_table(page, report):
    link = page.find_element("css selector", "a[download='hits.csv']")
    text = page.execute_script(
        "return atob(arguments[0].getAttribute('href').split(',')[1])", link
    ).encode("latin-1")
    assert text == (report.parent / "screen/hits.csv").read_bytes()


def test_without_script_all_but_the_plates_can_be_read(browser, report):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get("about:blank")
        page = shown(browser, report, 420)
        seen = page.find_element("css selector", "body").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "tested treatments are hits" in seen
    assert "The browser runs no script here, so the plates below stay closed" in seen
