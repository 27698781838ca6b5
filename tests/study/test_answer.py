"""The answer of a study, from trials that are made up."""

from pathlib import Path

import pytest

from jaxgear.study.answer import answer
from jaxgear.study.trials import Trial


def trials(*variants):
    """Each variant is a rate with the accuracies of its seeds."""
    rows = [(rate, seed, a) for rate, values in variants for seed, a in enumerate(values)]
    return [
        Trial(number, {"peak_lr": rate}, seed, "complete", accuracy, 1 - accuracy)
        for number, (rate, seed, accuracy) in enumerate(rows)
    ]


def test_rates_that_look_alike_are_variants_of_their_own():
    found = answer(trials((0.0030001, [0.8]), (0.0030002, [0.9])), lambda _: Path("none"), 1)
    assert (found.tried, len(found.scored)) == (2, 2)
    assert found.chosen.variant == {"peak_lr": 0.0030002}


def test_variants_of_a_search_that_have_one_seed_are_no_comparisons():
    """Their differences are no test, so they must not weaken the others."""
    finalists = [(1.0, [0.9, 0.91, 0.92]), (2.0, [0.8, 0.82, 0.81])]
    others = [(3.0 + n, [0.5]) for n in range(20)]
    few = answer(trials(*finalists), lambda _: Path("none"), 3)
    many = answer(trials(*finalists, *others), lambda _: Path("none"), 3)
    p_values = [found.scored[1].difference.p_value for found in (few, many)]
    assert p_values[0] == p_values[1]
    assert many.tried == 22


def test_more_seeds_than_are_asked_for_are_left_out():
    found = answer(trials((1.0, [0.9, 0.1]), (2.0, [0.8, 0.9])), lambda _: Path("none"), 1)
    assert found.chosen.accuracy.mean == pytest.approx(0.9)
