"""Claims about the first step: it says what later steps take from claims, by content."""

import json
import os

import pytest
from common import check, layout
from common.errors import StageError
from common.stage_io import StageIO
from prepare import synthetic
from prepare.scan import scan
from prepare.stage import prepare, prepare_plate
from small_layout import LAYOUT


@pytest.fixture
def plate(tmp_path, monkeypatch):
    folder = tmp_path / "images" / "p 1"
    folder.mkdir(parents=True)
    (folder / "small.toml").write_text(LAYOUT)
    known = layout.parse(LAYOUT, "small")
    for well in known.wells.values():
        for channel, image in enumerate(synthetic.draw_well(well, known.size, 0), start=1):
            image.save(folder / f"{well.row}{well.column}-{channel}.png")
    monkeypatch.setenv("PLATELINE_IMAGES", str(tmp_path / "images"))
    monkeypatch.setenv("PLATELINE_WORKSPACE", str(tmp_path / "workspace"))
    return folder


def scanned(**parameters):
    given = {"plate_path": "p 1", "plate_layout": "small.toml", "workspace_name": "w"}
    task = StageIO({"inputs": {"parameterValues": {**given, **parameters}}})
    scan(task)
    return task.output_parameters()


def test_the_plates_digest_is_the_one_that_prepare_and_check_plate_say(plate, tmp_path):
    known = layout.load("small.toml", plate)
    made = prepare_plate(plate, known, tmp_path / "t", tmp_path / "s.html")
    found = scanned()
    assert found["plate"] == made["plate_digest"]
    assert found["plate"] == check.check_plate(plate, "small.toml").plate_digest
    assert found["layout"] == made["layout"]["digest"]
    assert found["checkpoints"] == ""


def test_times_and_other_files_do_not_count_but_every_byte_and_name_does(plate):
    before = scanned()
    os.utime(plate / "A1-1.png", (1, 1))
    (plate / "notes.txt").write_text("of the microscopist")
    assert scanned() == before
    one, other = (plate / "A1-1.png").read_bytes(), (plate / "A2-1.png").read_bytes()
    (plate / "A1-1.png").write_bytes(other)
    (plate / "A2-1.png").write_bytes(one)
    swapped = scanned()
    assert swapped["plate"] != before["plate"]
    (plate / "small.toml").write_text(LAYOUT.replace("1e-7", "2e-7"))
    assert scanned()["layout"] != before["layout"]
    assert scanned()["plate"] == swapped["plate"]


def test_a_plate_that_cannot_be_used_ends_the_run_at_its_first_step(plate):
    known = scanned()["plate"]
    assert scanned(plate_digest=known)["plate"] == known
    with pytest.raises(StageError, match=f"the run asks for sha256:{'0' * 64}"):
        scanned(plate_digest="sha256:" + "0" * 64)
    (plate / "B2-1.png").unlink()
    with pytest.raises(StageError, match="B02 lacks its signal"):
        scanned()


def test_the_checkpoints_that_are_asked_for_count_and_no_others(plate, tmp_path):
    def save(stage, text):
        folder = tmp_path / "workspace" / "w" / stage
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").write_text(text)

    empty = scanned(checkpoint_train=True)["checkpoints"]
    save("train-A", "one")
    save("prepare", "one")
    first = scanned(checkpoint_train=True)["checkpoints"]
    save("prepare", "two")
    assert scanned(checkpoint_train=True)["checkpoints"] == first != empty
    save("train-A", "two")
    assert scanned(checkpoint_train=True)["checkpoints"] not in (first, empty)
    assert scanned()["checkpoints"] == ""


@pytest.mark.parametrize(
    ("wrong", "said"), [("plate_digest", "the run asks for"), ("layout_digest", "layout_digest is")]
)
def test_prepare_refuses_what_the_first_step_did_not_see(plate, tmp_path, wrong, said):
    found = scanned()
    given = {"plate_digest": found["plate"], "layout_digest": found["layout"]}
    outputs = {
        name: {"artifacts": [{"name": name, "uri": str(tmp_path / name)}]}
        for name in ("tiles", "summary")
    }

    def prepared(**changed):
        values = {"plate_path": "p 1", "plate_layout": "small.toml", **given, **changed}
        prepare(StageIO({"inputs": {"parameterValues": values}, "outputs": {"artifacts": outputs}}))

    prepared()
    assert json.loads((tmp_path / "tiles" / "plate.json").read_text())["plate_digest"]
    with pytest.raises(StageError, match=said):
        prepared(**{wrong: "sha256:" + "0" * 64})
