"""The answer of a study, from trials that are made up."""

import json
from pathlib import Path

import pytest
from made_runs import row

from jaxgear.study.answer import answer, lines, to_dict
from jaxgear.study.trials import Trial
from jaxgear.training import history


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


def write_trial(out, number, accuracies, flops_per_step):
    """Writes the folder of a trial of 10 steps and 2 seconds an epoch; None: of older code."""
    run = out / str(number) / "run"
    run.mkdir(parents=True)
    rows = [row(epoch, 1.0, accuracy) for epoch, accuracy in enumerate(accuracies, 1)]
    (run / "config.json").write_text("{}")
    (run / "history.csv").write_text(history.to_csv(rows))
    known = {} if flops_per_step is None else {"flops_per_step": flops_per_step}
    (run / "environment.json").write_text(json.dumps(known))


def test_time_and_work_until_the_target(tmp_path):
    runs = {
        0: ([0.5, 0.8, 0.9], 100),  # reaches 0.8 in its second epoch, after 20 steps
        1: ([0.8, 0.7, 0.9], 300),
        2: ([0.5, 0.79, 0.9], 100),
        3: ([0.5, 0.8, 0.6], 100),
        4: ([0.9, 0.9, 0.9], None),
        5: ([0.9, 0.9, 0.9], 100),
    }
    for number, of_run in runs.items():
        write_trial(tmp_path, number, *of_run)
    made = trials((1.0, [0.9, 0.9]), (2.0, [0.8, 0.8]), (3.0, [0.7, 0.7]))
    found = answer(made, lambda number: tmp_path / str(number), 2, 0.8)
    reached, late, older = to_dict(found)["variants"]
    assert reached["seconds_to_target"] == {"mean": 3.0, "std": pytest.approx(2**0.5), "n": 2}
    assert reached["flops_to_target"]["mean"] == (20 * 100 + 10 * 300) / 2
    assert reached["flops_to_target"]["n"] == 2
    assert late["seconds_to_target"]["mean"] == 5.0  # the third epoch, and the second
    assert late["flops_to_target"]["mean"] == 2500
    assert older["seconds_to_target"]["mean"] == 2.0
    assert older["flops_to_target"] is None
    head, *table = lines(found)
    assert head.index("seconds to 0.8") < head.index("FLOPs to 0.8")
    assert "3.0 ± 1.4" in table[0]
    assert "2.5e+03 ± 707" in table[0]
    assert " - " in table[2]
    never = to_dict(answer(made, lambda number: tmp_path / str(number), 2, 0.95))["variants"]
    assert {one["flops_to_target"] for one in never} == {None}
    asked = answer(made, lambda number: tmp_path / str(number), 2)
    assert "FLOPs" not in lines(asked)[0]
