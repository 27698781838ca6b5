"""The rate finder, where the answer is known, and in an experiment."""

import csv

import numpy as np
import optax
import pytest

from jaxgear import cli, experiment
from jaxgear.errors import UsageError
from jaxgear.experiment import Recipe
from jaxgear.models.convnet import Conv, ConvNet, GlobalPool
from jaxgear.study import rate_finder


def quadratic(curvature, noise=0.0):
    """Losses of gradient descent on curvature * x**2 / 2, as the rate grows."""
    rng, x = np.random.default_rng(0), 1.0
    for step in range(rate_finder.STEPS):
        yield curvature * x**2 / 2 + noise
        gradient = curvature * (x + noise * rng.normal() / curvature**0.5)
        x -= float(rate_finder.rate_at(step, rate_finder.STEPS)) * gradient


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("curvature", [1.0, 10.0, 1000.0])
def test_on_a_quadratic_the_edge_of_stability_is_found(curvature, noise):
    """Gradient descent is stable below a rate of 2 / curvature, and quickest at half of that."""
    sweep = rate_finder.until_blown(quadratic(curvature, noise))
    assert 0.5 < sweep.suggested * curvature < 2.5
    assert "risen by a tenth" in sweep.reason


def test_a_loss_that_never_rises_is_said():
    sweep = rate_finder.until_blown(iter(1 / np.arange(1.0, 50)))
    assert sweep.suggested == sweep.rates[-1]
    assert "does not rise" in sweep.reason
    with pytest.raises(UsageError, match="first step is not finite"):
        rate_finder.until_blown(iter([np.nan]))


SMALL = experiment.Config(data="drawn:60", image_size=16, batch_size=12)


def recipe(config, data):
    return Recipe(
        model=ConvNet([Conv(4), GlobalPool()], data.classes),
        optimizer=optax.sgd,
        rate=0.1,
        epochs=1,
    )


def test_a_recipe_is_swept():
    sweep = rate_finder.find_rate(SMALL, recipe, steps=12)
    assert sweep.rates[:2] == pytest.approx([1e-6, 1e-6 * 1e7 ** (1 / 11)], rel=1e-4)
    assert len(sweep.losses) <= 12
    assert np.log(12) / 2 < sweep.losses[0] < 2 * np.log(12)  # of a new network

    def fixed(config, data):
        made = recipe(config, data)
        return Recipe(**{**vars(made), "optimizer": lambda rate: optax.sgd(0.1)})

    with pytest.raises(UsageError, match="does not use the recipe's rate"):
        rate_finder.find_rate(SMALL, fixed, steps=2)


def test_the_command_draws_the_sweep(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rate_finder, "STEPS", 12)
    monkeypatch.setattr(rate_finder, "find_rate", lambda config, make: rate_finder.until_blown(
        quadratic(10.0)))  # fmt: skip
    with pytest.raises(SystemExit) as stop:
        cli.main(["study", "--find-rate", "experiments/scratch.py", "--out", str(tmp_path / "r")])
    assert stop.value.code == 0
    assert "learning rate" in capsys.readouterr().out.splitlines()[-1]
    with (tmp_path / "r/rate.csv").open() as file:
        assert list(next(csv.reader(file))) == ["learning_rate", "loss", "smoothed"]
    assert (tmp_path / "r/rate.png").read_bytes().startswith(b"\x89PNG")
