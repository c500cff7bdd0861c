"""Claims about plate layouts and how a folder is matched with one."""

import re
from pathlib import Path

import pytest
from common import check, layout, plate
from common.errors import StageError

LAYOUT_384 = """
format = 1
name = "mine"
[files]
pattern = '(?P<row>[A-P])(?P<column>\\d{2})_f(?P<field>\\d)_(?P<channel>gfp|dapi)\\.png'
size = [512, 512]
fields = 2
[channels]
gfp = "signal"
dapi = "dna"
[plate]
rows = 16
columns = 24
[[wells]]
rows = "A-P"
columns = "1-24"
role = "sample"
[folds]
upper = "A-H"
lower = "I-P"
"""


def test_bbbc013_labels_24_wells_twelve_in_each_fold():
    wells = layout.load("bbbc013").wells.values()
    labelled = [w for w in wells if w.label is not None]
    assert len(labelled) == 24
    assert [sum(w.fold == f for w in labelled) for f in ("A-D", "E-H")] == [12, 12]
    assert {w.column for w in labelled if w.label == 1 and w.fold == "E-H"} == {1}


def test_bbbc014_labels_columns_1_to_4_and_9_to_12_as_the_original_did():
    for well in layout.load("bbbc014").wells.values():
        expected = 1 if well.column <= 4 else 0 if well.column >= 9 else None
        assert well.label == expected
    assert layout.load("bbbc014").wells["A12"].dose == 1e-13


def test_no_well_is_judged_by_a_fold_that_trained_on_it_or_in_two():
    for name in layout.names():
        known = layout.load(name)
        assert {w.fold for w in known.wells.values()} == set(known.folds)


def test_a_file_says_its_own_well_whatever_the_order_of_the_listing(tmp_path):
    known = layout.load("bbbc014")
    (tmp_path / "z").mkdir()
    path = tmp_path / "z" / "channel 2-99-B-07-00.BMP"
    path.write_bytes(b"x")
    images = plate.match(tmp_path, known).images
    assert {place: planes[0].path for place, planes in images.items()} == {
        plate.Place("B07", 0, "dna"): path
    }


def test_a_384_well_plate_with_two_fields_is_understood(tmp_path):
    known = layout.parse(LAYOUT_384, "mine")
    for row in "ABCDEFGHIJKLMNOP":
        for column in range(1, 25):
            for place in ("f1_gfp", "f1_dapi", "f2_gfp", "f2_dapi"):
                (tmp_path / f"{row}{column:02d}_{place}.png").write_bytes(b"x")
    found = plate.match(tmp_path, known)
    assert found.problems == []
    assert len(found.images) == 384 * 4


def empty_plate(folder: Path) -> Path:
    """Make a BBBC014 plate of files with one byte each."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, well in enumerate(layout.load("bbbc014").wells.values(), start=1):
        for channel in (1, 2):
            name = f"Channel {channel}-{number:02d}-{well.row}-{well.column:02d}-00.Bmp"
            (folder / name).write_bytes(b"x")
    return folder


def problem(folder: Path) -> str:
    with pytest.raises(StageError) as error:
        plate.check(plate.match(folder, layout.load("bbbc014")))
    return str(error.value)


def test_a_missing_channel_names_the_well_and_the_channel(tmp_path):
    (empty_plate(tmp_path) / "Channel 2-01-A-01-00.Bmp").unlink()
    assert "well A01 lacks its dna image" in problem(tmp_path)


def test_a_missing_well_is_named(tmp_path):
    empty_plate(tmp_path)
    for path in tmp_path.glob("*-B-03-00.Bmp"):
        path.unlink()
    assert "no image of well B03" in problem(tmp_path)


def test_a_duplicate_well_names_both_files(tmp_path):
    (empty_plate(tmp_path) / "Channel 1-77-A-01-00.Bmp").write_bytes(b"x")
    message = problem(tmp_path)
    assert "A01 has two signal images" in message
    assert "Channel 1-77" in message


def test_an_empty_folder_is_refused(tmp_path):
    assert "holds no image whose name fits the layout bbbc014" in problem(tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(StageError, match="does not exist"):
        plate.match(tmp_path / "nowhere", layout.load("bbbc014"))


def test_unknown_names_beside_good_ones_are_noted_not_fatal(tmp_path):
    (empty_plate(tmp_path) / "overview.png").write_bytes(b"x")
    found = plate.match(tmp_path, layout.load("bbbc014"))
    assert found.problems == []
    assert "overview.png" in found.notes[0]


def test_symlink_loops_end(tmp_path):
    empty_plate(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path)
    assert plate.match(tmp_path, layout.load("bbbc014")).problems == []
    image = tmp_path / "Channel 1-01-A-01-00.Bmp"
    image.unlink()
    image.symlink_to(image)
    assert "leads nowhere or in a loop" in problem(tmp_path)


def test_a_folder_of_too_many_files_is_refused_without_listing_it_all(tmp_path, monkeypatch):
    monkeypatch.setattr(plate, "MOST_ENTRIES", 50)
    empty_plate(tmp_path)
    assert "more than 50 entries" in problem(tmp_path)


def test_the_plate_digest_depends_on_names_and_contents_only(tmp_path):
    known = layout.load("bbbc014")
    one = plate.plate_digest(empty_plate(tmp_path / "é ü 細胞"), known)
    two = empty_plate(tmp_path / "two")
    (two / "notes.txt").write_text("hello")
    assert plate.plate_digest(two, known) == one
    (two / "Channel 1-01-A-01-00.Bmp").write_bytes(b"y")
    assert plate.plate_digest(two, known) != one


def test_an_unknown_layout_lists_the_known_ones_and_those_in_the_folder(tmp_path):
    with pytest.raises(StageError, match="known are bbbc013, bbbc014;"):
        layout.load("bbbc999", tmp_path)
    (tmp_path / "mine.toml").write_text(LAYOUT_384)
    with pytest.raises(StageError, match=r"in the plate's folder are mine\.toml;"):
        layout.load("other.toml", tmp_path)


def test_case_makes_no_other_layout_meaning_or_role():
    assert layout.load("BBBC013") == layout.load("bbbc013")
    text = LAYOUT_384.replace('"signal"', '"Signal"').replace('"sample"', '"Sample"')
    known = layout.parse(text, "mine")
    assert known.channels == {"gfp": "signal", "dapi": "dna"}
    assert known.wells["A01"].role == "sample"


def test_a_layout_file_is_read_as_windows_editors_write_it(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xef\xbb\xbf" + LAYOUT_384.replace("\n", "\r\n").encode())
    assert layout.load(path).wells == layout.parse(LAYOUT_384, "mine").wells
    path.write_bytes(LAYOUT_384.encode("utf-16"))
    with pytest.raises(StageError, match=r"mine\.toml is not UTF-8 text; save it as UTF-8"):
        layout.load(path)


def test_a_layout_given_as_its_text_is_that_layout(tmp_path):
    (tmp_path / "mine.toml").write_text(LAYOUT_384)
    assert layout.load(LAYOUT_384) == layout.load("mine.toml", tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format = 1", "format = 2", "format is 2"),
        ('name = "mine"', "", "'name' is missing"),
        ('gfp = "signal"', 'gfp = "sgnal"', "one signal and one dna"),
        ("(?P<row>", "(?P<rwo>", "no group (?P<row>"),
        ("[A-P]", "[A-P", "not a regular expression"),
        ('role = "sample"', 'role = "good"', "the role 'good'"),
        ('lower = "I-P"', 'lower = "H-P"', "in two folds"),
        ('lower = "I-P"', 'lower = "J-P"', "I01 is in no fold"),
        ('lower = "I-P"', "", "at least two folds"),
        ('lower = "I-P"', '"../x" = "I-P"', "fold name"),
        ('columns = "1-24"', 'columns = "1-25"', "not within 1-24"),
        ('role = "sample"', 'role = "sample"\ndoses = [1]', "one a column"),
        ("[plate]", "[plate", "is not TOML"),
        ("fields = 2", "fields = 0", "less than 1"),
        ("size = [512, 512]", "size = 512", "docs/layouts.md"),
        ("size = [512, 512]", "size = [9000, 9000]", "more than 64,000,000 pixels"),
        ("fields = 2", "fields = 2\nbit = 16", "no key files.bit; there are bits, fields"),
        ("fields = 2", "fields = 2.0", "files.fields is 2.0, not a whole number"),
        ("fields = 2", "bits = true", "files.bits is True, not a whole number"),
        ("fields = 2", "bits = 17", "files.bits is 17, not 8 to 16"),
        ("rows = 16", 'rows = "16"', "plate.rows is '16', not a whole number"),
        ("_f(?P<field>\\d)", "", "files.fields is 2, and files.pattern has no group (?P<field>"),
        ('role = "sample"', 'role = "sample"\ndose = 1', "no key wells.dose; there are"),
        ('lower = "I-P"', 'lower = { row = "I-P" }', "no key folds.row; there are columns, rows"),
        ("[plate]", "[plates]\n[plate]", "there is no key plates; there are"),
        ('dapi = "dna"', 'GFP = "dna"', "the channels gfp and GFP are the same one"),
    ],
)
def test_a_faulty_layout_says_what_is_wrong(old, new, message):
    assert old in LAYOUT_384
    with pytest.raises(StageError, match=re.escape(message)):
        layout.parse(LAYOUT_384.replace(old, new), "mine")


def test_the_check_draws_roles_doses_and_what_is_missing(tmp_path):
    (empty_plate(tmp_path) / "Channel 2-01-A-01-00.Bmp").unlink()
    found = check.check_plate(tmp_path, "bbbc014")
    assert "!+1" in found.text
    assert found.text.count("-0") >= 32
    assert "MCF7: 12 doses, 1e-13 to 1e-07 M" in found.text
    assert found.problems
    assert found.plate_digest == ""
