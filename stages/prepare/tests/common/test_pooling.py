"""Claims about a picture's probability."""

import numpy as np
import pytest
from common.pooling import log_odds, pooled
from hypothesis import given
from hypothesis import strategies as st

LOGITS = st.lists(st.floats(-12, 12), min_size=1, max_size=12).map(np.array)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@given(LOGITS)
def test_log_odds_undo_the_sigmoid(logits):
    assert log_odds(sigmoid(logits)) == pytest.approx(logits, abs=1e-6)


@given(LOGITS)
def test_a_linear_head_answers_for_a_picture_as_for_the_mean_of_its_tiles(features):
    assert pooled(sigmoid(features)) == pytest.approx(sigmoid(features.mean()), abs=1e-9)


@given(LOGITS, st.integers(2, 5))
def test_tiles_that_say_the_same_are_no_more_evidence_than_one(logits, times):
    tiles = sigmoid(logits)
    assert pooled(np.repeat(tiles, times)) == pytest.approx(pooled(tiles), abs=1e-9)


@given(LOGITS)
def test_both_classes_are_treated_alike(logits):
    assert pooled(sigmoid(-logits)) == pytest.approx(1 - pooled(sigmoid(logits)), abs=1e-6)


def test_answers_of_0_and_1_stay_probabilities():
    tiles = np.array([[0, 0], [1, 1], [0, 1]], np.float32)
    assert pooled(tiles) == pytest.approx([0, 1, 0.5], abs=1e-7)
