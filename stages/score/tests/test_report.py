"""The report of a screen as text; tests/stages/test_screen_report.py opens it in a browser."""

import base64
import gzip
import io
import re

import pandas as pd
import pytest
from score import report
from screens import NASTY, broken, pictured, plate, screen_of, written

FAILED = {"Plate_Status": "failed", "Plate_Problems": "Z' on log odds is -2.000, below 0"}


def parts(page):
    """Return plate -> what is drawn when it is opened."""
    found = re.findall(r"id='plate-([^']+)'>.*?<script type='application/gzip'>([^<]*)", page, re.S)
    return {name: gzip.decompress(base64.b64decode(data)).decode() for name, data in found}


def downloads(page):
    found = re.findall(r"<a download='([^']+)' href='data:[^,]+;base64,([^']*)'", page)
    return {name: base64.b64decode(data) for name, data in found}


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    return folder, written(folder, screen_of(3))[1]


def test_it_begins_with_hits_the_number_to_quote_and_the_plates_that_failed(three):
    page = three[1]
    hits, tested = map(int, re.search(r"<h1>(\d+) of (\d+) tested treatments are hits", page)
                       .groups())  # fmt: skip
    assert hits == len(pd.read_csv(three[0] / "screen/hits.csv"))
    assert tested > hits > 0
    said = ("<h1>", "Quote Z′", "1 of 3 plates failed", "no image of well A01", "<h2>Hits")
    order = [page.index(words) for words in said]
    assert order == sorted(order)
    assert re.search(r"Quote Z′ 0\.663</b>, by mean log odds, the median of 2 plates", page)
    assert "(0.652 on P001 to 0.673 on P002)" in page


def test_every_well_of_a_plate_is_drawn_with_compound_and_dose_when_it_is_opened(three):
    found = parts(three[1])
    assert set(found) == {"P001", "P002"}
    assert found["P002"].count("<tr id='well-P002/") == 16 * 24
    assert "<title>B05: sample, compound 1 of library 2 2 µM, probability" in found["P002"]
    assert three[1].count("<tr id='well-") == 0


def test_names_are_escaped_also_in_what_is_packed(three):
    whole = three[1] + "".join(parts(three[1]).values())
    assert "&lt;img src=x onerror" in whole
    assert "<img" not in whole
    assert NASTY in set(pd.read_parquet(three[0] / "screen/wells.parquet")["Metadata_Compound"])


def test_a_well_leads_to_its_picture_and_a_hit_to_its_well(three):
    page, found = three[1], parts(three[1])
    led = set(re.findall(r"href='#(well-[^']+)'", page))
    assert led
    assert all(f"id='{name}'" in found[name[5:9]] for name in led)
    assert "href='#picture-P001/C04'" in found["P001"]
    assert "id='picture-P001/C04'" in found["P001"]


def test_a_scale_bar_is_drawn_only_where_the_pixel_size_is_known(tmp_path):
    small = plate("P1", (3, 4))
    with_bar, without = (
        parts(written(tmp_path / str(size), [pictured(small, size)])[1])["P1"]
        for size in (0.65, None)
    )
    assert re.search(r"<line class='bar'[^>]*/><text[^>]*>100 µm</text>", with_bar)
    left, right = map(float, re.search(r"class='bar' x1='([\d.]+)' x2='([\d.]+)'", with_bar)
                      .groups())  # fmt: skip
    assert right - left == pytest.approx(100 / (256 * 0.65) * 96, abs=0.1)
    assert "no scale bar" not in with_bar
    assert "class='bar'" not in without
    assert "There is no scale bar: the plate's files do not say how large a pixel is." in without


def test_tables_are_taken_away_from_the_page_as_they_were_written(three):
    found = downloads(three[1])
    assert set(found) == {f"{name}.{kind}" for name in ("hits", "treatments", "plates", "wells")
                          for kind in ("csv", "parquet")}  # fmt: skip
    for name, data in found.items():
        assert data == (three[0] / "screen" / name).read_bytes()
    assert len(pd.read_parquet(io.BytesIO(found["wells.parquet"]))) == 2 * 384


def test_a_table_too_large_for_the_page_is_named_with_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_LARGEST", 20_000)
    _, page = written(tmp_path, [plate("P1")])
    assert "wells.csv" not in downloads(page)
    assert "hits.csv" in downloads(page)
    assert re.search(r"wells\.csv \(\d+ kB\): too large for this page, it is in the artifact", page)


@pytest.mark.parametrize(
    ("plates", "sentences"),
    [
        ([plate("P1", active=0)], ["No treatment is a hit.", "<h2>Hits</h2><p>None.</p>"]),
        ([plate("P1", active=1)], ["Every treatment tested is a hit."]),
        ([plate("P1")], ["the only plate that can be used", "The plate did not fail.",
                         "There is one plate, so nothing to compare it with."]),
        ([plate("P1"), plate("P2", seed=1)], ["None of the 2 plates failed."]),
        ([plate("P1", **FAILED)], ["1 of 1 plate failed", "Z&#39; on log odds is -2.000, below 0",
                                   "No Z′ can be quoted", "No treatment could be tested"]),
        ([broken("P1")], ["1 of 1 plate failed", "no image of well A01; copy it",
                          "No plate has wells that could be scored."]),
    ],
    ids=["no hit", "all hits", "one plate", "none failed", "one failed", "one that cannot be read"],
)  # fmt: skip
def test_each_outcome_has_a_clear_sentence(tmp_path, plates, sentences):
    _, page = written(tmp_path, plates)
    for sentence in sentences:
        assert sentence in page
    assert "nan" not in re.sub(r"base64,[^']*|<script.*?</script>", "", page, flags=re.S)


def test_the_page_ends_however_many_plates_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_PLATES", 3)
    many = [plate(f"P{n}", (4, 6), active=0, seed=n) for n in range(5)]
    _, page = written(tmp_path, [*many, plate("hit", active=1, compound="other {}")])
    assert set(parts(page)) == {"P0", "P1", "hit"}
    assert "3 more plates are not drawn here: their wells are in wells.csv." in page
    assert re.search(r"<td>6<th scope=row><a href='#plate-hit'>hit</a><td>ok", page)
