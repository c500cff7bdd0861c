"""Claims about the check of a plate: it refuses what prepare refuses, in the same words."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from common import check, layout, plate
from common.errors import StageError
from PIL import Image
from prepare.stage import prepare_plate

LAYOUT = """
format = 1
name = "small"
[files]
pattern = 's_(?P<row>[AB])(?P<column>\\d)_(?P<channel>[12])\\.tif'
size = [256, 300]
[channels]
1 = "signal"
2 = "dna"
[plate]
rows = 2
columns = 4
[[wells]]
rows = "A-B"
columns = "1-4"
roles = ["negative", "negative", "positive", "positive"]
[folds]
A = "A"
B = "B"
"""


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "plate"
    folder.mkdir()
    (folder / "small.toml").write_text(LAYOUT)
    random = np.random.default_rng(0)
    for row in "AB":
        for column in range(1, 5):
            for channel in (1, 2):
                values = random.integers(0, 256, (300, 256), np.uint8)
                tifffile.imwrite(folder / f"s_{row}{column}_{channel}.tif", values)
    return folder


def truncate(path):
    path.write_bytes(path.read_bytes()[:5000])


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("not a picture")


def other_size(path):
    tifffile.imwrite(path, np.zeros((256, 256), np.uint8))


def sixteen_bits(path):
    tifffile.imwrite(path, np.zeros((300, 256), np.uint16))


def floats(path):
    tifffile.imwrite(path, np.zeros((300, 256), np.float32))


def two_samples(path):
    tifffile.imwrite(path, np.zeros((300, 256, 2), np.uint8), photometric="minisblack")


def alpha(path):
    Image.new("LA", (256, 300)).save(path, "PNG")


def lose(path):
    path.unlink()


def double(path):
    path.with_name("S_A1_1.TIF").write_bytes(path.read_bytes())


def dangle(path):
    path.unlink()
    path.symlink_to("nowhere")


SPOILS = [truncate, empty, text, other_size, sixteen_bits, floats, two_samples, alpha, lose, double]


@pytest.mark.parametrize("spoil", [*SPOILS, dangle])
def test_the_check_refuses_what_prepare_refuses_in_the_same_words(folder, tmp_path, spoil):
    spoil(folder / "s_A1_1.tif")
    found = check.check_plate(folder, "small.toml")
    assert found.problems
    assert found.plate_digest == ""
    with pytest.raises(StageError) as error:
        prepare_plate(
            folder, layout.load("small.toml", folder), tmp_path / "t", tmp_path / "s.html"
        )
    assert found.problems[0] in str(error.value)
    assert "A1_1" in found.problems[0] or "A01" in found.problems[0]


def test_a_plate_that_the_check_passes_is_prepared_with_the_digest_that_it_names(folder, tmp_path):
    found = check.check_plate(folder, "small.toml")
    assert found.problems == ()
    known = layout.load("small.toml", folder)
    assert found.plate_digest == plate.plate_digest(folder, known)
    document = prepare_plate(folder, known, tmp_path / "t", tmp_path / "s.html")
    assert document["plate_digest"] == found.plate_digest


def test_every_damaged_image_is_named_and_many_are_counted(folder):
    for path in folder.glob("*.tif"):
        text(path)
    problems = check.check_plate(folder, "small.toml").problems
    assert len(problems) == 16
    assert all("no readable PNG, TIFF or BMP" in problem for problem in problems)


def test_a_long_list_of_problems_ends_with_its_length(folder):
    for path in list(folder.glob("*.tif")):
        text(path)
        path.with_name(path.name.upper()).write_text("the same well again")
    problems = check.check_plate(folder, "small.toml").problems
    assert len(problems) == 21
    assert problems[-1] == "… and 12 more"


def test_without_a_layout_the_one_that_knows_the_names_is_taken(folder):
    found = check.check_plate(folder)
    assert found.layout == "small"
    assert found.problems == ()
    assert "no layout was given; small.toml is taken" in found.notes
    lose(folder / "s_A1_1.tif")
    assert check.check_plate(folder).problems == ("well A01 lacks its signal image",)


def test_without_a_layout_that_fits_each_is_named_and_nothing_is_assumed(folder):
    (folder / "small.toml").unlink()
    found = check.check_plate(folder)
    assert found.layout == found.plate_digest == ""
    for name in layout.names():
        assert f"{name} does not fit: 0 of 192 images" in found.text
    assert "no known layout fits the names in this folder" in found.problems[0]


def test_without_a_layout_two_that_fit_are_a_choice(folder):
    (folder / "twin.toml").write_text(LAYOUT)
    (folder / "broken.toml").write_text("format = 7")
    found = check.check_plate(folder)
    assert "give --layout small.toml or --layout twin.toml" in found.problems[0]
    assert "broken.toml cannot be used: the layout broken.toml: format is 7" in found.text


def test_a_known_plate_is_recognised_by_its_names(tmp_path):
    for number, well in enumerate(layout.load("bbbc014").wells.values(), start=1):
        for channel in (1, 2):
            name = f"Channel {channel}-{number:02d}-{well.row}-{well.column:02d}-00.Bmp"
            (tmp_path / name).write_bytes(b"x")
    found = check.check_plate(tmp_path)
    assert found.layout == "bbbc014"
    assert "Channel 1-01-A-01-00.Bmp is no readable PNG, TIFF or BMP image" in found.problems[0]


@pytest.mark.parametrize(
    ("roles", "problem", "note"),
    [
        ('["sample", "sample", "sample", "sample"]', "A has no positive well to judge", "two"),
        ('["negative", "sample", "positive", "positive"]', None, "1 negative well; train needs"),
    ],
)
def test_folds_that_cannot_be_trained_or_judged_are_said_before_the_run(
    folder, roles, problem, note
):
    old = '["negative", "negative", "positive", "positive"]'
    (folder / "small.toml").write_text(LAYOUT.replace(old, roles))
    found = check.check_plate(folder, "small.toml")
    assert (problem is None and not found.problems) or problem in found.problems[0]
    assert any(note in line for line in found.notes)


def run(*arguments):
    command = [sys.executable, "-m", "common.check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_command_takes_an_empty_layout_as_none(folder):
    code, printed = run(folder, "--layout", "", "--json")
    assert code == 0
    assert json.loads(printed)["layout"] == "small"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LAYOUT.replace("format = 1", "format = 2"), "the layout mine.toml: format is 2"),
        (LAYOUT.replace("[plate]", "[plate"), "the layout mine.toml is not TOML"),
        (LAYOUT.replace("size =", "sise ="), "mine.toml: there is no key files.sise; there are"),
    ],
)
def test_a_faulty_layout_is_named_without_the_folder_that_it_is_in(
    folder, tmp_path, content, message
):
    (tmp_path / "mine.toml").write_text(content)
    code, printed = run(folder, "--layout", tmp_path / "mine.toml")
    assert code == 1
    assert message in printed
    assert str(tmp_path) not in printed


def test_no_message_about_a_plate_names_its_folder_in_the_container(folder, tmp_path):
    messages = [run(folder, "--layout", "small.toml")[1], run(tmp_path / "none")[1]]
    lose(folder / "s_A1_1.tif")
    messages.append(run(folder, "--layout", "small.toml")[1])
    messages.append(run(folder, "--layout", "bbbc013")[1])
    assert not any(str(tmp_path) in message for message in messages)
    assert "holds no image whose name fits the layout bbbc013" in messages[-1]
