"""Claims about many plates of one run: their tiles on the workspace, put together by name."""

from itertools import pairwise

import numpy as np
import pytest
from common import layout, many_plates
from common.errors import MachineError, StageError
from common.plate_list import read_plates
from common.stage_io import StageIO
from common.tiles import Tile
from hypothesis import given
from hypothesis import strategies as st
from prepare import controls, synthetic
from prepare.cutting import spread
from prepare.ending import end
from prepare.gather import difference, folds_of, gather
from prepare.plates import as_text
from small_layout import LAYOUT

SAMPLES = '\n[[wells]]\nrows = "A-B"\ncolumns = "3"\nrole = "sample"\n'
OURS = LAYOUT.replace("columns = 2", "columns = 3").replace("\\d", "[1-3]") + SAMPLES


@pytest.fixture
def claims(tmp_path, monkeypatch):
    """Return the folder of images with three plates; a workspace is there too."""
    monkeypatch.setenv("PLATELINE_IMAGES", str(tmp_path / "images"))
    monkeypatch.setenv("PLATELINE_WORKSPACE", str(tmp_path / "workspace"))
    (tmp_path / "workspace").mkdir()
    for seed in (1, 2, 3):
        folder = tmp_path / "images" / f"P{seed}"
        folder.mkdir(parents=True)
        (folder / "small.toml").write_text(OURS)
        known = layout.parse(OURS, "small")
        for well in known.wells.values():
            if well.role == "sample":
                continue  # of no use to a model: it must not be missed
            pair = synthetic.draw_well(well, known.size, seed)
            for channel, image in enumerate(pair, start=1):
                image.save(folder / f"{well.row}{well.column}-{channel}.png")
    return tmp_path / "images"


def task(tmp_path, parameters, outputs=()):
    where = tmp_path / "out"
    return StageIO(
        {
            "inputs": {"parameterValues": {"workspace_name": "w", **parameters}},
            "outputs": {
                "outputFile": str(where / "executor.json"),
                "artifacts": {n: {"artifacts": [{"uri": str(where / n)}]} for n in outputs},
            },
        }
    )


def cut(claims, tmp_path, **parameters):
    found = []
    for one in read_plates(claims, "P*", "small.toml"):
        step = task(tmp_path, {"listed": as_text(one), "tiles_per_well": 1.0, **parameters})
        controls.control_tiles(step)
        found.append(step.output_parameters()["digest"])
    return found


def gathered(tmp_path, digests, **parameters):
    step = task(tmp_path, {"digests": digests, **parameters}, ["tiles", "summary"])
    gather(step)
    return many_plates.read(tmp_path / "out/tiles"), step.output_parameters()["folds"]


def test_each_plates_controls_are_held_out_together_and_nothing_is_copied(claims, tmp_path):
    tiles, folds = gathered(tmp_path, cut(claims, tmp_path))
    assert folds == ["P1", "P2", "P3"]
    assert len(tiles.array) == len(tiles.index) == 3 * 4
    assert {(t.well, t.fold) for t in tiles.index} == {
        (f"{plate}/{well}", plate) for plate in folds for well in ("A01", "A02", "B01", "B02")
    }
    assert [path.name for path in (tmp_path / "out/tiles").iterdir()] == ["plates.json"]
    own = np.load(tmp_path / "workspace/w/plates/P2/tiles.npy")
    assert np.array_equal(tiles.array[4:8], own)
    assert np.array_equal(tiles.array[[11, 5]][1], own[1])
    assert np.array_equal(tiles.array[5], own[1])


def test_half_of_each_plate_is_held_out_where_that_is_asked_for(claims, tmp_path):
    tiles, folds = gathered(tmp_path, cut(claims, tmp_path), hold_out="half")
    assert folds == ["A", "B"]
    assert {t.fold for t in tiles.index if t.well == "P3/B02"} == {"B"}


def test_a_broken_plate_is_named_and_the_others_go_on_unless_it_is_asked_to_stop(claims, tmp_path):
    (claims / "P2/A1-1.png").write_bytes(b"")
    tiles, folds = gathered(tmp_path, cut(claims, tmp_path))
    assert folds == ["P1", "P3"]
    (broken,) = tiles.plate["broken"]
    assert broken["plate"] == "P2"
    assert broken["problem"].startswith("A1-1.png is empty")
    assert "A1-1.png is empty" in (tmp_path / "out/summary").read_text()
    with pytest.raises(StageError, match=r"plate P2: A1-1\.png is empty"):
        cut(claims, tmp_path, on_broken="fail")


def ended(tmp_path, state, **parameters):
    """Return what the exit task says of a run over the plates P*."""
    given = {"status": {"state": state}, "plates": "P*", "plate_layout": "small.toml", **parameters}
    end(task(tmp_path, given, ["summary"]))
    return (tmp_path / "out/summary").read_text()


def test_the_exit_task_names_each_plate_that_could_not_be_used_and_why(claims, tmp_path):
    (claims / "P2/A1-1.png").write_bytes(b"")
    cut(claims, tmp_path)
    said = ended(tmp_path, "COMPLETE")
    assert said.startswith("# Run complete")
    assert "1 of 3 plates could not be used:\n\n- P2: A1-1.png is empty" in said
    (claims / "P2/A1-1.png").unlink()
    cut(claims, tmp_path)
    assert "- P2: the plate cannot be used: well A01 lacks its signal" in ended(tmp_path, "FAILED")


def test_the_exit_task_tells_plates_that_were_not_reached_and_a_list_that_is_not_there(
    claims, tmp_path
):
    assert "0 of 3 plates could not be used.\n\n- not reached before the run ended: P1, P2, P3" in (
        ended(tmp_path, "FAILED")
    )
    said = ended(tmp_path, "FAILED", plates="none.csv")
    assert said.startswith("# Run failed")
    assert "They could not be looked up: " in said
    assert "none.csv" in said


def test_a_plate_that_was_cut_before_is_kept_and_a_changed_or_damaged_one_is_cut_again(
    claims, tmp_path
):
    first = cut(claims, tmp_path)
    kept = tmp_path / "workspace/w/plates"
    times = {p: (kept / p / "tiles.npy").stat().st_mtime_ns for p in ("P1", "P2", "P3")}
    image = (claims / "P2/A1-1.png").read_bytes()
    (claims / "P2/A2-1.png").write_bytes(image)
    (kept / "P3/tiles.npy").write_bytes(b"damaged")
    second = cut(claims, tmp_path)
    now = {p: (kept / p / "tiles.npy").stat().st_mtime_ns for p in ("P1", "P2", "P3")}
    assert [p for p in times if now[p] != times[p]] == ["P2", "P3"]
    assert (first[0], first[2]) == (second[0], second[2])
    assert first[1] != second[1]


def test_tiles_that_were_changed_after_they_were_gathered_are_not_read(claims, tmp_path):
    tiles, _ = gathered(tmp_path, cut(claims, tmp_path))
    path = tmp_path / "workspace/w/plates/P1/tiles.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(StageError, match="was changed or is damaged"):
        tiles.array[0]
    assert tiles.array[4].any()


def test_what_a_step_did_not_hand_on_is_not_gathered(claims, tmp_path):
    digests = cut(claims, tmp_path)
    with pytest.raises(StageError, match=r"plate P1 .*is not what its step made"):
        gathered(tmp_path, ["P1 " + "0" * 32, *digests[1:]])


def test_a_full_disk_stops_the_run_for_it_is_not_the_plates_fault(claims, tmp_path, monkeypatch):
    def full(*_arguments, **_options):
        raise MachineError("cannot write tiles.npy: no space; make room")

    monkeypatch.setattr(controls, "prepare_plate", full)
    with pytest.raises(MachineError, match="no space"):
        cut(claims, tmp_path)


def test_plates_of_other_channels_or_bits_are_not_in_one_run(claims, tmp_path):
    (claims / "P3/small.toml").write_text(OURS.replace('1 = "signal"', '3 = "signal"'))
    for path in claims.glob("P3/*-1.png"):
        path.rename(path.with_name(path.name.replace("-1", "-3")))
    (claims / "P3/small.toml").write_text(
        OURS.replace("[12]", "[23]").replace('1 = "signal"', '3 = "signal"')
    )
    tiles, folds = gathered(tmp_path, cut(claims, tmp_path))
    assert folds == ["P1", "P2"]
    assert "its channels are {'3': 'signal'" in tiles.plate["broken"][0]["problem"]
    eight, twelve = ({"plate": p, "layout": {"bits": b}} for p, b in (("P1", 8), ("P2", 12)))
    assert "bits a sample are 12, and those of the first plate, P1, are 8" in difference(
        eight, twelve
    )


def test_too_few_plates_are_refused_with_the_reasons(claims, tmp_path):
    for plate in ("P1", "P2"):
        (claims / plate / "A1-1.png").unlink()
    with pytest.raises(StageError, match=r"1 of 3 plates can be used.*P1: .*well A01 lacks"):
        gathered(tmp_path, cut(claims, tmp_path))


@given(st.integers(2, 300), st.integers(2, 9))
def test_plates_are_shared_out_to_folds_of_nearly_one_size_in_their_order(count, most):
    plates = [{"plate": f"P{n}", "folds": ["A", "B"]} for n in range(count)]
    folds = folds_of(plates, [], "plate", most)
    sizes = [folds.count(fold) for fold in dict.fromkeys(folds)]
    assert len(sizes) == min(count, most)
    assert max(sizes) - min(sizes) <= 1
    assert folds == sorted(folds, key=list(dict.fromkeys(folds)).index)


@given(st.integers(1, 12), st.integers(1, 80), st.integers(0, 200))
def test_a_wells_tiles_are_spread_evenly_and_are_as_many_as_asked_for(fields, tiles, most):
    picked = [f * tiles + t for f, own in spread(fields, tiles, most).items() for t in own]
    assert picked == sorted(set(picked))
    assert len(picked) == (most if 0 < most < fields * tiles else fields * tiles)
    gaps = [b - a for a, b in pairwise(picked)]
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_an_index_of_many_plates_takes_little_memory():
    assert not hasattr(Tile("A01", "A", 1, 0, 0, 0, "", None, "", "", "", None, ""), "__dict__")
