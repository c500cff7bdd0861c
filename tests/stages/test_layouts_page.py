"""The whole examples of docs/layouts.md are layouts, and their file names mean what is said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from common import kinds, layout, plate

PAGE = (Path(__file__).parents[2] / "docs/layouts.md").read_text(encoding="utf-8")
NAMED = re.findall(r"^```text\n(.*?)^```\n\n```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
PARSED = [(names, layout.parse(text, "the example")) for names, text in NAMED]
WHOLE = re.findall(r"^## ([^\n]*)\n(?:(?!^## ).)*?^```toml\n(.*?)^```", PAGE, re.M | re.S)
MAP = re.search(r"^```csv\n(.*?)^```", PAGE, re.M | re.S)


@pytest.fixture(scope="module", params=WHOLE, ids=[title for title, _ in WHOLE])
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A whole example of the page, with the plate map that the page shows beside it."""
    assert MAP is not None
    folder = tmp_path_factory.mktemp("plate")
    (folder / "map.csv").write_text(MAP[1], encoding="utf-8")
    return layout.parse(request.param[1], "the example", folder)


def test_the_page_has_a_whole_example_of_each_kind():
    assert [title for title, _ in WHOLE] == [
        "BBBC", "ImageXpress (Molecular Devices)", "Operetta and Opera Phenix (Harmony)",
        "CellVoyager (Yokogawa)", "OME-TIFF", "OME-Zarr", "Plate maps",
    ]  # fmt: skip
    kinds_shown = {line.split('"')[1] for line in re.findall(r'^kind = ".*"$', PAGE, re.M)}
    assert kinds_shown | {kinds.NAMES} == set(kinds.KINDS)
    assert len(NAMED) == 1


@pytest.mark.parametrize(("names", "known"), PARSED, ids=[known.name for _, known in PARSED])
def test_the_names_of_an_example_are_the_pictures_beside_them(
    tmp_path: Path, names: str, known: layout.Layout
):
    lines = [re.split(r"\s{2,}", line) for line in names.splitlines()]
    # Fields are counted in the order of their numbers, so all must be there.
    for name, _ in lines:
        for number in range(1, known.fields + 1):
            every = re.sub(
                r"(?<=_s)\d|(?<=f)\d\d(?=p)", lambda m, n=number: f"{n:0{len(m[0])}}", name
            )
            (tmp_path / every).touch()
    found = {
        planes[0].path.name: place for place, planes in plate.match(tmp_path, known).images.items()
    }
    for name, meaning in lines:
        well, field, channel = meaning.split(", ")
        place = plate.Place(well, int(field.removeprefix("field ")) - 1, channel)
        assert found[name] == place


def can_be_trained_and_judged(known: layout.Layout) -> bool:
    wells = known.wells.values()
    return all(
        {0, 1} <= {well.label for well in wells if well.fold == fold}
        and min(sum(well.label == label for well in wells if well.fold != fold) for label in (0, 1))
        >= 2
        for fold in known.folds
    )


def test_an_example_can_be_trained_and_judged(example: layout.Layout):
    assert can_be_trained_and_judged(example)


@pytest.mark.parametrize("name", layout.names())
def test_a_known_layout_can_be_trained_and_judged(name: str):
    assert can_be_trained_and_judged(layout.load(name))
