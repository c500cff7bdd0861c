"""What `invoke score` makes of its arguments, before anything is built or run."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import BuilderError
from builder.store import Store, roots
from cli.scoring import nothing_said, pinned, volume_and_name
from pipeline.errors import PipelineError


def test_a_list_is_named_within_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "plates.csv").write_text("folder\nP1\n")
    assert volume_and_name(str(tmp_path / "plates.csv")) == (tmp_path, "plates.csv")


@pytest.mark.parametrize("name", ["P1", "bbbc013v1", "with [brackets]", "a*b", "x"])
def test_a_folder_becomes_the_pattern_that_fits_it_alone(tmp_path: Path, name: str) -> None:
    for other in (name, f"{name}2", f"_{name}"):
        (tmp_path / other).mkdir()
    root, pattern = volume_and_name(str(tmp_path / name))
    assert [path.name for path in root.glob(pattern)] == [name]
    assert set(pattern) & set("*?[")


def test_a_pattern_is_cut_before_its_first_star(tmp_path: Path) -> None:
    assert volume_and_name(f"{tmp_path}/P*/images") == (tmp_path, "P*/images")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"plates\.csv is no file"):
        volume_and_name(str(tmp_path / "plates.csv"))


def test_a_model_of_the_store_goes_by_the_digest_it_has_now(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    model = store.add(b"{}", "application/vnd.oci.image.manifest.v1+json")
    roots.keep(store, "localhost/a/model", model)
    assert pinned("localhost/a/model", store) == f"localhost/a/model@{model.digest}"
    given = "registry.test/a/model@sha256:" + "0" * 64
    assert pinned(given, store) == given


def test_a_model_that_the_store_lacks_is_named_with_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(BuilderError, match=r"no model localhost/a/model; make one with `invoke"):
        pinned("localhost/a/model", Store.open(tmp_path / "store"))


def test_a_screen_whose_plates_all_failed_is_an_error_and_one_usable_plate_is_a_screen() -> None:
    assert nothing_said({"plates": 3, "plates_failed": 2}) == ""
    assert "every plate failed" in nothing_said({"plates": 3, "plates_failed": 3})
