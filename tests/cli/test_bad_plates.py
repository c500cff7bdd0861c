"""Plates that cannot be used: one clear message that names the file, exit code 1, nothing lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Task, refused
from tests.cli.plates import picture, write_plate


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    return write_plate(tmp_path / "plate é")


def _truncate(plate: Path) -> None:
    path = plate / "c1-A1.bmp"
    path.write_bytes(path.read_bytes()[:30000])


def _fill_with_text(plate: Path) -> None:
    (plate / "c1-A1.bmp").write_text("not a picture")


def _empty_file(plate: Path) -> None:
    (plate / "c1-A1.bmp").write_bytes(b"")


def _lose_a_well(plate: Path) -> None:
    for channel in "12":
        (plate / f"c{channel}-A1.bmp").unlink()


def _lose_a_channel(plate: Path) -> None:
    (plate / "c1-A1.bmp").unlink()


def _other_size(plate: Path) -> None:
    (plate / "c1-A1.bmp").write_bytes(picture(128, 256, 1))


def _double(plate: Path) -> None:
    shutil.copy(plate / "c1-A1.bmp", plate / "C1-A1.BMP")


ONCE = ("--trust", "--file")
SPOILS = [
    (_truncate, "c1-A1.bmp"),
    (_fill_with_text, "c1-A1.bmp"),
    (_empty_file, "c1-A1.bmp"),
    (_lose_a_well, "A01"),
    (_lose_a_channel, "A01"),
    (_other_size, "c1-A1.bmp"),
    (_double, "A01"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("spoil", "name"), SPOILS)
def test_a_run_on_a_damaged_plate_fails_in_prepare_and_names_the_file(
    invoke: Task, plate: Path, tried_once: Path, spoil: Callable[[Path], None], name: str
):
    spoil(plate)
    before = {path: path.read_bytes() for path in plate.iterdir()}
    done = invoke(
        "run", *ONCE, str(tried_once), "--plate", str(plate), "--param", "plate_layout=small.toml"
    )
    refused(done, name, "prepare")
    assert done.returncode == 1
    assert {path: path.read_bytes() for path in plate.iterdir()} == before


def test_an_unknown_layout_is_refused_with_those_that_are_known(
    invoke: Task, plate: Path, tried_once: Path
):
    done = invoke(
        "run", *ONCE, str(tried_once), "--plate", str(plate), "--param", "plate_layout=bbbc999"
    )
    refused(done, "bbbc999", "bbbc013")


def test_an_empty_folder_is_refused(invoke: Task, tmp_path: Path, tried_once: Path):
    (tmp_path / "empty").mkdir()
    done = invoke(
        "run", *ONCE, str(tried_once), "--plate", "empty", "--param", "plate_layout=bbbc013"
    )
    refused(done, "no image")


def test_a_plate_that_is_not_there_is_refused_before_anything_runs(invoke: Task, compiled: Path):
    refused(invoke("run", "--file", str(compiled), "--plate", "nowhere"), "nowhere", "folder")


@pytest.mark.slow
def test_an_unknown_model_type_fails_the_training_and_names_those_there_are(
    invoke: Task, plate: Path, tried_once: Path
):
    done = invoke(
        "run", *ONCE, str(tried_once), "--plate", str(plate), "--param", "plate_layout=small.toml",
        "--param", "model_type=VGG99",
    )  # fmt: skip
    refused(done, "VGG99", "EfficientNet_Lite0")


def test_check_plate_draws_what_the_layout_understands(invoke: Task, plate: Path):
    layout = str(plate / "small.toml")
    done = invoke("check-plate", str(plate), "--layout", layout)
    assert done.returncode == 0, done.stderr
    assert "16 images of 8 wells" in done.stdout
    facts = json.loads(invoke("check-plate", str(plate), "--layout", layout, "--json").stdout)
    assert facts["plate_digest"].startswith("sha256:")
    assert facts["problems"] == []


def test_check_plate_names_a_missing_image_and_fails(invoke: Task, plate: Path):
    _lose_a_channel(plate)
    done = invoke("check-plate", str(plate), "--layout", str(plate / "small.toml"))
    refused(done, "A01")


@pytest.mark.parametrize(("spoil", "name"), SPOILS)
def test_check_plate_refuses_what_a_run_refuses(
    invoke: Task, plate: Path, spoil: Callable[[Path], None], name: str
):
    spoil(plate)
    done = invoke("check-plate", str(plate), "--layout", str(plate / "small.toml"))
    refused(done, name)
    assert done.returncode == 1


def test_check_plate_names_a_faulty_layout_as_the_user_does(
    invoke: Task, plate: Path, tmp_path: Path
):
    mine = tmp_path / "mine é.toml"
    mine.write_text((plate / "small.toml").read_text().replace("size =", "sise ="))
    done = invoke("check-plate", str(plate), "--layout", str(mine))
    refused(done, "the layout mine é.toml: there is no key files.sise")
    assert "/tmp/" not in done.stderr.replace(str(tmp_path), "")
