"""One plate scored, and plates put together: what is written, what is flagged, what is refused."""

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from common import digest
from common.errors import StageError
from common.pooling import log_odds, pooled
from common.stage_io import StageIO
from common.tiles import Tile, write_index, write_plate, write_problem
from score import nuclei as measuring
from score.screen import check_alike, read_plate, screen
from score.stage import score

WORKSPACE = "screen"
MODELS = Path(__file__).parent / "models"
DIGEST = "sha256:" + "ab" * 32


MEASURE = measuring.of_fields


@pytest.fixture(scope="module", autouse=True)
def each_field_once():
    """Measure the nuclei of a picture once: most tests score the same plate for other claims."""
    known = {}

    def of_fields(tiles, fields, **how):
        pictures = (measuring.picture(tiles, rows).tobytes() for rows in fields)
        keys = [(hashlib.sha256(p).digest(), len(rows), *sorted(how.items()))
                for p, rows in zip(pictures, fields, strict=True)]  # fmt: skip
        new = {key: rows for key, rows in zip(keys, fields, strict=True) if key not in known}
        if new:
            known.update(zip(new, MEASURE(tiles, list(new.values()), **how), strict=True))
        return (known[key] for key in keys)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "of_fields", of_fields)
        yield


def plate_of(folder, wells, *, name="P1", levels=None, content="", size=(256, 256)):
    """Write tiles of a plate; `wells` are (Tile, green level, nuclei)."""
    tiles = folder / name / "tiles"
    tiles.mkdir(parents=True)
    random = np.random.default_rng(len(name) + sum(map(ord, name)))
    y, x = np.mgrid[:256, :256]
    pictures = []
    for _, level, nuclei in wells:
        picture = np.zeros((256, 256, 3), np.uint8)
        picture[..., 1] = level
        dna = 10 + random.normal(0, 2, (256, 256))
        for n in range(nuclei):
            cy, cx = 20 + 30 * (n // 8), 20 + 30 * (n % 8)
            dna[(y - cy) ** 2 + (x - cx) ** 2 <= 81] += 100
        picture[..., 2] = np.clip(dna, 0, 255)
        pictures.append(picture)
    np.save(tiles / "tiles.npy", np.array(pictures))
    write_index(tiles / "tiles.csv", [tile for tile, _, _ in wells])
    own = {tile.well: [] for tile, _, _ in wells}
    document = {
        "folds": ["A-B", "C-D"],
        "classes": ["negative", "positive"],
        "tile": 256,
        "layout": {"name": "test", "rows": 4, "columns": 12, "size": list(size),
                   "target": [256, 256], "digest": DIGEST},
        "plate_digest": content or "sha256:" + digest.file_sha256(tiles / "tiles.npy"),
        "wells": [{"well": w, "fields": [{"focus": 0.5, "saturated": 0.0}]} for w in own],
    }  # fmt: skip
    write_plate(tiles, document)
    return tiles


def wells(level=lambda tile: 125.0, nuclei=lambda tile: 16, **changes):
    """Return 4 x 12 wells: negatives left, positives right, four compounds between."""
    found = []
    for r, row in enumerate("ABCD"):
        for column in range(1, 13):
            role = {1: "negative", 2: "negative", 12: "positive"}.get(column, "sample")
            tile = Tile(
                f"{row}{column:02d}", row, column, 0, 0, 0,
                f"compound {row}" if role == "sample" else role,
                float(column) if role == "sample" else None, "µM" if role == "sample" else "",
                role, "A-B" if row in "AB" else "C-D", {1: 0, 2: 0, 12: 1}.get(column), "",
            )  # fmt: skip
            tile = replace(tile, **changes.get(tile.well, {}))
            value = {"negative": 75.0 + 2 * r, "positive": 125.0 + 2 * r}.get(role, level(tile))
            found.append((tile, value, nuclei(tile)))
    return found


def servable(folder, **changes):
    made = folder / "servable"
    made.mkdir(exist_ok=True)
    entries = []
    for fold, source in (("A-B", "green"), ("C-D", "green-shifted")):
        file = made / f"{fold}.onnx"
        file.write_bytes((MODELS / f"{source}.onnx").read_bytes())
        entries.append({"name": fold, "file": file.name, "fold": fold,
                        "sha256": digest.file_sha256(file), "variant": "fp32"})  # fmt: skip
    document = {
        "classes": ["negative", "positive"], "threshold": 0.5, "models": entries,
        "layout": {"size": [256, 256], "target": [256, 256]}, "trained_on": [DIGEST], **changes,
    }  # fmt: skip
    (made / "manifest.json").write_text(json.dumps(document))
    return made


def task(folder, parameters, artifacts, outputs):
    return StageIO(
        {
            "inputs": {
                "parameterValues": parameters,
                "artifacts": {
                    name: {"artifacts": [{"uri": str(path)} for path in paths]}
                    for name, paths in artifacts.items()
                },
            },
            "outputs": {
                "artifacts": {n: {"artifacts": [{"uri": str(folder / n)}]} for n in outputs}
            },
        }
    )


def scored(folder, given, *, name="P1", model=None, content="", size=(256, 256), **parameters):
    """Score a plate; return the folder of its scores."""
    tiles = plate_of(folder, given, name=name, content=content, size=size)
    one = task(
        folder / name / "out",
        {"listed": json.dumps({"plate": name}), "workspace_name": WORKSPACE, **parameters},
        {"tiles": [tiles], "servable": [model or servable(folder)]}, ("scores", "metrics"),
    )  # fmt: skip
    score(one)
    assert one.output_parameters()["digest"] == digest.folder_digest(folder / name / "out/scores")
    return folder / name / "out/scores"


def screened(folder, *scores, **parameters):
    digests = [digest.folder_digest(one) for one in scores]
    given = {"workspace_name": WORKSPACE, "scores_digests": digests, **parameters}
    one = task(folder / "all", given, {}, ("screen", "summary", "metrics"))
    screen(one)
    return folder / "all/screen", (folder / "all/summary").read_text(), one


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    (tmp_path / "workspace").mkdir()
    monkeypatch.setenv("PLATELINE_WORKSPACE", str(tmp_path / "workspace"))
    return tmp_path / "workspace" / WORKSPACE / "scores"


def table(folder, name="wells"):
    return pd.read_parquet(folder / f"{name}.parquet").set_index("Metadata_Well", drop=False)


def test_a_wells_score_is_what_the_models_say_of_its_tiles(tmp_path):
    found = table(scored(tmp_path, wells(level=lambda t: 60.0 + 5 * t.column)))
    for well in ("A03", "C07", "D11"):
        level = 60.0 + 5 * int(well[1:])
        answers = 1 / (1 + np.exp(-(0.1 * level + np.array([[-10.0], [-8.0]]))))
        row = found.loc[well]
        assert row["Score_Probability"] == pytest.approx(float(pooled(answers).mean()), rel=1e-4)
        assert row["Score_LogOdds"] == pytest.approx(float(log_odds(answers).mean()), rel=1e-4)
        assert row["Score_Call"] == ("positive" if pooled(answers).mean() >= 0.5 else "negative")
        assert row["Score_SpreadOfModels"] == pytest.approx(math.sqrt(2), rel=1e-4)
        assert row["Score_Uncertainty"] == pytest.approx(1, rel=1e-4)
        assert row["Metadata_Standing"] == "new plate"
    assert not found["Score_ModelsAgree"].all()


def test_parquet_and_csv_say_the_same_and_each_column_has_a_meaning(tmp_path):
    folder = scored(tmp_path, wells())
    parquet, text = pd.read_parquet(folder / "wells.parquet"), pd.read_csv(folder / "wells.csv")
    empty = {"Metadata_Flags": "", "Metadata_DoseUnit": ""}
    text = text.astype({"Metadata_Flags": object}).fillna(empty)
    pd.testing.assert_frame_equal(parquet, text, check_dtype=False)
    plain = pd.read_csv(folder / "wells.csv", dtype=str, keep_default_na=False)
    assert set(plain["Score_ModelsAgree"]) <= {"TRUE", "FALSE"}  # R takes `false` for a text
    known = pd.read_csv(folder / "columns.csv", keep_default_na=False)
    assert set(known[known["table"] == "wells"]["column"]) == set(parquet.columns)
    assert (known["meaning"] != "").all()
    cells = pd.read_parquet(folder / "cells.parquet")
    assert len(cells) == parquet["Nuclei_Count"].sum() == 48 * 16


def test_a_plate_that_was_trained_on_is_scored_by_the_model_that_did_not_see_the_well(tmp_path):
    found = table(scored(tmp_path, wells(level=lambda t: 90.0), content=DIGEST))
    assert set(found["Metadata_Standing"]) == {"held out"}
    assert set(found["Score_Models"]) == {1}
    assert found.loc["A05", "Score_LogOdds"] == pytest.approx(9 - 10, rel=1e-3)
    assert found.loc["D05", "Score_LogOdds"] == pytest.approx(9 - 8, rel=1e-3)


def test_a_well_that_every_model_saw_is_flagged(tmp_path):
    given = wells(B05={"fold": "other"})
    found = table(scored(tmp_path, given, content=DIGEST, min_z_prime=-10.0))
    assert found.loc["B05", "Metadata_Standing"] == "trained on"
    assert found.loc["B05", "Metadata_Flags"] == "trained_on"


def test_a_model_without_word_of_its_plates_leaves_the_standing_open(tmp_path):
    model = servable(tmp_path)
    document = json.loads((model / "manifest.json").read_text())
    del document["trained_on"]
    (model / "manifest.json").write_text(json.dumps(document))
    assert set(table(scored(tmp_path, wells(), model=model))["Metadata_Standing"]) == {"not known"}


def test_dead_cells_and_bad_images_are_flagged_and_never_hits(tmp_path):
    given = wells(
        nuclei=lambda t: 3 if t.well == "B03" else 0 if t.well == "B04" else 16,
        C05={"flags": "out_of_focus"}, C06={"flags": "saturated"}, C07={"flags": "missing"},
    )  # fmt: skip
    folder = scored(tmp_path, given)
    found = table(folder)
    flags = {"B03": "few_cells", "B04": "few_cells", "C05": "out_of_focus", "C06": "saturated",
             "C07": "missing"}  # fmt: skip
    assert {w: f for w, f in found["Metadata_Flags"].items() if f} == flags
    assert np.isnan(found.loc["C07", "Score_Probability"])
    assert found.loc["C07", "Score_Call"] is None or pd.isna(found.loc["C07", "Score_Call"])
    assert found.loc["B04", "Nuclei_Count"] == 0
    out, text, _ = screened(tmp_path, folder)
    rows = pd.read_parquet(out / "treatments.parquet")
    hits = set(" ".join(rows[rows["Treatment_Hit"]]["Treatment_WellNames"]).split())
    assert hits == {f"P1:{w}" for w in found[found["Metadata_Role"] == "sample"].index} - {
        f"P1:{w}" for w in flags
    }
    assert "5 of 48 wells are flagged" in text


def test_a_flagged_field_is_left_out_while_half_of_the_fields_are_left(tmp_path):
    given = []
    for tile, level, nuclei in wells():
        marks = {"B02": ("", "", "out_of_focus", ""), "B03": ("saturated",) * 3 + ("",)}
        for field, mark in enumerate(marks.get(tile.well, ("",) * 4)):
            given.append((replace(tile, field=field, flags=mark), level, nuclei))
    found = table(scored(tmp_path, given))
    assert found.loc["B02", "Metadata_Flags"] == ""
    assert found.loc["B02", "Metadata_FieldsUsed"] == found.loc["B02", "Score_Tiles"] == 3
    assert found.loc["B02", "Nuclei_CountPerField"] == 16
    assert found.loc["B03", "Metadata_Flags"] == "saturated"
    assert found.loc["B04", "Metadata_FieldsUsed"] == 4


def test_two_plates_make_one_hit_list_and_the_plates_are_told_apart(tmp_path):
    active = lambda t: 150.0 if t.row == "B" and t.column == 5 else 78.0 + t.column % 3  # noqa: E731
    folders = [scored(tmp_path, wells(level=active), name=n) for n in ("P1", "P2x")]
    out, text, one = screened(tmp_path, *folders)
    hits = pd.read_csv(out / "hits.csv")
    assert hits["Metadata_Compound"].tolist() == ["compound B"]
    assert hits["Metadata_Dose"].tolist() == [5]
    assert (hits["Treatment_Wells"][0], hits["Treatment_Plates"][0]) == (2, 2)
    assert one.output_parameters()["hits"] == 1
    assert text.startswith("# 1 of 36 tested treatments are hits")
    plates = pd.read_csv(out / "plates.csv")
    assert plates["Metadata_Plate"].tolist() == ["P1", "P2x"]
    assert (plates["Plate_Status"] == "ok").all()
    assert (plates["Plate_ZPrime_LogOdds"] > 0).all()


def test_no_hit_is_a_message_and_an_empty_list_with_its_columns(tmp_path):
    out, text, one = screened(tmp_path, scored(tmp_path, wells(level=lambda t: 78.0)))
    assert one.output_parameters()["hits"] == 0
    assert "No treatment is a hit." in text
    assert len(pd.read_csv(out / "hits.csv")) == len(pd.read_parquet(out / "hits.parquet")) == 0
    assert "Treatment_Q" in pd.read_csv(out / "hits.csv").columns


def test_nothing_but_hits_is_said(tmp_path):
    _, text, one = screened(tmp_path, scored(tmp_path, wells(level=lambda t: 140.0)))
    assert one.output_parameters()["hits"] == 36
    assert "Every treatment tested is a hit." in text


def test_a_plate_whose_controls_overlap_fails_and_gives_no_hits(tmp_path):
    bad = [(t, 125.0 if t.well in {"A01", "B12"} else v, n)
           for t, v, n in wells()]  # fmt: skip
    folders = [scored(tmp_path, bad, name="P1"), scored(tmp_path, wells(), name="P2x")]
    out, text, _ = screened(tmp_path, *folders)
    plates = pd.read_csv(out / "plates.csv").set_index("Metadata_Plate")
    assert plates.loc["P1", "Plate_Status"] == "failed"
    assert "below min_z_prime" in plates.loc["P1", "Plate_Problems"]
    assert "1 of 2 plates failed" in text
    found = pd.read_parquet(out / "wells.parquet")
    assert (found[found["Metadata_Plate"] == "P1"]["Metadata_Flags"] == "plate_failed").all()
    assert "P1:" not in pd.read_csv(out / "hits.csv")["Treatment_WellNames"].str.cat()


def test_a_plate_without_controls_fails_with_the_reason_and_the_screen_says_so(tmp_path):
    given = [(replace(t, role="sample"), v, n) for t, v, n in wells()]
    out, text, _ = screened(tmp_path, scored(tmp_path, given))
    assert "No treatment could be tested" in text
    assert "0 usable negative control wells" in text
    assert pd.read_csv(out / "treatments.csv")["Treatment_P"].isna().all()


@pytest.mark.parametrize("method", ["controls", "mad", "b-score"])
def test_the_method_of_normalisation_is_a_parameter(tmp_path, method):
    active = lambda t: 150.0 if t.well == "B05" else 78.0 + (7 * t.column + ord(t.row)) % 5  # noqa: E731
    out, _, _ = screened(tmp_path, scored(tmp_path, wells(level=active), normalisation=method))
    assert pd.read_csv(out / "plates.csv")["Plate_Normalisation"].tolist() == [method]
    assert pd.read_csv(out / "hits.csv")["Treatment_WellNames"].tolist() == ["P1:B05"]


def test_the_screen_is_an_anndata_with_units(tmp_path):
    out, _, _ = screened(tmp_path, scored(tmp_path, wells(C07={"flags": "missing"})))
    found = anndata.read_h5ad(out / "screen.h5ad")
    assert found.shape[0] == 48
    assert found["P1:B05", "Score_LogOdds"].X.item() == pytest.approx(12.5 - 9, rel=1e-3)
    assert np.isnan(found["P1:C07", "Score_LogOdds"].X.item())
    assert found.var.loc["Nuclei_AreaShape_Area", "unit"] == "px2"
    assert found.obs.loc["P1:A01", "Metadata_Role"] == "negative"
    assert json.loads(found.uns["plateline"])["counts"]["wells"] == 48


def test_the_same_inputs_give_the_same_digest(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "of_fields", MEASURE)
    one, two = tmp_path / "one", tmp_path / "two"
    first, second = scored(one, wells()), scored(two, wells())
    assert digest.folder_digest(first) == digest.folder_digest(second)
    screens = [screened(folder, scores)[2].output_parameters() for folder, scores in
               ((one, first), (two, second))]  # fmt: skip
    assert screens[0] == screens[1]


REFUSED = {
    "a method that is not known": ({"normalisation": "zscore"}, "none of controls, mad, b-score"),
    "a share above 1": ({"min_cell_share": 1.5}, "min_cell_share"),
    "a nucleus of no size": ({"nucleus_diameter": 0.0}, "nucleus_diameter"),
    "another servable": ({"servable_digest": DIGEST}, "servable_digest is"),
    "other tiles": ({"tiles_digest": DIGEST}, "tiles_digest is"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_by_name(tmp_path, case):
    given, message = REFUSED[case]
    with pytest.raises(StageError, match=message):
        scored(tmp_path, wells(), **given)
    assert not (tmp_path / "P1/out/scores").exists()


def test_a_plate_of_another_size_than_the_models_is_a_line_and_stops_nobody(tmp_path):
    other = wells(level=lambda t: 90.0)
    folders = [scored(tmp_path, wells()), scored(tmp_path, other, name="P2", size=(512, 512))]
    out, text, _ = screened(tmp_path, *folders)
    plates = pd.read_csv(out / "plates.csv").set_index("Metadata_Plate")
    assert plates["Plate_Status"].to_dict() == {"P1": "ok", "P2": "failed"}
    assert "cells would have another size" in plates.loc["P2", "Plate_Problems"]
    assert "- P2: the plate's images have 512 x 512 pixels" in text


def test_a_plate_of_other_bits_than_the_models_is_a_failed_one(tmp_path):
    known = {"size": [256, 256], "target": [256, 256], "bits": 16}
    folder = scored(tmp_path, wells(), model=servable(tmp_path, layout=known))
    (problem,) = read_plate(folder).facts["problems"]
    assert "those of the model's plates 16: the same light would have another level" in problem


def test_plates_of_other_channels_are_not_in_one_list(tmp_path):
    names = {"P1": {"1": "signal", "2": "dna"}, "P2": {"1": "dna", "2": "signal"}}
    levels = {"P1": lambda tile: 125.0, "P2": lambda tile: 90.0}
    plates = [read_plate(scored(tmp_path, wells(level=levels[name]), name=name)) for name in names]
    other = [replace(one, facts={**one.facts, "channels": names[one.name]}) for one in plates]
    check_alike(plates)
    with pytest.raises(StageError, match=r"the plates P1 and P2 have other channels: .*two lists"):
        check_alike(other)


def test_a_model_file_that_changed_is_refused(tmp_path):
    model = servable(tmp_path)
    with (model / "A-B.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(StageError, match=r"A-B\.onnx is not what manifest\.json names"):
        scored(tmp_path, wells(), model=model)


@pytest.mark.parametrize("entry", ["../A-B.onnx", "/etc/passwd"])
def test_a_manifest_that_names_a_file_elsewhere_is_refused(tmp_path, entry):
    model = servable(tmp_path)
    document = json.loads((model / "manifest.json").read_text())
    document["models"][0]["file"] = entry
    (model / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(StageError, match="is not what"):
        scored(tmp_path, wells(), model=model)


def test_one_plate_under_two_names_is_refused_as_its_own_replicate(tmp_path):
    same = "sha256:" + "cd" * 32
    folders = [scored(tmp_path, wells(), name=n, content=same) for n in ("P1", "P2x")]
    with pytest.raises(StageError, match="P1 and P2x have the same images"):
        screened(tmp_path, *folders)


def test_plates_scored_with_other_parameters_are_refused(tmp_path):
    folders = [scored(tmp_path, wells(), name=n, normalisation=m)
               for n, m in (("P1", "controls"), ("P2x", "mad"))]  # fmt: skip
    with pytest.raises(StageError, match="scored with another parameters"):
        screened(tmp_path, *folders)


def test_two_plates_of_one_name_are_refused(tmp_path):
    folder = scored(tmp_path, wells())
    with pytest.raises(StageError, match="two plates have the name P1"):
        screened(tmp_path, folder, folder)


def test_tables_on_the_workspace_that_changed_or_are_gone_are_refused(tmp_path, workspace):
    folder = scored(tmp_path, wells())
    (kept,) = workspace.iterdir()
    (kept / "wells.parquet").write_bytes(b"PAR1")
    with pytest.raises(StageError, match=r"were changed; run again with the parameter fresh"):
        screened(tmp_path, folder)
    for path in kept.iterdir():
        path.unlink()
    kept.rmdir()
    with pytest.raises(StageError, match="the workspace has no tables sha256:"):
        screened(tmp_path, folder)


@pytest.mark.parametrize("name", ["../other", "sha256:" + "../" * 21 + "x", ""])
def test_nothing_but_a_digest_names_tables_on_the_workspace(tmp_path, name):
    given = {"workspace_name": WORKSPACE, "scores_digests": [name]}
    with pytest.raises(StageError, match="is no digest of a plate's tables"):
        screen(task(tmp_path, given, {}, ("screen",)))


def test_a_plate_that_could_not_be_prepared_is_a_line_and_stops_nobody(tmp_path):
    tiles = tmp_path / "broken/tiles"
    write_problem(tiles, "no image of well A01; copy it")
    one = task(
        tmp_path / "broken", {"listed": '{"plate": "P9"}', "workspace_name": WORKSPACE},
        {"tiles": [tiles], "servable": [servable(tmp_path)]}, ("scores", "metrics"),
    )  # fmt: skip
    score(one)
    out, text, last = screened(tmp_path, scored(tmp_path, wells()), tmp_path / "broken/scores")
    plates = pd.read_csv(out / "plates.csv").set_index("Metadata_Plate")
    assert plates.loc["P9", "Plate_Problems"] == "no image of well A01; copy it"
    assert "- P9: no image of well A01; copy it" in text
    assert last.output_parameters()["hits"] == 36
    _, text, last = screened(tmp_path, tmp_path / "broken/scores")
    assert "No plate could be read: what each one lacks is below." in text
    assert last.output_parameters()["hits"] == 0


def test_a_rate_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(StageError, match="false_discovery_rate = 2"):
        screened(tmp_path, scored(tmp_path, wells()), false_discovery_rate=2.0)
