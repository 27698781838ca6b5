"""Numbers agree with scikit-learn and statsmodels' formulas."""

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from jaxgear.evaluation import metrics


@given(st.integers(2, 6), st.integers(1, 60), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_tables_agree_with_sklearn(classes, n, seed):
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(0, classes, (2, n))
    table = metrics.confusion_matrix(labels, predicted, classes)
    np.testing.assert_array_equal(
        table, sklearn.metrics.confusion_matrix(labels, predicted, labels=range(classes))
    )
    expected = sklearn.metrics.precision_recall_fscore_support(
        labels, predicted, labels=range(classes), zero_division=0
    )
    rows = metrics.per_class(table)
    for name, values in zip(("precision", "recall", "f1", "n"), expected, strict=True):
        np.testing.assert_allclose([row[name] for row in rows], values)
    present = sorted(set(labels))
    macro = sklearn.metrics.f1_score(
        labels, predicted, labels=present, average="macro", zero_division=0
    )
    assert metrics.macro_f1(table) == pytest.approx(macro)


def test_summary_agrees_with_sklearn():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(40, 3)).astype(np.float32), rng.integers(0, 3, 40)
    found = metrics.summarise(logits, labels, ["a", "b", "c"], 1.0)
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert found["loss"] == pytest.approx(sklearn.metrics.log_loss(labels, probs), rel=1e-6)
    assert found["accuracy"] == sklearn.metrics.accuracy_score(labels, logits.argmax(axis=1))
    assert found["n"] == np.sum(found["confusion"]) == 40
    assert list(found["per_class"]) == ["a", "b", "c"]


def test_huge_logits_do_not_overflow():
    logits = np.array([[1e4, 0.0], [0.0, 1e4]], np.float32)
    assert metrics.summarise(logits, np.array([0, 1]), ["a", "b"], 1.0)["loss"] == 0


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # statsmodels.stats.proportion.proportion_confint(right, n, method="wilson")
    [(0, 10, 0.0, 0.277533), (9, 10, 0.595850, 0.982124), (10, 10, 0.722467, 1.0)],
)
def test_wilson_interval(right, n, low, high):
    assert metrics.wilson_interval(right, n) == pytest.approx((low, high), abs=1e-5)


@pytest.mark.parametrize("n", [1, 2, 5, 10, 30, 79, 255, 1000])
def test_wilson_interval_covers_what_it_says(n):
    """Exact, by sums over the binomial distribution: for each true share p, the probability that
    the interval has p in it. Over all p it is 0.95 on average; it is least where p is within a
    few hundredths of 0 or 1 (Brown, Cai and DasGupta 2001, section 3), and 0.92 where five
    pictures or more are expected on both splits.
    """
    counts = np.arange(n + 1)
    low, high = np.array([metrics.wilson_interval(int(k), n) for k in counts]).T
    shares = np.linspace(0, 1, 4003)[1:-1, None]
    inside = (low <= shares) & (shares <= high)
    coverage = (binom.pmf(counts, n, shares) * inside).sum(axis=1)
    assert 0.95 <= coverage.mean() <= 0.958
    assert coverage.min() > (0.83 if n >= 5 else 0.79)
    usual = (np.minimum(shares, 1 - shares) * n >= 5)[:, 0]
    assert (coverage[usual] > 0.92).all()
    assert not np.isnan([low, high]).any()


def test_nothing_is_known_without_pictures():
    assert metrics.wilson_interval(0, 0) == (0.0, 1.0)
