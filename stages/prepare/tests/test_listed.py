"""Plates of a list: each is scanned and prepared alone, and a broken one is an answer."""

import json

import pytest
from common import layout
from common.errors import MachineError, StageError
from common.stage_io import StageIO
from common.tiles import read_problem, read_tiles
from prepare import listed, plates, synthetic
from small_layout import LAYOUT

SMALL = layout.parse(LAYOUT, "small")
OUTPUTS = ("tiles", "summary")


@pytest.fixture
def volume(tmp_path, monkeypatch):
    """Return a volume with a whole plate P1, an empty one P2, and their list."""
    root = tmp_path / "images"
    (root / "P1").mkdir(parents=True)
    (root / "P2").mkdir()
    for well in SMALL.wells.values():
        pair = synthetic.draw_well(well, SMALL.size, 0)
        for channel, image in enumerate(pair, start=1):
            image.save(root / "P1" / f"{well.row}{well.column}-{channel}.png")
    (root / "small.toml").write_text(LAYOUT)
    (root / "list.csv").write_text("folder,layout\nP1,small.toml\nP2,small.toml\n")
    monkeypatch.setenv("PLATELINE_IMAGES", str(root))
    return root


def task(folder, **parameters):
    outputs = {name: {"artifacts": [{"uri": str(folder / name)}]} for name in OUTPUTS}
    return StageIO({"inputs": {"parameterValues": parameters}, "outputs": {"artifacts": outputs}})


def both(folder):
    """Return the texts of the two plates."""
    one = task(folder, plates="list.csv")
    plates.plates(one)
    return one.output_parameters()["listed"]


def scanned(folder, text, **parameters):
    one = task(folder, listed=text, **parameters)
    listed.scan(one)
    return one.output_parameters()


def prepared(folder, text, found, **parameters):
    one = task(
        folder, listed=text, plate_digest=found["plate"], layout_digest=found["layout"],
        problem=found["problem"], **parameters,
    )  # fmt: skip
    listed.prepare(one)
    return folder / "tiles", one.output_parameters()["digest"]


def test_a_plate_of_the_list_is_cut_as_it_was_scanned(volume, tmp_path):
    first, _ = both(tmp_path)
    assert json.loads(first)["plate"] == "P1"
    found = scanned(tmp_path, first)
    assert found["problem"] == ""
    tiles, digest = prepared(tmp_path, first, found)
    assert read_problem(tiles) == ""
    read = read_tiles(tiles)
    assert read.plate["plate_digest"] == found["plate"]
    assert read.digest == digest


def test_a_broken_plate_is_handed_on_with_its_problem(volume, tmp_path):
    _, second = both(tmp_path)
    found = scanned(tmp_path, second)
    assert "holds no image whose name fits" in found["problem"]
    tiles, digest = prepared(tmp_path, second, found)
    assert read_problem(tiles) == found["problem"]
    assert [path.name for path in tiles.iterdir()] == ["problem.json"]
    assert digest.startswith("sha256:")


def test_a_plate_that_breaks_after_its_scan_is_handed_on_as_well(volume, tmp_path):
    first, _ = both(tmp_path)
    found = scanned(tmp_path, first)
    with (volume / "P1" / "A1-1.png").open("ab") as file:
        file.write(b"later")
    tiles, _ = prepared(tmp_path, first, found)
    assert "the plate has the digest" in read_problem(tiles)


def test_where_it_is_asked_for_a_broken_plate_stops_the_run_by_name(volume, tmp_path):
    _, second = both(tmp_path)
    with pytest.raises(StageError, match=r"^plate P2: the plate cannot be used: "):
        scanned(tmp_path, second, on_broken="fail")
    with pytest.raises(StageError, match="on_broken = ignore is none of report, fail"):
        scanned(tmp_path, second, on_broken="ignore")


def test_what_is_the_machines_fault_is_no_problem_of_the_plate(volume, tmp_path, monkeypatch):
    first, _ = both(tmp_path)
    found = scanned(tmp_path, first)

    def full(*_, **__):
        raise MachineError("cannot write tiles: no space left; make room")

    monkeypatch.setattr(listed, "prepare_plate", full)
    with pytest.raises(MachineError, match="make room"):
        prepared(tmp_path, first, found)
