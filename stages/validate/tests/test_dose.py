"""EC50s that are right, and series that have none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from validate.dose import fit, logistic

DOSES = np.repeat([0, 1, 2, 4, 8, 16, 32, 64, 128, 256.0], 4)


def noisy(response, sd=0.02, seed=0):
    return response + np.random.default_rng(seed).normal(0, sd, len(response))


@settings(max_examples=40, deadline=None)
@given(
    ec50=st.floats(3, 80),
    hill=st.floats(0.9, 4),
    ends=st.sampled_from([(0.05, 0.95), (0.95, 0.05), (-8, 7), (0, 100)]),
    seed=st.integers(0, 1000),
)
def test_a_known_curve_is_found_again(ec50, hill, ends, seed):
    reach = abs(ends[1] - ends[0])
    found = fit(DOSES, noisy(logistic(DOSES, *ends, ec50, hill), 0.005 * reach, seed))
    assert found.flag == ""
    assert found.ec50 == pytest.approx(ec50, rel=0.15)
    assert found.hill == pytest.approx(hill, rel=0.25)
    assert found.low < found.ec50 < found.high


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    truth = logistic(DOSES, 0.1, 0.9, 12, 1.5)
    fits = [fit(DOSES, noisy(truth, 0.05, seed)) for seed in range(60)]
    assert sum(f.low <= 12 <= f.high for f in fits) >= 52


def test_the_ec50_scales_with_the_unit():
    truth = noisy(logistic(DOSES, 0.1, 0.9, 12, 1.5))
    assert fit(DOSES * 1e-9, truth).ec50 == pytest.approx(fit(DOSES, truth).ec50 * 1e-9, rel=1e-3)


@pytest.mark.parametrize("sd", [0, 1e-9, 0.005, 0.05])
@pytest.mark.parametrize("each", [1, 4])
def test_a_step_between_two_doses_says_no_more_than_between_which(sd, each):
    doses = DOSES[:: 4 // each]
    found = fit(doses, noisy(np.where(doses > 10, 0.95, 0.05), sd))
    assert found.flag == ""
    assert 8 <= found.ec50 <= 16
    assert found.low <= 8.001
    assert found.high >= 15.999


def test_one_dose_in_between_tells_the_ec50():
    found = fit(DOSES, noisy(np.where(DOSES > 10, 0.95, 0.05) - 0.4 * (DOSES == 16), 0.01))
    assert found.flag == ""
    assert 8 < found.low < found.ec50 < found.high < 32


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (np.full(40, 0.3), "the same at every dose"),
        (noisy(np.full(40, 0.3), 0.1), "does not change with the dose"),
        (noisy(np.exp(-((np.log(DOSES + 0.1) - 2.5) ** 2)), 0.1), "variance"),
        (noisy(logistic(DOSES, 0, 1, 3000, 1.0), 0.01), "outside|above"),
        (noisy(logistic(DOSES, 0, 1, 0.05, 1.0) * (DOSES > 0), 0.01), "outside|below"),
        (np.where(np.arange(40) == 7, np.nan, 0.5), "finite"),
    ],
)
def test_what_a_logistic_cannot_say_is_flagged_and_has_no_number(response, reason):
    import re

    found = fit(DOSES, response)
    assert re.search(reason, found.flag), found
    assert {found.ec50, found.low, found.high, found.hill, found.bottom, found.top} == {None}


def test_too_few_doses_are_flagged():
    found = fit([0, 1, 2, 4, 0, 1, 2, 4], [0, 0.1, 0.9, 1, 0, 0.1, 0.9, 1])
    assert "too few" in found.flag
    assert found.ec50 is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 1)), max_size=40))
def test_any_series_ends_in_a_number_within_its_doses_or_a_flag(items):
    doses = [0.0 if i == 0 else 2.0**i for i, _ in items]
    found = fit(doses, [y for _, y in items])
    assert (found.ec50 is None) == bool(found.flag)
    if found.ec50 is not None:
        assert min(d for d in doses if d) <= found.low <= found.ec50 <= found.high <= max(doses)
