"""Robust normalisation: what it must not depend on, and worked examples."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from score.normalisation import FEWEST_CONTROLS, FEWEST_SAMPLES, mad, median_polish, normalise

ROWS, COLUMNS = 6, 8
PLACES = [(r, c) for r in range(ROWS) for c in range(COLUMNS)]
ROLES = ["negative" if c == 0 else "positive" if c == 7 else "sample" for _, c in PLACES]
METHODS = st.sampled_from(["controls", "mad", "b-score"])
checked = settings(
    max_examples=60, deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)  # fmt: skip
plates = st.lists(
    st.one_of(st.integers(-1000, 1000).map(float), st.just(math.nan)),
    min_size=len(PLACES), max_size=len(PLACES),
).map(np.array)  # fmt: skip


@checked
@given(plates, METHODS, st.floats(0.01, 100), st.integers(-500, 500))
def test_another_zero_and_another_unit_of_the_score_change_nothing(scores, method, scale, shift):
    before = normalise(method, scores, ROLES, PLACES)
    after = normalise(method, scores * scale + shift, ROLES, PLACES)
    assume(not before.problem and not after.problem)
    assert after.reference == before.reference
    np.testing.assert_allclose(after.values, before.values, rtol=1e-6, atol=1e-5)


@checked
@given(plates, st.lists(st.integers(-500, 500), min_size=ROWS, max_size=ROWS))
def test_a_b_score_of_a_sample_does_not_see_what_is_added_to_a_row(scores, effects):
    before = normalise("b-score", scores, ROLES, PLACES)
    added = scores + np.array([effects[row] for row, _ in PLACES])
    after = normalise("b-score", added, ROLES, PLACES)
    assume(not before.problem and not after.problem)
    samples = np.array(ROLES) == "sample"  # a row without samples has no effect to be told
    np.testing.assert_allclose(after.values[samples], before.values[samples], rtol=1e-6, atol=1e-5)


@checked
@given(plates, METHODS)
def test_reference_wells_have_the_median_0_and_the_mad_1(scores, method):
    found = normalise(method, scores, ROLES, PLACES)
    assume(not found.problem)
    kind = "negative" if method == "controls" else "sample"
    own = np.array([v for v, r in zip(found.values, ROLES, strict=True)
                    if r == kind and not math.isnan(v)])  # fmt: skip
    assert len(own) == found.reference
    assert mad(own) == pytest.approx(1)
    if method != "b-score":
        assert float(np.median(own)) == pytest.approx(0, abs=1e-9)


@checked
@given(plates, METHODS)
def test_a_well_has_a_normalised_score_if_and_only_if_it_has_a_score(scores, method):
    found = normalise(method, scores, ROLES, PLACES)
    if found.problem:
        assert np.isnan(found.values).all()
    else:
        assert (np.isnan(found.values) == np.isnan(scores)).all()


def test_a_table_of_row_and_column_effects_is_polished_to_nothing():
    rows, columns = np.array([0.0, 3.0, -2.0, 7.0, 1.0]), np.array([0.0, 10.0, -4.0])
    table = 100 + rows[:, None] + columns[None, :]
    table[2, 1] = np.nan
    whole, by_row, by_column = median_polish(table)
    rest = table - whole - by_row[:, None] - by_column[None, :]
    np.testing.assert_allclose(rest[~np.isnan(rest)], 0, atol=1e-9)
    np.testing.assert_allclose(by_row - by_row[0], rows, atol=1e-9)
    assert whole == pytest.approx(101)  # 100, and the median of the rows, which is 1


def test_the_example_of_r_medpolish():
    """R's help page of medpolish: deaths from sport parachuting, after ABC of EDA, page 224."""
    deaths = np.array([[14, 15, 14], [7, 4, 7], [8, 2, 10], [15, 9, 10], [0, 2, 0]], float)
    whole, rows, columns = median_polish(deaths)
    assert whole == 8
    assert rows.tolist() == [6, -1, 0, 2, -8]
    assert columns.tolist() == [0, -1, 0]


def test_the_mad_of_many_normal_values_is_their_sd():
    random = np.random.default_rng(0)
    assert mad(random.normal(5, 3, 200_000)) == pytest.approx(3, rel=0.01)


@pytest.mark.parametrize("count", [3, 4, 5, 8, 9, 12, 20])
def test_the_mad_of_few_normal_values_is_right_on_average(count):
    random = np.random.default_rng(count)
    found = np.mean([mad(v) for v in random.normal(size=(20_000, count))])
    assert found == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("method", "fewest"), [("controls", FEWEST_CONTROLS), ("mad", FEWEST_SAMPLES)]
)
def test_too_few_reference_wells_give_a_reason_and_no_number(method, fewest):
    kind = "negative" if method == "controls" else "sample"
    roles = [kind] * (fewest - 1) + ["positive"] * 3
    found = normalise(
        method, np.arange(float(len(roles))), roles, [(0, i) for i in range(30)][: len(roles)]
    )
    assert f"needs {fewest}" in found.problem
    assert np.isnan(found.values).all()


def test_references_that_are_all_alike_give_a_reason_and_no_infinity():
    scores = np.array([-16.6] * 8 + [3.0])
    found = normalise("controls", scores, ["negative"] * 8 + ["sample"], [(0, i) for i in range(9)])
    assert "no spread" in found.problem
    assert np.isnan(found.values).all()
