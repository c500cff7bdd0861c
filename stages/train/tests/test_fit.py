"""The head: the minimum that Newton's method reaches is the minimum."""

from __future__ import annotations

import numpy as np
import pytest
from common.errors import StageError
from hypothesis import given, settings
from hypothesis import strategies as st
from train import fit


def objective(head: fit.Head, features: np.ndarray, labels: np.ndarray) -> float:
    width = features.std(axis=0)
    kernel = head.kernel * (width + 1e-3 * np.median(width) + 1e-9)
    return head.loss(features, labels) + fit.L2 * float(kernel @ kernel)


@given(st.integers(0, 2**32 - 1), st.sampled_from([(30, 4), (12, 50), (64, 64)]))
@settings(max_examples=30, deadline=None)
def test_no_step_from_newtons_head_lowers_the_loss(seed: int, shape: tuple[int, int]) -> None:
    random = np.random.default_rng(seed)
    features = random.normal(3, 2, shape).astype(np.float32)
    labels = np.arange(shape[0]) % 2
    features[:, 0] += labels * random.uniform(0, 10)
    head = fit.fit_newton(features, labels)
    least = objective(head, features, labels)
    for _ in range(20):
        step = random.normal(0, 1e-2, shape[1]).astype(np.float32)
        other = fit.Head(head.kernel + step, head.bias + random.normal(0, 1e-2))
        assert objective(other, features, labels) >= least - 1e-6


def test_newton_and_sgd_agree_on_what_they_call_positive() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(40) % 2
    features = random.normal(0, 1, (40, 20)).astype(np.float32) + labels[:, None] * 2
    validation = np.arange(40) % 4 < 2
    one = fit.fit_newton(features, labels)
    other = fit.fit_sgd(
        [features, features + 0.1], labels, validation, epochs=4, batch_size=8,
        learning_rate=0.1, seed=0, report=lambda _: None,
    )  # fmt: skip
    for head in (one, other):
        assert ((features @ head.kernel + head.bias > 0) == labels).all()


def test_a_feature_that_never_changes_has_no_say() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(20) % 2
    features = random.normal(0, 1, (20, 3)).astype(np.float32) + labels[:, None]
    features[:, 1] = 7.0
    head = fit.fit_newton(features, labels)
    assert abs(head.kernel[1]) < 1e-3
    assert np.isfinite(head.kernel).all()


def test_features_that_are_not_numbers_are_an_error() -> None:
    features = np.ones((4, 2), dtype=np.float32)
    features[1, 1] = np.nan
    with pytest.raises(StageError, match="features are not finite"):
        fit.fit_newton(features, np.array([0, 1, 0, 1]))
