"""Claims about microscopes' folders that are not whole or not understood: refused, and by name."""

import json
import os
import shutil

import microscopes
import numpy as np
import pytest
import tifffile
from common import check, layout, plate
from common.errors import StageError

SIZE = (256, 256)
BOMB = "<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'>]>"
HARMONY, MLF = "Images/Index.idx.xml", "MeasurementData.mlf"
COMPANION = "plate.companion.ome"


def problems(folder, kind, more="") -> str:
    """Return what makes a plate unusable: what the check says, or why it cannot be read."""
    known = layout.parse(microscopes.layout(kind, size=SIZE, more=more), "the layout")
    try:
        return "; ".join(check._with_layout(folder, known, ()).problems)
    except StageError as error:
        return str(error)


@pytest.fixture
def written(tmp_path):
    def write(kind, **shape):
        microscopes.WRITERS[kind](tmp_path, microscopes.simulated(size=SIZE, **shape))
        return tmp_path

    return write


def edit(path, old, new, count=-1):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, count), encoding="utf-8")


@pytest.mark.parametrize("kind", [k for k in microscopes.WRITERS if k != "ome-zarr"])
@pytest.mark.parametrize("fault", ["lost", "truncated", "other size", "other depth"])
def test_a_damaged_image_of_any_kind_is_named(written, kind, fault):
    folder = written(kind)
    path = next(p for p in sorted(folder.rglob("*.tif*")) if "thumb" not in p.name)
    if fault == "lost":
        path.unlink()
    elif fault == "truncated":
        path.write_bytes(path.read_bytes()[:3000])
    else:
        shape, depth = ((64, 64), np.uint16) if fault == "other size" else (SIZE, np.float32)
        with tifffile.TiffWriter(path) as file:
            for _ in range(2 if kind == "ome-tiff" else 1):
                file.write(np.zeros(shape, depth), contiguous=False, metadata=None)
    found = problems(folder, kind)
    assert path.name in found or "A01" in found
    assert str(folder) not in found


@pytest.mark.parametrize("kind", microscopes.WRITERS)
def test_a_missing_plane_of_a_stack_is_named(written, kind):
    folder = written(kind, planes=2, rows=1)
    assert "set files.projection" in problems(folder, kind)
    assert "files.plane is 7" in problems(folder, kind, "plane = 7")
    if kind in {"ome-tiff", "ome-zarr"}:
        return  # there a stack is one file or array
    planes = {"names": "A1-s1-c2-z2*", "imagexpress": "ZStep_2/*A01_w2[!_]*",
              "harmony": "r01c01f01p02-ch2*", "cellvoyager": "AS_A01_*Z02C02.tif"}  # fmt: skip
    (lost,) = folder.rglob(planes[kind])
    lost.unlink()
    found = problems(folder, kind, 'projection = "maximum"')
    assert "well A01 lacks plane 2 of its dna image" in found


@pytest.mark.parametrize("kind", microscopes.WRITERS)
def test_time_points_must_be_chosen(written, kind):
    folder = written(kind, times=2)
    first = 0 if kind == "harmony" else 1
    assert f"time points {first}, {first + 1}; choose one with files.time" in problems(folder, kind)
    assert "files.time is 9" in problems(folder, kind, "time = 9")


def test_a_picture_twice_names_both(written):
    folder = written("harmony")
    name = "r01c01f01p01-ch1sk1fk1fl1.tiff"
    shutil.copy(folder / "Images" / name, folder / "Images" / "again.tiff")
    text = (folder / HARMONY).read_text()
    one = text[text.index("<Image Version") : text.index("</Image>") + len("</Image>")]
    assert name in one
    (folder / HARMONY).write_text(text.replace(one, one + one.replace(name, "again.tiff")))
    found = problems(folder, "harmony")
    assert f"A01 has two signal images: Images/{name} and Images/again.tiff" in found


DOCUMENTS = [("harmony", HARMONY), ("cellvoyager", MLF), ("ome-tiff", COMPANION)]


@pytest.mark.parametrize(("kind", "document"), DOCUMENTS)
@pytest.mark.parametrize("fault", ["bomb", "external", "truncated", "empty", "deep", "latin"])
def test_xml_that_is_dangerous_or_broken_is_refused_by_name(written, kind, document, fault):
    folder = written(kind)
    path = folder / document
    text = path.read_text()
    start = text.index("?>") + 2 if text.startswith("<?") else 0
    body = text[start:]
    changed = {
        "bomb": (BOMB + body, "declares a document type"),
        "external": (
            "<!DOCTYPE x SYSTEM 'file:///etc/passwd'>" + body,
            "declares a document type",
        ),
        "truncated": (text[: len(text) // 2], "is not whole XML"),
        "empty": ("", "is not whole XML"),
        "deep": ("<a>" * 5000, "nests more than"),
        "latin": (f"<?xml version='1.0' encoding='nonsense'?>{body}", "XML"),
    }[fault]
    path.write_text(changed[0])
    found = problems(folder, kind)
    assert changed[1] in found
    assert path.name in found


@pytest.mark.parametrize(
    ("kind", "document", "old", "new"),
    [
        ("harmony", HARMONY, "HarmonyV5", "HarmonyV9"),
        ("harmony", HARMONY, "EvaluationInputData", "Other"),
        ("cellvoyager", MLF, "BTSSchema/1.0", "BTSSchema/2.0"),
        ("cellvoyager", MLF, 'bts:Version="1.0"', 'bts:Version="2.0"'),
        ("ome-tiff", COMPANION, "OME/2016-06", "OME/2031-01"),
    ],
)
def test_another_version_or_namespace_is_refused_with_those_that_are_read(
    written, kind, document, old, new
):
    folder = written(kind)
    edit(folder / document, old, new)
    assert "begins with" in problems(folder, kind)


@pytest.mark.parametrize("away", ["../../etc/passwd", "/etc/passwd", "C:\\\\a.tif", "..\\\\a.tif"])
@pytest.mark.parametrize(
    ("kind", "document", "name"),
    [
        ("harmony", HARMONY, "r01c01f01p01-ch1sk1fk1fl1.tiff"),
        ("cellvoyager", MLF, "AS_A01_T0001F001L01A01Z01C01.tif"),
        ("ome-tiff", COMPANION, "A01_1.ome.tiff"),
    ],
)
def test_a_name_that_leads_out_of_the_folder_is_refused(written, kind, document, name, away):
    folder = written(kind)
    edit(folder / document, name, away)
    assert "which is not within the plate's folder" in problems(folder, kind)


def test_wells_beyond_the_plate_are_refused(written):
    folder = written("harmony")
    edit(folder / HARMONY, "<Row>2</Row>", "<Row>20</Row>")
    assert "the plate has 8 x 12 wells, and 8 images are beyond it" in problems(folder, "harmony")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<Col>1</Col>", "<Col>one</Col>", "has 'one' as Col, which must be a whole number"),
        ("<FieldID>1</FieldID>", "", "has no FieldID"),
        ("<State>Ok</State>", "<State>Failed</State>", "16 images of the state 'Failed'"),
        ("<PlateRows>8</PlateRows>", "", "has no PlateRows"),
        ("<Plates>",
         "<Plates><Plate><PlateRows>8</PlateRows><PlateColumns>12</PlateColumns></Plate>",
         "describes 2 plates"),
        ("<ImageSizeX>256", "<ImageSizeX>2160", "the plate's images have 2160 x 256 pixels"),
    ],
)  # fmt: skip
def test_an_index_of_harmony_that_is_not_understood_says_what(written, old, new, message):
    folder = written("harmony")
    edit(folder / HARMONY, old, new)
    assert message in problems(folder, "harmony")


def test_images_of_several_sizes_are_refused(written):
    folder = written("harmony")
    edit(folder / HARMONY, "<ImageSizeX>256", "<ImageSizeX>128", 1)
    assert "names images of several sizes: 128 x 256" in problems(folder, "harmony")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Version 1.0", "Version 7", "is no HTD file of Version 1.0"),
        ('"EndFile"', "", "is truncated"),
        ('"NWavelengths", 2', '"NWavelengths", 1', "there are images of w2, and"),
        ('"XWells", 12', '"XWells", "many"', "as XWells, not a whole number"),
        ('"XWells", 12', '"XWells", 2', "has 8 x 2 wells, and 8 images are beyond it"),
        ('"Waves", TRUE', '"XWells", 3', "the key 'XWells' twice"),
    ],
)
def test_an_htd_file_that_is_not_understood_says_what(written, old, new, message):
    folder = written("imagexpress")
    path = folder / "Exp 7.HTD"
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
    assert message in problems(folder, "imagexpress")


def test_two_plates_in_a_folder_are_refused(written):
    folder = written("imagexpress")
    shutil.copy(folder / "Exp 7.HTD", folder / "Exp 8.HTD")
    assert "several plates (Exp 7.HTD and Exp 8.HTD)" in problems(folder, "imagexpress")
    (folder / "Exp 7.HTD").unlink()
    (folder / "Exp 8.HTD").unlink()
    path = next(folder.rglob("*A01_w1[!_]*"))
    shutil.copy(path, path.with_name(path.name.replace("Exp 7", "Exp 8")))
    assert "images of several plates (exp 7, exp 8)" in problems(folder, "imagexpress")


def test_projections_of_the_microscope_are_passed_over(written):
    folder = written("imagexpress", planes=2)
    shutil.copytree(folder / "TimePoint_1/ZStep_1", folder / "TimePoint_1/ZStep_0")
    known = layout.parse(
        microscopes.layout("imagexpress", size=SIZE, more='projection = "maximum"'), "x"
    )
    found = plate.match(folder, known)
    assert found.problems == []
    assert "16 projections that the microscope made are passed over" in found.notes
    assert {len(planes) for planes in found.images.values()} == {2}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('Type="uint16"', 'Type="float"', "pixels of the type 'float'"),
        ('SizeC="2"', 'SizeC="3"', "has 2 elements Channel and SizeC 3"),
        ('PlaneCount="2"', 'PlaneCount="3"', "has 3 pictures in TiffData, of 2"),
        ('IFD="0"', 'IFD="1"', "has 2 pictures, and its OME-XML names more"),
        ('DimensionOrder="XYCZT"', 'DimensionOrder="CXYZT"', "the DimensionOrder 'CXYZT'"),
        ('SamplesPerPixel="1"', 'SamplesPerPixel="3"', "has colour pixels"),
        ('FirstC="0"', 'FirstC="2"', "has FirstC 2 of 2"),
        ('ImageRef ID="Image:1"', 'ImageRef ID="Image:0"', "puts the image Image:0 into two wells"),
        ('SizeX="256"', 'SizeX="99999999999"', "as SizeX, which must be a whole number"),
        ('SizeT="1"', 'SizeT="999999999"', "write it again"),
    ],
)
def test_ome_xml_that_is_not_understood_says_what(written, old, new, message):
    folder = written("ome-tiff")
    edit(folder / COMPANION, old, new)
    assert message in problems(folder, "ome-tiff")


ARRAY = "plate.zarr/A/1/0/0/.zarray"


def change(path, **values):
    document = json.loads(path.read_text())
    document.update(values)
    path.write_text(json.dumps(document))


def test_a_missing_chunk_is_refused_unless_the_layout_takes_it_for_the_fill_value(
    written, tmp_path
):
    folder = written("ome-zarr")
    (folder / "plate.zarr/A/1/0/0/0/1/0/0/0").unlink()
    found = problems(folder, "ome-zarr")
    assert "the chunk plate.zarr/A/1/0/0/0/1/0/0/0 is not there" in found
    assert 'files.missing_chunks = "fill"' in found
    assert problems(folder, "ome-zarr", 'missing_chunks = "fill"') == ""


@pytest.mark.parametrize("length", [0, 100])
def test_a_truncated_chunk_is_named(written, length):
    folder = written("ome-zarr")
    chunk = folder / "plate.zarr/A/1/0/0/0/1/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:length])
    assert "plate.zarr/A/1/0/0 is damaged or truncated" in problems(folder, "ome-zarr")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dtype": "<f4"}, "its values are '<f4'"),
        ({"dtype": "|O", "filters": [{"id": "pickle"}]}, "filters [{'id': 'pickle'}]"),
        ({"compressor": {"id": "pickle"}}, "compressor {'id': 'pickle'} is not read"),
        ({"chunks": [1, 1, 1, 1 << 20, 1 << 20]}, "too large to read"),
        ({"shape": [1, 2, 1, 300]}, "has the shape"),
        ({"zarr_format": 4}, "zarr_format is 4"),
        ({"shape": [1, 2, 1, -5, 5]}, "has the shape"),
        ({"chunks": 3}, "is not understood"),
    ],
)
def test_an_array_that_is_not_understood_says_what(written, values, message):
    folder = written("ome-zarr")
    change(folder / ARRAY, **values)
    assert message in problems(folder, "ome-zarr")


def test_no_codec_of_a_stranger_runs_code(written):
    folder = written("ome-zarr")
    shutil.rmtree(folder / "plate.zarr")
    pictures = microscopes.simulated(size=SIZE)
    microscopes.write_ome_zarr(folder, pictures, "0.5")
    path = folder / "plate.zarr/A/1/0/0/zarr.json"
    change(path, codecs=[{"name": "numcodecs.pickle", "configuration": {}}])
    assert "the codec 'numcodecs.pickle' is not read" in problems(folder, "ome-zarr")


@pytest.mark.parametrize(
    ("group", "table", "values", "message"),
    [
        ("", "plate", {"wells": [{"path": "../../etc"}]}, "has the well '../../etc'"),
        ("", "plate", {"wells": []}, "has no list wells"),
        ("", "plate", {"version": "0.1"}, "is OME-Zarr of version 0.1"),
        ("A/1", "well", {"images": [{"path": "../../B/1/0"}]}, "not within the plate's folder"),
        ("A/1", "well", {"images": [{"path": "0", "acquisition": n} for n in (0, 1)]},
         "images of 2 acquisitions"),
    ],
)  # fmt: skip
def test_a_group_that_is_not_understood_says_what(written, group, table, values, message):
    folder = written("ome-zarr")
    path = folder / "plate.zarr" / group / ".zattrs"
    document = json.loads(path.read_text())
    document[table].update(values)
    path.write_text(json.dumps(document))
    assert message in problems(folder, "ome-zarr")


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (["t", "c", "z", "x", "y"], "those before y and x must be t, c, z"),
        (["t", "q", "z", "y", "x"], "has the axes"),
        (["t", "t", "z", "y", "x"], "has an axis twice"),
        (["c", "z", "y", "x"], "has 4 axes, and its array 5"),
    ],
)
def test_axes_that_are_not_understood_are_refused(written, axes, message):
    folder = written("ome-zarr")
    path = folder / "plate.zarr/A/1/0/.zattrs"
    scales = json.loads(path.read_text())["multiscales"]
    scales[0]["axes"] = [{"name": name} for name in axes]
    change(path, multiscales=scales)
    assert message in problems(folder, "ome-zarr")


@pytest.mark.parametrize("text", ["", "{", "[]", "nonsense", "[" * 100_000, '{"plate": 3}'])
def test_attributes_that_are_not_whole_json_are_named(written, text):
    folder = written("ome-zarr")
    (folder / "plate.zarr/.zattrs").write_text(text)
    assert "plate.zarr" in problems(folder, "ome-zarr")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('kind = "nikon"', "files.kind is 'nikon', not one of"),
        ('projection = "mean"', "files.projection is 'mean'; there is 'maximum'"),
        ('projection = "maximum"\nplane = 1', "exclude each other"),
        ('missing_chunks = "fill"', "there are 'refuse' and, for ome-zarr, 'fill'"),
        ("pattern = 'x'", "files.pattern is not used with files.kind = 'harmony'"),
        ('time = "one"', "files.time is 'one', not a whole number"),
    ],
)
def test_a_layout_that_asks_for_what_there_is_not_is_refused(more, message):
    text = microscopes.layout("harmony", more=more)
    if more.startswith("kind"):
        text = text.replace('kind = "harmony"', more).replace(
            f"\n{more}\n[channels]", "\n[channels]"
        )
    with pytest.raises(StageError, match="the layout") as error:
        layout.parse(text, "the layout")
    assert message in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_document_that_cannot_be_read_is_named(written):
    folder = written("cellvoyager")
    (folder / MLF).chmod(0)
    assert "cannot read MeasurementData.mlf: Permission denied" in problems(folder, "cellvoyager")
