"""The measures against their definitions, worked by hand or by brute force."""

import numpy as np
import pytest
from common.assay import z_factor
from hypothesis import assume, given
from hypothesis import strategies as st
from validate import measures

judged = st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=30).map(
    lambda items: (
        np.array([float(label) for label, _ in items]),
        np.array([score / 8 for _, score in items]),
    )
)


def test_confusion_counts_true_negatives_first():
    labels, calls = np.array([0, 0, 0, 1, 1.0]), np.array([0, 0, 1, 1, 0.0])
    assert measures.confusion(labels, calls) == [[2, 1], [1, 1]]


@given(judged)
def test_every_item_is_counted_once(items):
    labels, scores = items
    assert np.sum(measures.confusion(labels, (scores >= 0.5).astype(float))) == len(labels)


def test_weighted_f1_by_hand():
    # negative: 2*6 / (8 + 7) = 0.8, positive: 2*3 / (4 + 5) = 2/3, weights 8/12 and 4/12
    counts = np.array([[6, 2], [1, 3]])
    assert measures.weighted_f1(counts) == pytest.approx(0.8 * 8 / 12 + 2 / 3 * 4 / 12)
    assert measures.accuracy(counts) == pytest.approx(9 / 12)


def test_empty_places_do_not_count_as_true_negatives():
    """Seven wells in an array of 32 places, as the original had it, would reach 0.85."""
    labels, calls = np.array([1, 1, 1, 1, 0, 0, 0.0]), np.zeros(7)
    padded = np.zeros(32)
    padded[:7] = labels
    wrong = measures.weighted_f1(np.array(measures.confusion(padded, np.zeros(32))))
    right = measures.weighted_f1(np.array(measures.confusion(labels, calls)))
    assert wrong > 0.8 > 0.3 > right


@given(judged)
def test_auc_is_the_share_of_pairs_in_order(items):
    labels, scores = items
    up, down = scores[labels == 1], scores[labels == 0]
    found = measures.auc(labels, scores)
    if not len(up) or not len(down):
        assert found is None
    else:
        pairs = (up[:, None] > down) + 0.5 * (up[:, None] == down)
        assert found == pytest.approx(pairs.mean())


@given(judged)
def test_the_area_under_the_roc_curve_is_the_auc(items):
    labels, scores = items
    assume(0 < labels.sum() < len(labels))
    thresholds, recall, alarms = np.array(measures.roc(labels, scores)).T
    assert (np.diff(thresholds) < 0).all()
    assert np.isfinite(thresholds).all()
    assert (recall[0], alarms[0], recall[-1], alarms[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(recall, alarms) == pytest.approx(measures.auc(labels, scores))
    for threshold, y, x in zip(thresholds, recall, alarms, strict=True):
        assert y == pytest.approx((scores[labels == 1] >= threshold).mean())
        assert x == pytest.approx((scores[labels == 0] >= threshold).mean())


def test_calibration_by_hand():
    labels, p = np.array([0, 1, 1, 0.0]), np.array([0.1, 0.9, 0.92, 0.94])
    assert measures.brier(labels, p) == pytest.approx((0.01 + 0.01 + 0.0064 + 0.8836) / 4)
    bins = measures.reliability(labels, p)
    assert [b["count"] for b in bins] == [1, 3]
    assert measures.calibration_error(bins) == pytest.approx(0.25 * 0.1 + 0.75 * (0.92 - 2 / 3))


@given(judged)
def test_every_item_is_in_one_bin(items):
    labels, scores = items
    bins = measures.reliability(labels, scores)
    assert sum(b["count"] for b in bins) == len(labels)
    assert all(b["from"] <= b["probability"] <= b["to"] for b in bins)


def test_z_factor_by_hand():
    up, down = np.array([9.0, 10, 11]), np.array([-1.0, 0, 1])
    assert z_factor(up, down) == pytest.approx(1 - 3 * (1 + 1) / 10)
    assert z_factor(up[:1], down) is None
    assert z_factor(up, up) is None


def test_v_factor_of_two_doses_is_the_z_factor():
    up, down = np.array([9.0, 10, 12]), np.array([-1.0, 0, 1])
    assert measures.v_factor([down, up]) == pytest.approx(z_factor(up, down))
    assert measures.v_factor([down, up[:1]]) is None
    assert measures.v_factor([up, up]) is None


three_each = st.lists(
    st.lists(st.floats(-10, 10), min_size=3, max_size=6), min_size=2, max_size=4
).map(lambda groups: [np.array(group) for group in groups])


@given(three_each)
def test_the_jackknife_of_a_sum_of_means_is_its_standard_error(groups):
    """For means it is exact: the samples' variances over their sizes, added up."""

    def sum_of_means(given):
        return sum(group.mean() for group in given) - 100.0

    low, high = measures.jackknife(sum_of_means, groups)
    error = sum(group.var(ddof=1) / len(group) for group in groups) ** 0.5
    assert (high - low) / 2 == pytest.approx(1.959964 * error, abs=1e-6)
    assert (high + low) / 2 == pytest.approx(sum_of_means(groups))


def test_an_interval_ends_at_the_best_there_can_be():
    groups = [np.array([0.0, 0.01, 0.02]), np.array([1.0, 1.0, 1.3])]
    low, high = measures.jackknife(measures.v_factor, groups)
    assert low < measures.v_factor(groups) < high == 1.0


@pytest.mark.parametrize("few", [[0.0, 0.1], [0.0]])
def test_two_wells_have_no_interval(few):
    groups = [np.array([1.0, 1.1, 1.2]), np.array(few)]
    assert measures.jackknife(measures.v_factor, groups) is None
