"""Scores and thresholds, against scikit-learn and by their definitions."""

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.metrics import roc_auc_score

from scripts import not_gear


def test_auroc_is_scikit_learns():
    rng = np.random.default_rng(0)
    gear, other = rng.integers(0, 9, 40) / 3.0, rng.integers(-4, 6, 30) / 3.0  # with ties
    wanted = roc_auc_score([1] * 40 + [0] * 30, np.concatenate([gear, other]))
    assert not_gear.auroc(gear, other) == pytest.approx(wanted)


@pytest.mark.parametrize("n", [1, 2, 19, 20, 21, 100, 333])
def test_threshold_accepts_the_share_and_no_larger_one_does(n):
    scores = np.random.default_rng(n).normal(size=n)
    chosen = not_gear.threshold(scores, 0.95)
    assert (scores >= chosen).mean() >= 0.95
    assert (scores > chosen).mean() < 0.95 or n == 1


def test_scores_of_logits():
    logits = np.array([[1000.0, 0.0], [0.0, 0.0]], np.float32)
    np.testing.assert_allclose(not_gear.energy(logits), logsumexp(logits, axis=1))
    np.testing.assert_allclose(not_gear.largest_less_mean(logits), [500, 0])
    np.testing.assert_allclose(not_gear.mean_logit(logits), [500, 0])
    np.testing.assert_allclose(not_gear.confidence(logits), [0, -np.log(2)])


def test_distances_tell_near_from_far():
    rng = np.random.default_rng(1)
    known = np.concatenate([rng.normal(size=(50, 8)) + 6, rng.normal(size=(50, 8)) - 6])
    labels = np.repeat([0, 1], 50)
    near, far = rng.normal(size=(20, 8)) + 6, rng.normal(size=(20, 8)) * [12, *[1] * 7]
    for score in (not_gear.mahalanobis(near, known, labels), not_gear.nearest(near, known)):
        assert score.shape == (20,)
    assert (
        not_gear.auroc(
            not_gear.mahalanobis(near, known, labels), not_gear.mahalanobis(far, known, labels)
        )
        > 0.95
    )
    assert not_gear.auroc(not_gear.nearest(near, known), not_gear.nearest(far, known)) > 0.9
