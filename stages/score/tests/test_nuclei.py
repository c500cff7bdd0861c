"""Nuclei of drawn pictures: as many as were drawn, of the size they were drawn in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score.nuclei import FEATURES, measured, segment


def draw(centres, radius=9, level=120, size=256, noise=3, background=10):
    random = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    picture = background + random.normal(0, noise, (size, size))
    for cy, cx in centres:
        picture[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] += level
    return np.clip(picture, 0, 255).astype(np.uint8)


grid = [(y, x) for y in range(32, 256, 48) for x in range(32, 256, 48)]


@settings(max_examples=15, deadline=None)
@given(st.sets(st.sampled_from(grid), min_size=1))
def test_every_nucleus_is_counted_once(centres):
    assert segment(draw(centres)).max() == len(centres)


def test_two_nuclei_that_touch_are_two():
    assert segment(draw([(100, 100), (100, 116)])).max() == 2


@pytest.mark.parametrize("noise", [0, 3, 20])
def test_a_picture_without_nuclei_has_none(noise):
    assert segment(draw([], noise=noise)).max() == 0
    assert segment(np.zeros((256, 256), np.uint8)).max() == 0
    assert segment(np.full((256, 256), 255, np.uint8)).max() == 0


def test_areas_and_levels_are_those_drawn():
    dna, signal = draw(grid, noise=0), draw(grid, level=60, noise=0)
    found = measured(signal, dna).features
    area = np.pi * 9**2
    assert np.median(found["Nuclei_AreaShape_Area"]) == pytest.approx(area, rel=0.2)
    assert np.median(found["Nuclei_AreaShape_Eccentricity"]) < 0.3
    assert np.median(found["Nuclei_AreaShape_FormFactor"]) == pytest.approx(1, abs=0.15)
    assert np.median(found["Nuclei_Intensity_MeanIntensity_DNA"]) == pytest.approx(130, rel=0.1)
    assert np.median(found["Nuclei_Intensity_MeanIntensity_Signal"]) == pytest.approx(70, rel=0.1)
    assert np.median(found["Cytoplasm_Intensity_MeanIntensity_Signal"]) == pytest.approx(10, abs=3)


def test_an_enlarged_image_has_the_areas_of_the_image():
    picture = draw(grid)
    plain, twice = (measured(picture, picture, scale=s).features for s in (1, 2))
    for name in ("Nuclei_AreaShape_Area", "Nuclei_Intensity_IntegratedIntensity_DNA"):
        np.testing.assert_allclose(twice[name] * 4, plain[name], rtol=1e-5)


def test_signal_in_the_nucleus_and_beside_it_have_ratios_of_opposite_signs():
    dna = draw(grid)
    inside = measured(dna, dna).features["Cells_Intensity_NucleusToCytoplasm_Signal"]
    outside = measured(255 - dna, dna).features["Cells_Intensity_NucleusToCytoplasm_Signal"]
    assert np.median(inside) > 1
    assert np.median(outside) < -0.3


def test_a_nucleus_at_the_border_is_counted_but_not_measured():
    found = measured(*[draw([(0, 100), (100, 100)])] * 2)
    assert found.count == 2
    assert {name: len(values) for name, values in found.features.items()} == dict.fromkeys(
        FEATURES, 1
    )
