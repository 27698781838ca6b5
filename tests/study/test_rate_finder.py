"""The rate finder, where the answer is known, and in an experiment."""

import csv
import re

import numpy as np
import optax
import PIL.Image
import pytest

from jaxgear import cli, experiment
from jaxgear.errors import UsageError
from jaxgear.evaluation.plots import studies
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


def call(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(["study", "--find-rate", "experiments/optimizers.py", *map(str, arguments)])
    return stop.value.code


@pytest.fixture
def stable_to(monkeypatch):
    """Sweeps a quadratic instead of a network: rates above 2 / its curvature blow up."""
    curvatures = {"sgd": 1.0, "adamw": 10.0}

    def find(config, make):
        if config.optimizer == "lion":
            raise UsageError("--find-rate: the optimizer does not use the recipe's rate")
        return rate_finder.until_blown(quadratic(curvatures[config.optimizer]))

    monkeypatch.setattr(rate_finder, "find_rate", find)


def test_each_variant_has_a_sweep_of_its_own(tmp_path, stable_to, capsys):
    assert call("--vary", "optimizer=sgd,adamw", "--out", tmp_path) == 0
    sgd, adamw, last = capsys.readouterr().out.splitlines()
    assert sgd.startswith("optimizer sgd: the smoothed loss is lowest")
    assert adamw.startswith("optimizer adamw: the smoothed loss is lowest")
    rates = re.fullmatch(
        r".*\tlearning rate (.+) \(optimizer sgd\), (.+) \(optimizer adamw\), the peak of .*", last
    )
    assert float(rates[1]) == pytest.approx(10 * float(rates[2]), rel=0.2)
    with (tmp_path / "rate.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["optimizer", "learning_rate", "loss", "smoothed"]
    highest = {row["optimizer"]: float(row["learning_rate"]) for row in rows}
    assert list(highest) == ["sgd", "adamw"]
    assert highest["sgd"] > 5 * highest["adamw"]
    with PIL.Image.open(tmp_path / "rate.png") as picture:
        assert min(picture.size) > 300


def test_what_cannot_be_swept_is_named(tmp_path, stable_to, capsys):
    """A sweep that is done stays."""
    assert call("--vary", "optimizer=sgd,lion", "--out", tmp_path / "a") == 2
    assert "variant optimizer lion: --find-rate: the optimizer does" in capsys.readouterr().err
    assert "sgd" in (tmp_path / "a/rate.csv").read_text()
    assert call("--vary", "warmup=0..0.5", "--out", tmp_path / "b") == 2
    assert "--vary FIELD=LOW..HIGH: --find-rate takes values" in capsys.readouterr().err
    assert call("--vary", "optimizer=adam", "--out", tmp_path / "b") == 2
    assert "--vary optimizer=adam" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_a_sweep_that_blows_up_does_not_squeeze_the_others_flat():
    rates = np.geomspace(1e-6, 1, 40)
    flat, wild = np.linspace(2.5, 1.0, 40), np.r_[np.full(30, 2.5), np.geomspace(2.5, 1e6, 10)]
    curves = [studies.Curve(name, rates, y, y, 0.1) for name, y in (("a", flat), ("b", wild))]
    figure = studies.sweeps(curves)
    assert figure.axes[0].get_ylim()[1] < 3
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["a: 0.1", "b: 0.1"]
