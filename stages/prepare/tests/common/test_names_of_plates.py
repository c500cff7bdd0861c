"""Claims about the names of images: every file is the well, field and channel it says."""

import random
from collections.abc import Callable
from typing import NamedTuple

import pytest
from common import layout, plate
from hypothesis import given, settings
from hypothesis import strategies as st

LAYOUT = """
format = 1
name = "some"
[files]
pattern = '{pattern}'
size = [256, 256]
fields = {fields}
[channels]
{channels}
[plate]
rows = {rows}
columns = {columns}
[[wells]]
rows = "A-{last}"
columns = "1-{columns}"
role = "sample"
[folds]
upper = "A"
lower = "B-{last}"
"""


class Style(NamedTuple):
    """How a microscope writes names: the layout's pattern and channels, and a file's name."""

    pattern: str
    name: Callable[[str, int, int, int], str]
    channels: dict[str, str]


NUMBERS = {"1": "signal", "2": "dna"}
STYLES = {
    "bbbc": Style(
        r"Channel (?P<channel>[12])-\d+-(?P<row>[A-P])-(?P<column>\d\d)-(?P<field>\d\d)\.bmp",
        lambda row, column, site, channel: (
            f"Channel {channel}-{column:02d}-{row}-{column:02d}-{site:02d}.BMP"
        ),
        NUMBERS,
    ),
    "imagexpress": Style(
        r".*_(?P<row>[A-P])(?P<column>\d\d)_s(?P<field>\d+)_(?P<channel>w\d)[0-9A-F-]*\.tif",
        lambda row, column, site, channel: (
            f"exp 1_{row}{column:02d}_s{site}_w{channel}3F2504E0-4F89-11D3.TIF"
        ),
        NUMBERS,
    ),
    "harmony": Style(
        r"r(?P<row>\d\d)c(?P<column>\d\d)f(?P<field>\d\d)p01-(?P<channel>ch\d)sk1fk1fl1\.tiff",
        lambda row, column, site, channel: (
            f"r{ord(row) - 64:02d}c{column:02d}f{site:02d}p01-ch{channel}sk1fk1fl1.tiff"
        ),
        NUMBERS,
    ),
    "in cell": Style(
        r"(?P<row>[A-P]) - (?P<column>\d+)\(fld (?P<field>\d+) wv .* - (?P<channel>\w+)\)\.tif",
        lambda row, column, site, channel: (
            f"{row.lower()} - {column}(fld {site:02d} wv 390 - {['FITC', 'Dapi'][channel - 1]}).tif"
        ),
        {"fitc": "signal", "DAPI": "dna"},
    ),
    "cellvoyager": Style(
        r".*_(?P<row>[A-P])(?P<column>\d\d)_T0001F(?P<field>\d{3})L01A01Z01(?P<channel>C\d\d)\.png",
        lambda row, column, site, channel: (
            f"AS_{row}{column:02d}_T0001F{site:03d}L01A01Z01C{channel:02d}.png"
        ),
        NUMBERS,
    ),
}


@pytest.mark.parametrize("style", STYLES)
@given(
    rows=st.integers(2, 16),
    columns=st.integers(1, 24),
    sites=st.sets(st.integers(0, 99), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
@settings(max_examples=15, deadline=None)
def test_every_file_is_the_picture_that_its_name_says(
    tmp_path_factory, style, rows, columns, sites, seed
):
    style = STYLES[style]
    known = layout.parse(
        LAYOUT.format(
            pattern=style.pattern,
            fields=len(sites),
            channels="\n".join(f'{key} = "{meaning}"' for key, meaning in style.channels.items()),
            rows=rows,
            columns=columns,
            last=chr(64 + rows),
        ),
        "some",
    )
    folder = tmp_path_factory.mktemp("plate")
    expected = {
        plate.Place(f"{row}{column:02d}", rank, meaning): style.name(row, column, site, channel)
        for row in "ABCDEFGHIJKLMNOP"[:rows]
        for column in range(1, columns + 1)
        for rank, site in enumerate(sorted(sites))
        for channel, meaning in ((1, "signal"), (2, "dna"))
    }
    names = list(expected.values())
    random.Random(seed).shuffle(names)
    for name in names:
        (folder / name).touch()
    found = plate.match(folder, known)
    assert found.problems == []
    assert found.notes == []
    assert {place: planes[0].path.name for place, planes in found.images.items()} == expected


def small(fields, channels='1 = "signal"\n2 = "dna"'):
    text = LAYOUT.format(
        pattern=r"(?P<row>\w)(?P<column>.)_(?P<field>\w+)_(?P<channel>\w+)\.png",
        fields=fields, channels=channels, rows=2, columns=2, last="B",
    )  # fmt: skip
    return layout.parse(text, "small")


def written(folder, sites, wells=("A1", "A2", "B1", "B2")):
    for well in wells:
        for site in sites:
            for channel in "12":
                (folder / f"{well}_{site}_{channel}.png").touch()
    return folder


def test_fields_are_counted_in_the_order_of_their_numbers(tmp_path):
    found = plate.match(written(tmp_path, [2, 10]), small(2))
    assert found.problems == []
    assert found.images[plate.Place("A01", 1, "dna")][0].path.name == "A1_10_2.png"


@pytest.mark.parametrize(("sites", "said"), [([2, 5, 7], 2), ([5], 2), ([1, 2], 1)])
def test_the_advice_on_the_number_of_fields_ends_the_trouble(tmp_path, sites, said):
    written(tmp_path, sites)
    (problem,) = plate.match(tmp_path, small(said)).problems
    advised = int(problem.partition("set files.fields = ")[2].split()[0])
    assert advised == len(sites)
    assert plate.match(tmp_path, small(advised)).problems == []


def test_a_field_that_few_wells_have_is_named_not_counted(tmp_path):
    written(tmp_path, [2, 5])
    written(tmp_path, [7], wells=["B2"])
    problem = plate.match(tmp_path, small(2)).problems[0]
    assert "3 fields (2, 5, 7), the layout says 2" in problem
    assert "every well needs the same ones: 7 is in 1 of 4 wells" in problem


@pytest.mark.parametrize("name", ["Ax_1_1.png", "A²_1_1.png", "!1_1_1.png", "C1_1_1.png"])
def test_a_name_that_fits_the_pattern_but_is_no_well_is_noted(tmp_path, name):
    (written(tmp_path, [1]) / name).touch()
    found = plate.match(tmp_path, small(1))
    assert found.problems == []
    assert name in found.notes[0] or name.startswith("!")


def test_names_that_fit_but_for_the_channel_say_so(tmp_path):
    written(tmp_path, [1])
    (problem,) = plate.match(tmp_path, small(1, 'gfp = "signal"\ndapi = "dna"')).problems
    assert "none is a well and a channel of it (A1_1_1.png" in problem
    assert "gfp and dapi" in problem


def test_two_names_that_look_alike_are_told_apart(tmp_path):
    text = LAYOUT.format(
        pattern=r"é?(?P<row>\w)(?P<column>.)_(?P<channel>\w+)\.png",
        fields=1, channels='1 = "signal"\n2 = "dna"', rows=2, columns=2, last="B",
    )  # fmt: skip
    for spelling in ("\u00e9", "e\u0301"):
        (tmp_path / f"{spelling}A1_1.png").touch()
    problem = plate.match(tmp_path, layout.parse(text, "x")).problems[0]
    assert "éA1_1.png" in problem
    assert "e\\u0301A1_1.png" in problem


def test_a_name_that_is_no_text_is_refused_not_a_traceback(tmp_path):
    text = LAYOUT.format(
        pattern=r".*(?P<row>[AB])(?P<column>\d)_(?P<channel>\w+)\.png",
        fields=1, channels='1 = "signal"\n2 = "dna"', rows=2, columns=2, last="B",
    )  # fmt: skip
    (tmp_path / "\udce9A1_1.png").touch()
    (tmp_path / "\udce9.png").touch()
    found = plate.match(tmp_path, layout.parse(text, "x"))
    assert "the name \\xe9A1_1.png is not UTF-8; rename the file" in found.problems
    assert "\\xe9.png" in found.notes[0]
