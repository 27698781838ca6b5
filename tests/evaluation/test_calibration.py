"""Temperatures agree with a general optimiser, tables with scikit-learn's."""

import numpy as np
import pytest
import scipy.optimize
import sklearn.calibration
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgear.evaluation import calibration


def drawn(n, classes, scale, seed=0):
    """Logits, and labels that come up as often as softmax(logits) says; logits then scaled."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(n, classes))
    labels = (calibration.log_softmax(logits) + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return (logits * scale).astype(np.float32), labels


@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
def test_finds_the_temperature_that_was_put_in(scale):
    """1 where probabilities were right already; more where the network was too sure."""
    logits, labels = drawn(20_000, 5, scale)
    found = calibration.fit_temperature(logits, labels)
    assert found == pytest.approx(scale, rel=0.03)
    before = calibration.expected_calibration_error(np.exp(calibration.log_softmax(logits)), labels)
    probs = np.exp(calibration.log_softmax(logits, found))
    after = calibration.expected_calibration_error(probs, labels)
    assert after < 0.015
    assert scale == 1.0 or before > 5 * after


@given(st.integers(2, 8), st.integers(2, 300), st.floats(0.2, 5), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_no_other_temperature_is_better(classes, n, scale, seed):
    logits, labels = drawn(n, classes, scale, seed)
    targets = np.full((n, classes), 1 / (n + 2) / classes)
    targets[np.arange(n), labels] += 1 - 1 / (n + 2)

    def loss(log_temperature):
        return -(targets * calibration.log_softmax(logits, np.exp(log_temperature))).sum()

    best = scipy.optimize.minimize_scalar(loss, bounds=(-4.6, 4.6), method="bounded")
    found = calibration.fit_temperature(logits, labels)
    assert loss(np.log(found)) <= best.fun + 1e-6 * n


def test_many_pictures_make_it_the_plain_likelihood():
    logits, labels = drawn(20_000, 4, 3.0)

    def loss(t):
        return sklearn.metrics.log_loss(labels, np.exp(calibration.log_softmax(logits, t)))

    best = scipy.optimize.minimize_scalar(loss, bounds=(0.1, 20), method="bounded")
    assert calibration.fit_temperature(logits, labels) == pytest.approx(best.x, rel=0.01)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        ([[9.0, 0.0, 1.0]], [0]),  # one picture, right
        ([[9.0, 0.0, 1.0]], [1]),  # one picture, wrong
        ([[9.0, 0.0], [0.0, 7.0]] * 50, [0, 1] * 50),  # all right
        ([[9.0, 0.0], [0.0, 7.0]] * 50, [1, 0] * 50),  # all wrong
        ([[2.0, 2.0]] * 3, [0, 1, 1]),  # knows nothing
        ([[2.0]] * 3, [0, 0, 0]),  # one class
        ([[1e4, -1e4]] * 3, [0, 0, 1]),
        ([[1e-8, 0.0]] * 3, [0, 0, 1]),
    ],
)
def test_strange_tables_have_a_finite_temperature(logits, labels):
    found = calibration.fit_temperature(np.array(logits), np.array(labels))
    assert calibration.COLDEST <= found <= calibration.HOTTEST


def test_all_right_is_not_taken_for_certainty():
    """After 98 pictures without a mistake, one in a hundred is still to be expected."""
    logits, labels = np.array([[4.0, 0.0]] * 98), np.zeros(98, int)
    found = calibration.fit_temperature(logits, labels)
    assert np.exp(calibration.log_softmax(logits, found))[0, 0] == pytest.approx(0.995, abs=1e-3)


@given(st.integers(1, 200), st.integers(2, 5), st.integers(1, 20), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_reliability_agrees_with_sklearn(n, classes, bins, seed):
    logits, labels = drawn(n, classes, 1.0, seed)
    probs = np.exp(calibration.log_softmax(logits))
    table = calibration.reliability(probs, labels, bins)
    right, confidence = probs.argmax(axis=1) == labels, probs.max(axis=1)
    accuracy, mean = sklearn.calibration.calibration_curve(right, confidence, n_bins=bins)
    np.testing.assert_allclose([row.accuracy for row in table], accuracy)
    np.testing.assert_allclose([row.confidence for row in table], mean)
    assert sum(row.n for row in table) == n
    assert all(row.low < row.confidence <= row.high for row in table)
    gaps = [row.n / n * abs(row.accuracy - row.confidence) for row in table]
    found = calibration.expected_calibration_error(probs, labels, bins)
    assert found == pytest.approx(sum(gaps))


def test_error_of_a_table_that_can_be_counted_by_hand():
    probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [1.0, 0.0]])
    labels = np.array([0, 1, 1, 0])
    # (0.8, 0.9]: sure 0.9, right 0.5; (0.5, 0.6]: 0.6 and 1; (0.9, 1]: 1 and 1.
    assert calibration.expected_calibration_error(probs, labels, bins=10) == pytest.approx(
        2 / 4 * 0.4 + 1 / 4 * 0.4
    )
    edges = [(row.low, row.high, row.n) for row in calibration.reliability(probs, labels, bins=10)]
    assert edges == [(0.5, 0.6, 1), (0.8, 0.9, 2), (0.9, 1.0, 1)]
