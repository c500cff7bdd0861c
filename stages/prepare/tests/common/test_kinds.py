"""Claims about plates as microscopes write them: the same pixels give the same tiles."""

import dataclasses
import tempfile
from pathlib import Path

import microscopes
import numpy as np
import pytest
from common import check, kinds, layout, plate
from common.kinds.inventory import Folder
from common.tiles import read_tiles
from hypothesis import given, settings
from hypothesis import strategies as st
from prepare.stage import prepare_plate

KINDS = {
    "imagexpress": ("imagexpress", microscopes.write_imagexpress),
    "harmony V5": ("harmony", microscopes.write_harmony),
    "harmony V6": ("harmony", lambda f, p: microscopes.write_harmony(f, p, "V6")),
    "harmony V7": ("harmony", lambda f, p: microscopes.write_harmony(f, p, "V7")),
    "cellvoyager": ("cellvoyager", microscopes.write_cellvoyager),
    "ome-tiff with a companion": ("ome-tiff", microscopes.write_ome_tiff),
    "ome-zarr 0.4": ("ome-zarr", microscopes.write_ome_zarr),
    "ome-zarr 0.5": ("ome-zarr", lambda f, p: microscopes.write_ome_zarr(f, p, "0.5")),
    "ome-zarr 0.5 in shards": (
        "ome-zarr",
        lambda f, p: microscopes.write_ome_zarr(f, p, "0.5", shards=True),
    ),
}


def tiles_of(folder, known, out) -> tuple[bytes, dict]:
    document = prepare_plate(folder, known, out / "tiles", out / "s.html", workers=1)
    return (out / "tiles" / "tiles.npy").read_bytes(), document


@pytest.fixture(scope="module")
def stack():
    """Two fields, three channels, two planes, two time points."""
    return microscopes.simulated(1, 4, sites=2, channels=3, planes=2, times=2, size=(256, 260))


@pytest.fixture(scope="module")
def reference(stack, tmp_path_factory):
    """The tiles of plane 2 at the second time point, and those of the maximum, from plain files."""
    folder = tmp_path_factory.mktemp("names")
    microscopes.write_names(folder, stack)
    found = {}
    for more in ("plane = 2", 'projection = "maximum"'):
        text = microscopes.layout("names", 1, 4, (256, 260), fields=2, more=f"{more}\ntime = 2")
        found[more] = tiles_of(folder, parse(text, "A"), tmp_path_factory.mktemp("out"))[0]
    return found


def parse(text, rows="") -> layout.Layout:
    """Return a layout whose two folds are columns where the plate has one row."""
    if rows:
        text = text.replace('A = "A"', 'A = { columns = "1-2" }')
        text = text.replace('B = "B-H"', 'B = { columns = "3-12" }')
    return layout.parse(text, "the layout")


@pytest.mark.parametrize("name", KINDS)
def test_the_same_pixels_give_the_same_tiles_whatever_wrote_them(name, stack, reference, tmp_path):
    kind, write = KINDS[name]
    folder = tmp_path / "plate µ"
    folder.mkdir()
    write(folder, stack)
    time = 1 if kind == "harmony" else 2  # Harmony counts time points from 0
    for number, (more, expected) in enumerate(reference.items()):
        text = microscopes.layout(kind, 1, 4, (256, 260), fields=2, more=f"{more}\ntime = {time}")
        known = parse(text, "A")
        (tmp_path / str(number)).mkdir()
        tiles, document = tiles_of(folder, known, tmp_path / str(number))
        assert tiles == expected
        assert document["plate_digest"] == plate.plate_digest(folder, known)
        found = check._with_layout(folder, known, ())
        assert found.problems == ()
        assert found.plate_digest == document["plate_digest"]
        assert "channels that the layout does not name: 3 (Cy5)" in found.notes


def test_the_maximum_is_that_of_the_planes_and_the_highest_bits_stay(stack, reference, tmp_path):
    first = next(iter(read_tiles_of(reference['projection = "maximum"'], tmp_path)))
    planes = [stack[1, 1, 1, 2, z, 2] for z in (1, 2)]
    expected = (np.maximum(*planes) >> 8)[2:258, :].astype(np.uint8)
    assert np.array_equal(first[..., 2], expected)


def read_tiles_of(data, tmp_path):
    (tmp_path / "tiles.npy").write_bytes(data)
    return np.load(tmp_path / "tiles.npy")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("bits", [8, 16])
def test_a_plate_of_one_field_plane_and_time_needs_no_choice(name, bits, tmp_path):
    kind, write = KINDS[name]
    pictures = microscopes.simulated(1, 4, size=(256, 256), bits=bits)
    plain, folder = tmp_path / "plain", tmp_path / "plate"
    for path, writer in ((plain, microscopes.write_names), (folder, write)):
        path.mkdir()
        writer(path, pictures)
    tiles = []
    for path, of in ((plain, "names"), (folder, kind)):
        out = tmp_path / f"out {of}"
        out.mkdir()
        text = microscopes.layout(of, 1, 4, (256, 256), bits=bits)
        tiles.append(tiles_of(path, parse(text, "A"), out)[0])
    assert tiles[0] == tiles[1]


@pytest.mark.parametrize("name", KINDS)
def test_a_camera_of_12_bits_keeps_them_also_where_samples_have_16(name, tmp_path):
    """OME-TIFF and OME-Zarr know 8 and 16 bits only: as 16, hardly 16 levels would be left."""
    kind, write = KINDS[name]
    pictures = {k: v >> 4 for k, v in microscopes.simulated(1, 4, size=(256, 256)).items()}
    write(tmp_path, pictures)
    (tmp_path / "out").mkdir()
    known = parse(microscopes.layout(kind, 1, 4, (256, 256), bits=12), "A")
    tiles_of(tmp_path, known, tmp_path / "out")
    first = np.load(tmp_path / "out/tiles/tiles.npy")[0]
    assert np.array_equal(first[..., 1], pictures[1, 1, 1, 1, 1, 1] >> 4)
    problems = plate.match(tmp_path, dataclasses.replace(known, bits=8)).problems
    assert all("set files.bits = 16" in problem for problem in problems)
    assert bool(problems) == (kind in {"cellvoyager", "ome-tiff", "ome-zarr"})


def test_ome_tiff_without_a_plate_takes_wells_from_names_and_channels_from_its_xml(
    stack, reference, tmp_path
):
    microscopes.write_ome_tiff(tmp_path, stack, companion=False)
    pattern = r"(?P<row>[A-H])(?P<column>\d\d)_(?P<field>\d)\.ome\.tiff"
    more = 'projection = "maximum"\ntime = 2'
    text = microscopes.layout("ome-tiff", 1, 4, (256, 260), fields=2, more=more, pattern=pattern)
    (tmp_path / "out").mkdir()
    assert tiles_of(tmp_path, parse(text, "A"), tmp_path / "out")[0] == reference[more[:-9]]
    with pytest.raises(layout.StageError, match=r"no element Plate.*give files.pattern"):
        plate.match(tmp_path, dataclasses.replace(parse(text, "A"), pattern=""))


@pytest.mark.parametrize("name", KINDS)
def test_a_folder_says_its_kind_and_why(name, tmp_path):
    kind, write = KINDS[name]
    write(tmp_path, microscopes.simulated(1, 4, sites=2, planes=2, size=(64, 64)))
    found = kinds.recognised(Folder(tmp_path, plate.files_below(tmp_path)))
    assert next(iter(found)) == kind
    assert found[kind].startswith("it holds ")
    begun = check.check_plate(tmp_path)
    assert f"files.kind = {kind!r}: it holds " in begun.text
    assert f'kind = "{kind}"' in begun.text
    assert "finish the one above" in begun.problems[0]
    assert 'projection = "maximum"' in begun.text
    assert "fields = 2" in begun.text
    if kind != "imagexpress":  # its HTD file does not say the size
        assert "size = [64, 64]" in begun.text


def test_a_layout_of_a_kind_in_the_folder_is_taken_with_the_reason(tmp_path):
    microscopes.write_harmony(tmp_path, microscopes.simulated())
    (tmp_path / "mine.toml").write_text(microscopes.layout("harmony"))
    found = check.check_plate(tmp_path)
    assert found.layout == "simulated"
    assert found.problems == ()
    assert "Opera Phenix or Operetta (Harmony): it holds Images/Index.idx.xml" in found.notes
    assert any("flat-field profiles of the channels 1, 2; the images are used as" in n
               for n in found.notes)  # fmt: skip


def test_a_channel_may_go_by_the_name_that_the_microscope_gives_it(tmp_path):
    microscopes.write_harmony(tmp_path, microscopes.simulated())
    text = microscopes.layout("harmony")
    named = text.replace('1 = "signal"', '"fitc & co" = "signal"').replace(
        '2 = "dna"', 'DAPI = "dna"'
    )
    found = [plate.match(tmp_path, layout.parse(t, "x")).images for t in (text, named)]
    assert found[0] == found[1]
    assert found[0]


PLACES = st.fixed_dictionaries({
    "rows": st.integers(1, 3), "columns": st.integers(1, 3), "sites": st.integers(1, 3),
    "channels": st.integers(2, 3), "planes": st.integers(1, 2), "times": st.integers(1, 2),
})  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(shape=PLACES, name=st.sampled_from(sorted(KINDS)))
def test_every_picture_of_any_plate_is_in_the_table_once(shape, name):
    kind, write = KINDS[name]
    pictures = microscopes.simulated(**shape, size=(8, 8))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(folder, pictures)
        found = kinds.KINDS[kind].read(Folder(folder, plate.files_below(folder)))
        first = 1 if kind == "harmony" else 0
        sites = sorted({p.site for p in found.planes}, key=int)
        keys = [
            (p.row, p.column, sites.index(p.site) + 1, int(p.channel), p.z or 1, p.t + first)
            for p in found.planes
        ]
        assert sorted(keys) == sorted(pictures)
        assert found.problems == ()


def test_wells_of_a_1536_well_plate_are_named_to_af48(tmp_path):
    pictures = {(32, 48, 1, channel, 1, 1): np.zeros((8, 8), np.uint16) for channel in (1, 2)}
    microscopes.write_names(tmp_path, pictures)
    text = microscopes.layout("names", size=(8, 8)).replace("rows = 8", "rows = 32")
    text = text.replace("columns = 12", "columns = 48").replace('"A-B"', '"AF"')
    text = text.replace('"1-4"', '"48"').replace("['negative', 'positive', 'negative', 'positive']",
                                                 "['sample']")  # fmt: skip
    known = layout.parse(text.replace('"B-H"', '"B-AF"'), "x")
    found = plate.match(tmp_path, known)
    assert found.problems == []
    assert {place.well for place in found.images} == {"AF48"}


def test_the_tiles_of_a_kind_are_read_back_with_their_wells(tmp_path):
    microscopes.write_ome_zarr(tmp_path, microscopes.simulated(size=(256, 256)))
    known = layout.parse(microscopes.layout("ome-zarr", size=(256, 256)), "x")
    tiles_of(tmp_path, known, tmp_path)
    wells = [tile.well for tile in read_tiles(tmp_path / "tiles").index]
    assert wells == [f"{row}{column:02d}" for row in "AB" for column in range(1, 5)]
