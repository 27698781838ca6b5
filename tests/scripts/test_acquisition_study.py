"""The study of strategies: splits by photograph, each strategy on made pools, and its figures."""

import numpy as np
import pytest

from jaxgear.evaluation.acquisition.ranking import rank
from scripts import acquisition
from scripts.acquisition import Labelled, Trial
from scripts.studies import acquisition as table
from scripts.studies import strategies
from scripts.studies.acquisition import Point
from scripts.studies.strategies import STRATEGIES, Pool

NAMES = [f"{'ab'[n % 2]}/img_{n // 3}_{n}.jpg" for n in range(40)] + ["a/img_1_x_5.jpg"]


def test_no_photograph_is_in_both_halves():
    for seed in range(10):
        first, second = acquisition.halves_by_photograph(NAMES, seed)
        assert sorted([*first, *second]) == list(range(len(NAMES)))
        of = [{acquisition.photograph_of(NAMES[row]) for row in half} for half in (first, second)]
        assert not of[0] & of[1]
        assert abs(len(first) - len(second)) <= 3
    again = acquisition.halves_by_photograph(NAMES, 9)
    np.testing.assert_array_equal(again[0], first)
    assert not np.array_equal(acquisition.halves_by_photograph(NAMES, 8)[0], first)
    assert acquisition.photograph_of("gloves/img_216_57.jpg") == "img_216"


def blobs(seed, count):
    """Points around three centres, of length 1, with their centres."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    x = np.eye(6)[labels] + 0.25 * rng.normal(size=(count, 6))
    return Labelled((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), labels)


def pool_of(seed, count=40):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(3), count)
    return Pool(blobs(seed, count).x, probs, blobs(seed + 1, 5).x, blobs(seed + 2, 30).x)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("count", [1, 7, 40, 60])
def test_each_strategy_gives_as_many_rows_as_asked_each_once(name, count):
    pool = pool_of(3)
    picks = STRATEGIES[name](pool, count, np.random.default_rng(0))
    assert len(picks) == min(count, 40)
    assert len(set(picks.tolist())) == len(picks)


def test_strategies_where_the_answer_is_known():
    pool = pool_of(4)
    rng = np.random.default_rng(0)
    sure = np.sort(pool.probs, axis=1)
    assert STRATEGIES["margin"](pool, 1, rng)[0] == (sure[:, -1] - sure[:, -2]).argmin()
    known = np.concatenate([pool.trained, pool.labelled])
    apart = np.linalg.norm(pool.features[:, None] - known, axis=2).min(axis=1)
    assert STRATEGIES["k-centre"](pool, 1, rng)[0] == apart.argmax()
    assert STRATEGIES["entropy"](pool, 1, rng)[0] == strategies.entropies(pool.probs).argmax()


def test_distances_of_gradients_are_those_of_the_outer_products():
    pool = pool_of(5)
    own = strategies.Gradients(pool)
    residual = pool.probs - np.eye(3)[pool.probs.argmax(axis=1)]
    whole = (pool.features[:, :, None] * residual[:, None]).reshape(40, -1)
    expected = np.square(whole - whole[7]).sum(axis=1)
    np.testing.assert_allclose(own.apart(7), expected, atol=1e-6)


def test_the_strategy_of_the_product_is_among_them():
    pool = pool_of(6)
    picks = STRATEGIES["margin x spread"](pool, 12, np.random.default_rng(0))
    np.testing.assert_array_equal(picks, rank(pool.features, pool.probs, 12)[0])


def test_rounds_end_with_the_labels_of_the_pool():
    """Two classes at first: the third is learned from the pool alone."""
    both = blobs(10, 60)
    base = both.rows(np.flatnonzero(both.y < 2))
    trial = Trial(base, blobs(11, 30), blobs(12, 200))
    scale = np.float32(6**0.5)
    head = acquisition.fit(base.x * scale, base.y, 3)
    found = list(acquisition.rounds(trial, head, STRATEGIES["margin"], 8, 20, 0))
    assert [row[0] for row in found] == [0, 8, 16, 20]
    assert found[0][1] < 0.75 < 0.85 < found[-1][1]


def test_figures_in_closed_form():
    assert table.needed({0: 0.5, 10: 0.7, 20: 0.8}, 0.6) == 5
    assert table.needed({0: 0.5, 10: 0.7}, 0.5) == 0
    assert table.needed({0: 0.5}, 0.6) == float("inf")
    points = [
        Point("wild", who, seed, labels, value + 0.1 * seed, value)
        for who, values in (("random", (0.5, 0.6)), ("margin", (0.5, 0.7)))
        for seed in (0, 1)
        for labels, value in zip((0, 8), values, strict=True)
    ]
    assert table.mean_curve(points, "wild", "margin", "accuracy") == pytest.approx(
        {0: 0.55, 8: 0.75}
    )
    np.testing.assert_allclose(table.gains(points, "wild", "margin", "recall"), [0.1, 0.1])
    text = list(table.lines(points))
    assert text[0] == "wild: 8 labels; 0.5500 without"
    assert text[-1].endswith(" 0.50  0.50")
    assert table.draw(points).startswith(b"\x89PNG")
