"""The whole examples of docs/layouts.md are layouts, and their file names mean what is said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from common import layout, plate

PAGE = (Path(__file__).parents[2] / "docs/layouts.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```text\n(.*?)^```\n\n```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
PARSED = [(names, layout.parse(text, "the example")) for names, text in EXAMPLES]


def test_the_page_has_an_example_of_each_kind_of_microscope():
    titles = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    assert [title for title in titles if title not in {"Names", "Images"}] == [
        "BBBC", "ImageXpress (Molecular Devices)", "Operetta and Opera Phenix (Harmony)",
    ]  # fmt: skip
    assert len(PARSED) == 3


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


@pytest.mark.parametrize("known", [*(k for _, k in PARSED), *map(layout.load, layout.names())])
def test_every_layout_can_be_trained_and_judged(known: layout.Layout):
    for fold in known.folds:
        wells = known.wells.values()
        inside = [well.label for well in wells if well.fold == fold]
        outside = [well.label for well in wells if well.fold != fold]
        assert {0, 1} <= set(inside)
        assert min(outside.count(0), outside.count(1)) >= 2
