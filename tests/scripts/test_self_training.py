"""The comparison of ways to learn without labels, on points whose answer is known."""

import numpy as np
import pytest

from scripts import self_training
from scripts.acquisition import Labelled
from scripts.self_training import Trainer, balanced, cycled, lines


def blobs(seed, count, shift=0.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    x = 3 * np.eye(8)[labels] + shift * np.eye(8)[0] + rng.normal(size=(count, 8))
    return Labelled((20 * x).astype(np.float32), labels)  # so that few steps are enough


@pytest.fixture(scope="module")
def heads():
    base, pool = blobs(0, 96), blobs(1, 40, shift=2.0)
    trainer = Trainer(base, pool, 3, seed=0)
    return trainer, dict(trainer.unlabelled())


def test_each_way_is_another_head_and_nothing_is_learned_from_weights_of_0(heads):
    trainer, found = heads
    assert len(found) == 13
    kernels = [np.asarray(head["kernel"]) for head in found.values()]
    assert all(np.isfinite(kernel).all() for kernel in kernels)
    assert len({kernel.tobytes() for kernel in kernels}) >= 10  # a threshold may change nothing
    probs = self_training.probabilities(found["no pool"], trainer.pool.x)
    none = trainer(balanced(probs, 0.0))
    np.testing.assert_array_equal(none["kernel"], found["no pool"]["kernel"])
    never = trainer(threshold=1.1)
    np.testing.assert_allclose(never["kernel"], found["no pool"]["kernel"], atol=1e-6)


def test_all_names_are_what_a_threshold_of_0_uses(heads):
    trainer, found = heads
    probs = self_training.probabilities(found["no pool"], trainer.pool.x)
    everything = balanced(probs, 1.0)
    assert everything.weights.all()
    np.testing.assert_array_equal(everything.targets.argmax(axis=1), probs.argmax(axis=1))
    half = balanced(probs, 0.5)
    for label in range(3):
        named = probs.argmax(axis=1) == label
        assert half.weights[named].sum() == np.ceil(named.sum() / 2)


def test_labels_of_the_pool_teach_its_domain(heads):
    trainer, found = heads
    test = blobs(2, 400, shift=2.0)
    right = {
        name: (self_training.probabilities(found[name], test.x).argmax(axis=1) == test.y).mean()
        for name in ("no pool", "true labels")
    }
    assert right["true labels"] > right["no pool"] + 0.02
    shares = dict(trainer.shares())
    assert list(shares) == [
        "no pool",
        "as often as they are",
        "share 0.2",
        "share 0.33",
        "share 0.5",
    ]


def test_cycles_show_each_example_before_one_comes_again():
    rows = cycled(np.random.default_rng(0), 5, (3, 4)).ravel()
    assert sorted(rows[:5]) == sorted(rows[5:10]) == list(range(5))
    assert len(rows) == 12


def test_gains_are_paired_by_seed():
    table = list(lines("48", {"no pool": [0.5, 0.6], "way": [0.6, 0.8]}))
    assert table[2].split() == ["way", "0.7000", "+0.1500", "±", "0.0707", "+0.1000"]
