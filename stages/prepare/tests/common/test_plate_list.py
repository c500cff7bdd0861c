"""Claims about lists of plates: what they name, and what is refused by name."""

import json
import os

import pytest
from common.errors import StageError
from common.plate_list import MOST_PLATES, ListedPlate, load_layout, read_plates
from hypothesis import given, settings
from hypothesis import strategies as st

LAYOUT = """
format = 1
name = "small"
[files]
pattern = '(?P<row>[A])(?P<column>\\d)-(?P<channel>[12])\\.png'
size = [256, 256]
[channels]
1 = "signal"
2 = "dna"
[plate]
rows = 1
columns = 2
[map]
file = "map.csv"
[folds]
a = { columns = "1" }
b = { columns = "2" }
"""


@pytest.fixture
def claim(tmp_path):
    root = tmp_path / "claim"
    for folder in ("screen/P1", "screen/P2", "other/P3"):
        (root / folder).mkdir(parents=True)
    return root


def written(claim, text, name="screen/plates.csv"):
    (claim / name).write_text(text, encoding="utf-8")
    return name


def refusal(claim, plates, layout="bbbc014"):
    with pytest.raises(StageError) as error:
        read_plates(claim, plates, layout)
    return str(error.value)


def test_a_lists_paths_are_relative_to_its_own_folder(claim):
    name = written(claim, "plate;folder;layout\none;P1;\nthree;../other/P3;bbbc013\n")
    assert read_plates(claim, name, "bbbc014") == (
        ListedPlate("one", "screen/P1", "bbbc014"),
        ListedPlate("three", "other/P3", "bbbc013"),
    )


def test_json_and_csv_name_the_same_plates_and_a_pattern_takes_the_folders_names(claim):
    table = written(claim, "Folder,Plate\nP1,\nP2,\n")
    listed = written(claim, json.dumps([{"folder": "P1"}, {"folder": "P2"}]), "screen/plates.json")
    found = read_plates(claim, table, "bbbc014")
    assert [one.plate for one in found] == ["P1", "P2"]
    assert read_plates(claim, listed, "bbbc014") == found
    assert read_plates(claim, "screen/P*", "bbbc014") == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("plate,folder\na,P1\nA,P2\n", "plate A is twice: screen/plates.csv, line 2 and"),
        ("plate,folder\na,P1\nb,./P1/\n", "line 3: the folder screen/P1 is that of plate a too"),
        ("plate,folder\na,.\nb,P1\n", "the folder of plate b lies in that of plate a"),
        ("folder\n../../etc\n", "line 2: ../../etc leads out of the volume"),
        ("folder\n/etc\n", "line 2: /etc leads out of the volume"),
        ("folder,colour\nP1,red\n", "the unknown column 'colour'; there are plate, folder"),
        ("plate\nP1\n", "has no column 'folder'"),
        ("plate,folder\n", "is empty"),
        ("", "is empty"),
        ("folder\nP9\n", "line 2: the folder P9 of plate P9 is not there"),
        ("plate,folder\nP1,\n", "line 2 has no folder"),
        ("plate,folder\na b,P1\n", "'a b' has other signs"),
        ("folder,layout\nP1,mine.toml\n", "the layout mine.toml is not there"),
        ("folder,platemap\nP1,map.csv\n", "the plate map map.csv is not there"),
        ("folder,Folder \nP1,P2\n", "has the column 'folder' twice"),
    ],
)
def test_a_list_that_is_not_clear_is_refused_by_name(claim, text, words):
    assert words in refusal(claim, written(claim, text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "must be a list of objects"),
        ('[{"folder": 3}]', "plate 1 must be an object whose values are texts"),
        ('[{"folder": "P1", "folder": "P2"}]', "the key 'folder' is twice"),
        ('[{"folder": "P1", "well": "A1"}]', "the unknown column 'well'"),
        ("[" * 5000, "is not JSON"),
        ("[]", "is empty"),
    ],
)
def test_json_that_is_not_clear_is_refused_by_name(claim, text, words):
    assert words in refusal(claim, written(claim, text, "screen/plates.json"))


def test_what_is_neither_a_list_nor_a_pattern_is_refused(claim):
    assert "neither a list of plates" in refusal(claim, "screen")
    assert "no folder fits the pattern screen/X*" in refusal(claim, "screen/X*")
    assert "has **" in refusal(claim, "**/P*")
    assert "leads out" in refusal(claim, "../*")
    assert "cannot read the list of plates screen/none.csv" in refusal(claim, "screen/none.csv")
    assert "no plates were named" in refusal(claim, "")
    assert "P1 has no layout" in refusal(claim, "screen/P*", layout="")


def test_a_link_out_of_the_volume_is_no_way_out_of_it(claim, tmp_path):
    (tmp_path / "outside").mkdir()
    (claim / "screen/P4").symlink_to(tmp_path / "outside")
    (claim / "screen/round").symlink_to("round")
    assert "line 2: P4 leads out" in refusal(claim, written(claim, "folder\nP4\n"))
    assert "round" in refusal(claim, written(claim, "folder\nround\n"))
    assert "leads out" in refusal(claim, "screen/P*")


def test_a_run_takes_no_more_plates_than_a_step_can_be_told_of(claim):
    lines = "".join(f"p{n},P1\n" for n in range(MOST_PLATES + 1))
    message = refusal(claim, written(claim, "plate,folder\n" + lines))
    assert f"names {MOST_PLATES + 1} plates, and one run takes {MOST_PLATES:,} at most" in message


def test_plates_share_a_map_that_names_them(claim):
    (claim / "screen/mine.toml").write_text(LAYOUT)
    rows = "P1,A1,x,positive\nP1,A2,,negative\nP2,A1,,negative\nP2,A2,y,positive\n"
    (claim / "screen/maps.csv").write_text("plate,well,compound,role\n" + rows)
    text = "folder,layout,platemap\nP1,mine.toml,maps.csv\nP2,mine.toml,maps.csv\n"
    first, second = (load_layout(claim, one) for one in read_plates(claim, written(claim, text)))
    assert [well.compound for well in first.wells.values()] == ["x", ""]
    assert [well.role for well in second.wells.values()] == ["negative", "positive"]
    assert first.documents == ()
    other = ListedPlate("P7", "screen/P2", "screen/mine.toml", "screen/maps.csv")
    with pytest.raises(StageError, match=r"plate P7: .*is about the plates P1, P2"):
        load_layout(claim, other)
    with pytest.raises(StageError, match=r"the layout has no table \[map\]"):
        load_layout(claim, ListedPlate("P1", "screen/P1", "bbbc014", "screen/maps.csv"))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=12), st.text(max_size=12))
def test_whatever_a_line_says_a_plate_is_a_folder_of_the_volume_or_is_refused(
    tmp_path_factory, plate, folder
):
    root = tmp_path_factory.mktemp("claim")
    (root / "P1").mkdir()
    (root / "plates.json").write_text(json.dumps([{"plate": plate, "folder": folder}]))
    try:
        found = read_plates(root, "plates.json", "bbbc014")
    except StageError:
        found = ()
    for one in found:
        inside = (root / one.folder).resolve()
        assert inside.is_dir()
        assert os.path.commonpath([inside, root.resolve()]) == str(root.resolve())
        assert one.plate == (plate.strip() or one.folder)
