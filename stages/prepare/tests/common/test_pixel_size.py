"""The width of a pixel, as each kind of plate says it; never one that is guessed."""

import json

import microscopes
import pytest
from common import kinds, plate
from common.kinds.inventory import Folder, micrometres

KINDS = {
    "harmony V5": ("harmony", microscopes.write_harmony),
    "harmony V7": ("harmony", lambda f, p: microscopes.write_harmony(f, p, "V7")),
    "cellvoyager": ("cellvoyager", microscopes.write_cellvoyager),
    "ome-tiff": ("ome-tiff", microscopes.write_ome_tiff),
    "ome-zarr 0.4": ("ome-zarr", microscopes.write_ome_zarr),
    "ome-zarr 0.5": ("ome-zarr", lambda f, p: microscopes.write_ome_zarr(f, p, "0.5")),
}
# What stands before the place, and the size as the kind writes it, in µm or in m.
TEXTS = {
    "harmony": ("<ImageSizeX>", '<ImageResolutionX Unit="m">{:.4E}</ImageResolutionX>', 1e-6),
    "cellvoyager": ("bts:HorizontalPixels=", 'bts:HorizontalPixelDimension="{}" ', 1),
    "ome-tiff": ("SizeX=", 'PhysicalSizeX="{}" ', 1),
}


def say(folder, kind, sizes):
    """Write the sizes into the plate's documents, the last of them everywhere but at first."""
    if kind == "ome-zarr":
        found = [p for name in (".zattrs", "zarr.json") for p in sorted(folder.rglob(name))]
        left = list(sizes)
        for path in found:
            document = json.loads(path.read_text())
            inside = document.get("attributes", {}).get("ome", document)
            for scale in inside.get("multiscales", ()):
                size = left.pop(0) if len(left) > 1 else left[0]
                scale["axes"][-1]["unit"] = "micrometer"
                scale["datasets"][0]["coordinateTransformations"] = [
                    {"type": "scale", "scale": [1, 1, 1, size / 2, size / 2]}
                ]
                scale["coordinateTransformations"] = [{"type": "scale", "scale": [1, 1, 1, 2, 2]}]
            path.write_text(json.dumps(document))
        return
    before, text, unit = TEXTS[kind]
    for path in plate.files_below(folder):
        if path.suffix in {".xml", ".mrf", ".ome"}:
            first, *rest = path.read_text().split(before)
            given = [*sizes[:-1], *[sizes[-1]] * (len(rest) + 1 - len(sizes))]
            path.write_text(first + "".join(
                text.format(size * unit) + before + part
                for size, part in zip(given, rest, strict=True)
            ))  # fmt: skip


def pixel_size(folder, name, sizes=()):
    kind, write = KINDS[name]
    write(folder, microscopes.simulated(1, 2, channels=2, size=(256, 260)))
    if sizes:
        say(folder, kind, sizes)
    return kinds.KINDS[kind].read(Folder(folder, plate.files_below(folder))).pixel_size


@pytest.mark.parametrize("name", KINDS)
def test_it_is_read_from_the_plates_own_documents(tmp_path, name):
    assert pixel_size(tmp_path, name, [0.65]) == 0.65


@pytest.mark.parametrize("name", KINDS)
def test_without_a_word_of_it_there_is_none(tmp_path, name):
    assert pixel_size(tmp_path, name) is None


@pytest.mark.parametrize("name", KINDS)
def test_of_images_that_differ_there_is_none(tmp_path, name):
    assert pixel_size(tmp_path, name, [0.325, 0.65]) is None


@pytest.mark.parametrize(
    ("size", "unit", "found"),
    [("2.968E-07", "m", 0.2968), (650, "nm", 0.65), (0.65, "micrometer", 0.65), ("0", "µm", None),
     ("-1", "µm", None), ("nan", "µm", None), ("inf", "µm", None), ("wide", "µm", None),
     (1, "pixel", None), (1, None, None), (None, "µm", None)],
)  # fmt: skip
def test_a_unit_that_is_not_known_gives_none(size, unit, found):
    assert micrometres(size, unit) == found
