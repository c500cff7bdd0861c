"""Intervals by bootstrap over wells."""

import numpy as np
import pytest
from validate.bootstrap import exact_interval, intervals


def wells(count=12, tiles=9, spread=1.0, between=0.0, seed=0):
    """Return labels and tiles' scores; `between` shifts all tiles of a well together."""
    random = np.random.default_rng(seed)
    labels = [i % 2 for i in range(count)]

    def tile_scores(label):
        mean = 2 * label - 1 + between * random.normal()
        return 1 / (1 + np.exp(-(mean + spread * random.normal(size=tiles))))

    return labels, [tile_scores(label) for label in labels]


def width(found, name):
    return found[name][1] - found[name][0]


def test_an_interval_holds_the_measure_and_repeats_with_its_seed():
    labels, scores = wells()
    found = intervals(labels, scores, 0.5, 1)
    right = [(s >= 0.5) == y for y, s in zip(labels, scores, strict=True)]
    low, high = found["accuracy"]
    assert 0 <= low < np.mean(right) < high <= 1
    assert found == intervals(labels, scores, 0.5, 1)
    assert found != intervals(labels, scores, 0.5, 2)


def test_tiles_of_a_well_are_drawn_together():
    """Where whole wells differ, taking tiles for independent would give too narrow an interval."""
    labels, scores = wells(between=2.0, spread=0.2)
    tiles = [np.array([s]) for well in scores for s in well]
    of_tiles = intervals([y for y in labels for _ in range(9)], tiles, 0.5, 0)
    assert width(intervals(labels, scores, 0.5, 0), "accuracy") > 2 * width(of_tiles, "accuracy")


def test_each_row_of_the_confusion_matrix_keeps_its_size():
    labels, scores = wells(tiles=1)
    bounds = np.array(intervals(labels, scores, 0.5, 0)["confusion"])
    assert bounds.shape == (2, 2, 2)
    assert (bounds[..., 0] <= bounds[..., 1]).all()
    assert bounds[:, 0, 0] + bounds[:, 1, 1] == pytest.approx(6)  # low of one is high of the other


def test_the_intervals_cover_the_truth_about_as_often_as_they_say():
    hits = 0
    for seed in range(60):
        labels, scores = wells(40, 4, 1.0, 0.5, seed)
        low, high = intervals(labels, scores, 0.5, seed)["accuracy"]
        hits += low <= 0.8146 <= high  # P(N(1, 1 + 0.25) > 0)
    assert hits >= 50


def test_the_exact_interval_of_twelve_right_of_twelve():
    """Clopper-Pearson's lower end for n of n is (0.025)^(1/n)."""
    assert exact_interval(12, 12) == pytest.approx((0.025 ** (1 / 12), 1.0))
