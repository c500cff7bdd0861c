"""Claims about the prepare stage on small simulated plates, and on BBBC013 where it is there."""

import os
from pathlib import Path

import numpy as np
import pytest
from common import layout, tiling
from common.errors import StageError
from common.stage_io import StageIO
from common.tiles import read_tiles
from PIL import Image
from prepare import synthetic
from prepare.stage import prepare, prepare_plate
from small_layout import LAYOUT

SMALL = layout.parse(LAYOUT, "small")


@pytest.fixture
def plate(tmp_path):
    folder = tmp_path / "plate ö 細胞"
    folder.mkdir()
    for well in SMALL.wells.values():
        pair = synthetic.draw_well(well, SMALL.size, 0)
        for channel, image in enumerate(pair, start=1):
            image.save(folder / f"{well.row}{well.column}-{channel}.png")
    return folder


def run(plate, tmp_path, name="out", **options):
    tiles = tmp_path / name
    return prepare_plate(plate, SMALL, tiles, tmp_path / "s.html", **options)


def refusal(plate, tmp_path, **options) -> str:
    with pytest.raises(StageError) as error:
        run(plate, tmp_path, **options)
    assert not (tmp_path / "out").exists()
    return str(error.value)


def test_tiles_are_the_wells_named_beside_them_in_row_order(plate, tmp_path):
    run(plate, tmp_path)
    tiles = read_tiles(tmp_path / "out")
    assert tiles.array.shape == (4 * 2, 256, 256, 3)
    for position, tile in enumerate(tiles.index):
        files = [plate / f"{tile.row}{tile.column}-{c}.png" for c in (1, 2)]
        well = tiling.tile_well(*(tiling.grey(f.read_bytes(), f.name) for f in files))
        assert np.array_equal(tiles.array[position], well[tile.y * 2 + tile.x])
        assert tile.label == tile.column - 1
        assert tile.fold == tile.row


def test_the_same_plate_gives_the_same_bytes_with_any_number_of_workers(plate, tmp_path):
    assert run(plate, tmp_path, "a", workers=1) == run(plate, tmp_path, "b", workers=3)


@pytest.mark.parametrize("workers", [1, 2])
def test_where_a_plate_need_not_be_whole_bad_images_are_flags(plate, tmp_path, capsys, workers):
    (plate / "A1-1.png").unlink()
    data = (plate / "B2-2.png").read_bytes()
    (plate / "B2-2.png").write_bytes(data[: len(data) // 2])
    document = run(plate, tmp_path, whole=False, workers=workers)
    flags = {well["well"]: well["flags"] for well in document["wells"]}
    assert flags == {"A01": "missing", "A02": "", "B01": "", "B02": "unreadable"}
    tiles = read_tiles(tmp_path / "out")
    assert {t.well: t.flags for t in tiles.index} == flags
    black = {t.well for t, tile in zip(tiles.index, tiles.array, strict=True) if not tile.any()}
    assert black == {"A01", "B02"}
    said = capsys.readouterr().out
    assert "missing: well A01 lacks its signal image" in said
    assert "unreadable: B2-2.png is damaged or truncated" in said


def test_a_plate_without_one_good_field_is_no_plate(plate, tmp_path):
    for path in plate.glob("*-2.png"):
        path.write_bytes(b"")
    assert "no image of the plate can be used: " in refusal(plate, tmp_path, whole=False)


@pytest.mark.parametrize("fault", ["empty", "truncated", "text", "folder"])
def test_an_unreadable_image_is_named_and_nothing_is_left(plate, tmp_path, fault):
    path = plate / "B2-1.png"
    data = path.read_bytes()
    path.unlink()
    if fault == "folder":
        path.mkdir()
    else:
        path.write_bytes({"empty": b"", "truncated": data[: len(data) // 2], "text": b"hi"}[fault])
    message = refusal(plate, tmp_path)
    assert ("B02 lacks its signal" if fault == "folder" else "B2-1.png") in message


def test_a_wrong_or_mixed_size_is_refused(plate, tmp_path):
    Image.new("L", (512, 300)).save(plate / "A1-2.png")
    assert "A1-2.png is 512 x 300 pixels, the layout says 600 x 300" in refusal(plate, tmp_path)


def test_another_plate_than_the_run_asks_for_is_refused(plate, tmp_path):
    known = run(plate, tmp_path, "first")["plate_digest"]
    run(plate, tmp_path, "second", expected=known)
    Image.new("L", SMALL.size, 3).save(plate / "A1-2.png")
    assert f"the run asks for {known}" in refusal(plate, tmp_path, expected=known)


def test_blank_saturated_and_blurred_wells_are_flagged_and_kept(plate, tmp_path):
    Image.new("L", SMALL.size, 3).save(plate / "A1-2.png")
    Image.new("L", SMALL.size, 255).save(plate / "A2-1.png")
    document = run(plate, tmp_path)
    flags = {well["well"]: well["flags"] for well in document["wells"]}
    assert flags["A01"] == "blank"
    assert flags["A02"] == "saturated"
    assert len(document["wells"]) == 4
    assert "A01" in (tmp_path / "s.html").read_text()


def test_a_changed_byte_of_the_tiles_is_noticed(plate, tmp_path):
    run(plate, tmp_path)
    with (tmp_path / "out" / "tiles.npy").open("r+b") as file:
        file.seek(5000)
        byte = file.read(1)
        file.seek(5000)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(StageError, match=r"tiles.npy has sha256 .* run prepare again"):
        read_tiles(tmp_path / "out")


def test_a_plate_path_that_is_not_there_is_named_as_it_was_given(tmp_path, monkeypatch):
    monkeypatch.setenv("PLATELINE_IMAGES", str(tmp_path))
    given = {"plate_path": "/plates/7", "plate_layout": "bbbc013"}
    with pytest.raises(StageError, match="plate_path = '/plates/7' is no folder") as error:
        prepare(StageIO({"inputs": {"parameterValues": given}}))
    assert str(tmp_path) not in str(error.value)


def test_one_image_of_another_depth_among_good_ones_is_refused(plate, tmp_path):
    values = np.zeros(SMALL.size[::-1], np.uint16)
    Image.fromarray(values).save(plate / "A1-2.png")
    assert "A1-2.png has 16-bit values where the layout says 8" in refusal(plate, tmp_path)


def test_the_real_plate_is_prepared(tmp_path):
    folder = Path(os.environ.get("PLATELINE_BBBC013", "../../shared/data/bbbc013v1"))
    if not (folder / "images").is_dir():
        pytest.skip(f"no BBBC013 plate at {folder}; set PLATELINE_BBBC013")
    document = prepare_plate(folder, layout.load("bbbc013"), tmp_path / "t", tmp_path / "s.html")
    assert read_tiles(tmp_path / "t").array.shape[0] == 96 * 9
    assert [well["flags"] for well in document["wells"]] == [""] * 96
