"""Differences between methods: what they say holds in simulations, and agrees with SciPy."""

import itertools

import numpy as np
import pytest
from scipy import stats

from jaxgear.evaluation.comparison import difference, probability_best

MANY = 1500  # simulated studies: three standard errors of a share of 0.05 are 0.017


def studies(seeds, images=None):
    """Differences between two equal variants: normal, or of accuracies on so many images."""
    rng = np.random.default_rng(seeds)
    for _ in range(MANY):
        if images is None:
            yield rng.normal(0, 0.01, seeds).tolist()
        else:
            right = rng.binomial(images, 0.95, (2, seeds))
            yield ((right[0] - right[1]) / images).tolist()


@pytest.mark.parametrize(("seeds", "images"), [(2, None), (5, None), (2, 90), (3, 90), (5, 230)])
def test_equal_variants_are_called_different_in_five_percent_of_studies(seeds, images):
    called = np.mean([difference(values).decided for values in studies(seeds, images)])
    assert called <= 0.05 + 0.017


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_the_interval_covers_the_true_difference_as_often_as_it_says(seeds):
    found = [difference([0.02 + value for value in values]) for values in studies(seeds)]
    covered = np.mean([one.low <= 0.02 <= one.high for one in found])
    assert covered == pytest.approx(0.95, abs=0.017)


def test_the_best_of_many_equal_variants_is_not_called_better():
    """Chosen as the best after the fact, it is compared with all others."""
    rng = np.random.default_rng(0)
    variants, called = 6, 0
    pairs = variants * (variants - 1) // 2
    for _ in range(MANY // 5):
        values = rng.normal(0.9, 0.01, (variants, 5))
        best = values.mean(1).argmax()
        differences = np.delete(values[best] - values, best, 0)
        called += any(difference(row.tolist(), pairs).decided for row in differences)
    assert called / (MANY // 5) <= 0.05 + 0.038  # three standard errors


def test_a_difference_agrees_with_scipy():
    values = [0.3, 0.1, 0.25, -0.05]
    found, test = difference(values), stats.ttest_1samp(values, 0)
    assert found.p_value == pytest.approx(test.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval()))
    assert difference(values, 4).p_value == pytest.approx(4 * test.pvalue)


def test_the_seeds_that_are_said_to_decide_are_the_fewest():
    """Seeds are added that keep mean and spread."""
    found = difference([0.01, 0.05, -0.02, 0.03])
    assert not found.decided
    for n in itertools.count(5):
        wide = stats.t.isf(0.025, n - 1) * found.std / np.sqrt(n)
        if wide < found.mean:
            break
    assert found.more_seeds == n - 4
    assert f"about {n - 4} more seeds" in found.verdict()


def test_equal_differences_need_six_seeds():
    """There is no spread for a t-test, so the sign test decides: 2 / 2**n."""
    assert difference([0.1] * 5).more_seeds == 1
    assert difference([0.1] * 6).decided
    assert difference([0.0] * 6).verdict() == "no difference seen"
    assert difference([0.1]).verdict() == "one seed says nothing"
    assert difference([]) is None


def test_the_probability_of_the_best():
    values = np.array([[0.9, 0.8, 0.9, 0.8], [0.8, 0.9, 0.8, 0.9], [0.1, 0.1, 0.1, 0.1]])
    found = probability_best(values)
    assert found == pytest.approx([0.5, 0.5, 0], abs=0.02)
    assert found.sum() == pytest.approx(1)
    # Of two seeds, the bootstrap draws the one that B wins twice in a quarter of the cases.
    assert probability_best(np.array([[0.9, 0.5], [0.5, 0.6]])) == pytest.approx(
        [3 / 4, 1 / 4], abs=0.02
    )
