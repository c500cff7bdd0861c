"""The report as text; tests/stages/test_report.py opens it in a browser."""

import base64
import csv
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from example import full, plain, write
from hypothesis import given
from hypothesis import strategies as st
from pages import numbers, plate_map, plots
from validate.stage import validate


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    validate(write(folder, full()))
    return (folder / "out/report").read_text(encoding="utf-8")


def test_nothing_comes_from_outside(page):
    class Links(HTMLParser):
        def __init__(self):
            super().__init__()
            self.found = []

        def handle_starttag(self, tag, attributes):
            assert tag not in {"iframe", "object", "embed"}
            assert tag != "script" or not attributes
            self.found += [v for k, v in attributes if k in {"src", "href", "srcset", "data"}]

    links = Links()
    links.feed(page)
    assert links.found
    assert all(link.startswith(("data:", "#")) for link in links.found)
    ((script,), (policy,)) = (
        re.findall(pattern, page, re.DOTALL)
        for pattern in ("<script>(.*?)</script>", 'Content-Security-Policy content="(.*?)"')
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    assert not re.search(r"url\(|@import", page)


def test_names_are_escaped(page):
    assert "&lt;Nothing&gt; &amp; Söhne" in page
    assert "<Nothing>" not in page
    assert "<not a real one>" not in page


def test_it_shows_every_well_with_its_signs(page):
    assert page.count("<g><title>") == 48
    assert re.search(r"A02: [^<]*flagged out of focus, wrongly called", page)


def test_it_says_why_a_series_has_no_ec50(page):
    assert re.search(r"Söhne</b> \(C-D\): EC50 <span class=reason>none: \w+", page)
    assert re.search(r"Wortmannin</b> \(A-B\): EC50 [\d.]+ nM", page)


def test_it_shows_certain_uncertain_and_wrong_tiles(page):
    for title in ("Most certain, and right", "Least certain", "Wrongly called"):
        assert f"<h3>{title}" in page
    assert page.count("data:image/jpeg") >= 26


def test_it_begins_with_the_answer_and_the_number_to_quote(page):
    answer = page.index("Quote Z′")
    assert answer < page.index("<table")
    assert re.search(
        r"Quote Z′ −?\d+\.\d{3}</b>, by mean log odds", page
    )  # two controls: no interval
    assert re.search(r"11 of 12 wells with a known answer are called rightly; \d+ of 48", page)


def test_the_table_of_wells_is_whole_and_can_be_taken_away(page):
    data = re.search(r"href='data:text/csv;base64,([^']+)'", page)[1]
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(data).decode())))
    assert len(rows) == page.count("<tr id='well-") == 48
    assert rows[0]["name"] == "A01"
    assert {row["compound"] for row in rows} == {"Wortmannin", "<Nothing> & Söhne"}
    assert all(0 <= float(row["probability"]) <= 1 for row in rows)


def test_each_well_with_a_picture_leads_to_it_and_no_anchor_stands_twice(page):
    anchors = re.findall(r"id='((?:tile|picture)-\w+)'", page)
    led = set(re.findall(r"#((?:tile|picture)-\w+)", page))
    assert len(led) == 48
    assert len(anchors) == len(set(anchors))
    assert led <= set(anchors)


def test_the_learning_curves_of_each_fold_are_drawn(page):
    assert page.count("aria-label='loss'") == 2
    assert "<b>A-B</b>: the lowest validation loss, 0.25, is that of epoch 1 of 2." in page


def test_a_scale_bar_needs_a_pixel_size(tmp_path):
    for name, size in (("none", None), ("known", 0.5)):
        task = write(tmp_path / name, plain())
        path = tmp_path / name / "tiles/plate.json"
        document = json.loads(path.read_text())
        document["layout"] |= {"size": [512, 512], "target": [256, 256]}
        path.write_text(json.dumps({**document, "pixel_size": size}))
        validate(task)
    pages = [(tmp_path / name / "out/report").read_text() for name in ("none", "known")]
    assert ["class='bar'" in page for page in pages] == [False, True]
    assert "There is no scale bar: the plate's files do not say" in pages[0]
    assert re.search(r"class='bar'[^>]*/><text[^>]*>200 µm", pages[1])  # of 230: 256 tile pixels


def test_a_compound_is_no_formula_in_the_csv(tmp_path):
    wells = [replace(well, compound="=1+1") for well in plain()]
    validate(write(tmp_path, wells))
    text = (tmp_path / "out/report").read_text(encoding="utf-8")
    data = re.search(r"href='data:text/csv;base64,([^']+)'", text)[1]
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(data).decode())))
    assert {row["compound"] for row in rows} == {"'=1+1"}
    assert min(float(row["log_odds"]) for row in rows) < 0


def test_molarities_are_said_as_they_are_spoken():
    said = [
        numbers.amount(*given) for given in ((3.23e-10, "M"), (1e-13, "M"), (0, "M"), (11.08, "nM"))
    ]
    assert said == ["323 pM", "100 fM", "0 M", "11.1 nM"]


def test_numbers_have_three_digits_and_no_needless_exponent():
    said = [numbers.short(x) for x in (1190.4, 0.0471, 3.24e-10, -2.0, 123456.0, 2.5e6, 0)]
    assert said == ["1190", "0.0471", "3.24e−10", "−2", "123000", "2.5e6", "0"]


def test_a_plate_without_doses_says_so(tmp_path):
    validate(write(tmp_path, plain()))
    text = (tmp_path / "out/report").read_text(encoding="utf-8")
    assert "names no dose series" in text
    assert re.search(r"Quote Z′ −?\d+\.\d{3} \[[-\d., ]+\]</b>, by mean log odds", text)
    assert "No well's images were flagged" in text
    assert "<h3>Wrongly called</h3><p>None.</p>" in text


@given(st.floats(-0.5, 1.5))
def test_numbers_are_read_on_their_colour(share):
    """WCAG's contrast of text, 4.5 to 1 (a hundredth off: 2.2 stands for its curve)."""

    def light(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    fill, ink = plate_map.colour(share)
    pair = sorted((light(fill), light("#" + ink[1:] * 2)))
    assert (pair[1] + 0.05) / (pair[0] + 0.05) > 4.4


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 1e-13, 1e-9, 0.3, 2.0, 5e4]), st.floats(0, 1)), min_size=1
    ).filter(lambda items: any(dose for dose, _ in items))
)
def test_any_dose_series_can_be_drawn(items):
    doses, scores = [d for d, _ in items], [s for _, s in items]
    drawn = plots.dose_response(doses, scores, "nM", lambda x: 0.5, None)
    root = ElementTree.fromstring(drawn)
    assert len(root.findall("circle")) == len(items)
    assert "nan" not in drawn
