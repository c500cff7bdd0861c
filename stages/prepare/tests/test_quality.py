"""Claims about the measures of a field's pictures: they are those of the definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepare.quality import measure


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 255))
@settings(max_examples=100, deadline=None)
def test_levels_are_counted_exactly_whatever_the_size(width, height, brightest):
    random = np.random.default_rng(width)
    signal, dna = random.integers(0, brightest + 1, (2, height, width), np.uint8)
    found = measure(signal, dna)
    ordered = np.sort(dna, axis=None)
    low, high = (ordered[int(np.ceil(share * dna.size)) - 1] for share in (0.5, 0.995))
    assert found.contrast == int(high) - int(low)
    assert found.means == pytest.approx((signal.mean(), dna.mean()), rel=1e-12)
    assert found.saturated == max((signal == 255).mean(), (dna == 255).mean())
