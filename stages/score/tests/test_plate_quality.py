"""Separation of controls, drift and the edge, against numbers worked by hand."""

import math

import numpy as np
import pytest
from common.assay import ssmd, z_factor
from score.plate_quality import drift, edge_effect, separation

PLACES = [(r, c) for r in range(8) for c in range(12)]


def test_z_prime_and_ssmd_by_hand():
    up, down = np.array([9.0, 10.0, 11.0]), np.array([-1.0, 0.0, 1.0])
    assert z_factor(up, down) == pytest.approx(1 - 3 * (1 + 1) / 10)
    assert ssmd(up, down) == pytest.approx(10 / math.sqrt(2))
    assert ssmd(down, up) == pytest.approx(-10 / math.sqrt(2))


def test_what_cannot_be_told_is_none():
    one = np.array([1.0, 1.0])
    assert ssmd(one, one) is None
    assert ssmd(one[:1], one) is None


def test_unused_wells_take_no_part():
    roles = ["positive"] * 4 + ["negative"] * 3
    scores = np.array([9, 10, 11, np.nan, -1, 0, 1.0])
    found = separation({"log_odds": scores}, roles)["log_odds"]
    assert found["z_prime"] == pytest.approx(0.4)


def test_a_trend_of_the_negative_controls_is_seen_whatever_order_they_come_in():
    places = [(r, 0) for r in (5, 2, 7, 0, 3, 1, 6, 4)]
    scores = np.array([r * 0.5 for r, _ in places])
    found = drift(scores, ["negative"] * 8, places)
    assert found.statistic == pytest.approx(1)
    assert found.p == pytest.approx(2 / math.factorial(8))  # one order of all, at either end


def test_drift_needs_five_wells_that_differ():
    assert drift(np.zeros(8), ["negative"] * 8, PLACES[:8]).p is None
    assert drift(np.arange(4.0), ["negative"] * 4, PLACES[:4]).p is None
    assert drift(np.arange(8.0), ["sample"] * 8, PLACES[:8]).wells == 0


def edge(values, groups):
    return edge_effect(np.asarray(values, float), groups, PLACES, (8, 12))


def test_an_edge_that_differs_is_found():
    random = np.random.default_rng(0)
    at_edge = np.array([r in (0, 7) or c in (0, 11) for r, c in PLACES])
    found = edge(random.normal(size=96) + 3 * at_edge, ["a"] * 96)
    assert found.statistic > 0.8
    assert found.p < 1e-6
    assert found.wells == 96


def test_a_treatment_that_lies_at_the_edge_is_no_edge_effect():
    random = np.random.default_rng(0)
    groups = [c if c in (0, 11) else "inside" for _, c in PLACES]
    values = random.normal(size=96) + [50 if c == 0 else 0 for _, c in PLACES]
    found = edge(values, groups)
    assert found.p > 0.01


def test_an_edge_of_one_side_only_cannot_be_told():
    found = edge(np.arange(96), [f"compound {i}" for i in range(96)])
    assert (found.statistic, found.p) == (None, None)
