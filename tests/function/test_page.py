"""The page of the function, in a headless browser."""

from __future__ import annotations

import json

import pytest

from tests.browser import chromium

from .running import png


@pytest.fixture
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser, function):
    browser.get(f"http://127.0.0.1:{function.port}/")
    return browser


def by_id(page, name):
    return page.find_element("id", name)


def choose(page, path):
    from selenium.webdriver.support.ui import WebDriverWait

    by_id(page, "file").send_keys(str(path))
    WebDriverWait(page, 20).until(
        lambda p: by_id(p, "error").text or by_id(p, "result").is_displayed()
    )


def test_a_chosen_picture_shows_its_tiles_with_their_probabilities(page, tmp_path):
    path = tmp_path / "well.png"
    path.write_bytes(png(640, 480, green=120))
    choose(page, path)
    assert by_id(page, "error").text == ""
    assert by_id(page, "class").text == "positive"
    tiles = page.find_elements("css selector", "#tiles li")
    assert [tile.text for tile in tiles] == ["69.0 %"] * 4  # mean of sigmoid(2) and sigmoid(0)
    assert len(page.find_elements("css selector", "#models tr")) == 2
    assert page.execute_script(
        "const c = document.getElementById('canvas');"
        "return [...c.getContext('2d').getImageData(256, 256, 1, 1).data]"
    ) == [0, 120, 0, 255]


def test_a_dropped_picture_is_answered_too(page):
    from selenium.webdriver.support.ui import WebDriverWait

    data = list(png(green=90))
    page.execute_script(
        "const data = new DataTransfer();"
        "data.items.add(new File([new Uint8Array(arguments[0])], 'a.png', {type: 'image/png'}));"
        "document.dispatchEvent(new DragEvent('drop', {dataTransfer: data, cancelable: true}))",
        data,
    )
    WebDriverWait(page, 20).until(lambda p: by_id(p, "result").is_displayed())
    assert by_id(page, "class").text == "negative"


def test_what_is_no_picture_gets_its_reason_shown(page, tmp_path):
    path = tmp_path / "a.png"
    path.write_text("hello")
    choose(page, path)
    assert "no readable PNG, TIFF or BMP" in by_id(page, "error").text
    assert not by_id(page, "result").is_displayed()


def test_the_page_asks_nobody_but_the_function_and_breaks_no_policy(page, function, tmp_path):
    path = tmp_path / "well.png"
    path.write_bytes(png())
    choose(page, path)
    events = [json.loads(e["message"])["message"] for e in page.get_log("performance")]
    asked = [
        e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
    ]
    own = f"http://127.0.0.1:{function.port}/"
    assert {url for url in asked if not url.startswith(("data:", "blob:"))} == {own}
    assert page.get_log("browser") == []


def test_the_page_can_be_used_without_a_mouse_and_on_a_phone(page):
    page.set_window_size(400, 800)
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert by_id(page, "file").accessible_name
    assert by_id(page, "error").aria_role == "alert"
