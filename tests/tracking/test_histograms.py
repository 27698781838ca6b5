"""Histograms: of the right parameters and epochs, once, whatever happened between."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from events import shown_histograms
from made_runs import row, write_run

from jaxgear.machine import devices
from jaxgear.tracking import Trackers
from jaxgear.tracking.histograms import FILE, read
from jaxgear.training import steps
from jaxgear.training.state import TrainState

SIZE = 1000


def state_of(epoch: int, between: int = 0) -> TrainState:
    """After an epoch of 10 steps, or a step later: a kernel whose numbers grow by the epoch."""
    kernel = epoch**2 + jnp.linspace(0, 1, SIZE).reshape(10, 100)
    return TrainState(
        step=jnp.int32(10 * epoch + between),
        params={"conv": {"kernel": kernel, "bias": jnp.full(3, 7.0)}, "none": jnp.zeros((0, 4))},
        model_state={}, averaged=None, opt_state=(), key=jax.random.key(0),
        totals=steps.Metrics.zero(), apply=lambda variables: None, tx=optax.identity(),
    )  # fmt: skip


@pytest.fixture
def run(tmp_path):
    pytest.importorskip("tensorboardX")
    return write_run(tmp_path / "run", accuracy=None)


def train(run, first, last):
    """What a process shows that goes on from the epoch `first` and trains up to `last`."""
    trackers = Trackers("tensorboard")
    for epoch in range(first, last + 1):
        trackers.show(run, [row(number, 1.0) for number in range(1, epoch + 1)], state_of(epoch))


def test_every_fifth_epoch_has_its_parameters_and_what_the_epoch_changed(run):
    train(run, 0, 11)
    found = shown_histograms(run)
    names = ["parameters/conv/bias", "parameters/conv/kernel"]
    updates = ["updates/conv/bias", "updates/conv/kernel"]
    assert list(found) == [
        *((name, 0) for name in names),  # before training
        *((name, epoch) for epoch in (5, 10) for name in [*names, *updates]),
    ]
    kernel = found["parameters/conv/kernel", 5]
    assert (kernel.min, kernel.max, kernel.num) == (25, 26, SIZE)
    values = np.asarray(state_of(5).params["conv"]["kernel"], np.float64)
    assert kernel.sum == pytest.approx(values.sum())
    assert kernel.sum_squares == pytest.approx((values**2).sum())
    assert list(kernel.bucket[:1]) == [0]
    counts, edges = np.histogram(values, 30)
    assert list(kernel.bucket[1:]) == counts.tolist()
    np.testing.assert_allclose(kernel.bucket_limit, edges)
    update = found["updates/conv/kernel", 5]  # 25 - 16 in all places
    assert update.sum == pytest.approx(9 * SIZE)
    assert found["updates/conv/bias", 5].sum == 0
    bias = found["parameters/conv/bias", 5]  # all equal
    assert (bias.min, bias.max, max(bias.bucket)) == (7 - 1e-3, 7 + 1e-3, 3)


def test_a_killed_run_shows_no_step_twice_and_loses_none(run):
    """Killed after epoch 5 and before its checkpoint was whole; it goes on from the fourth."""
    train(run, 0, 11)
    straight = shown_histograms(run)
    (run / FILE).unlink()
    train(run, 0, 5)
    train(run, 4, 4)
    assert {step for _, step in shown_histograms(run)} == {0}
    train(run, 4, 11)
    assert shown_histograms(run) == straight
    train(run, 11, 11)
    assert shown_histograms(run) == straight


def test_an_interrupted_epoch_has_no_updates(run):
    """The state at its start is gone; of half an epoch they would be too small."""
    train(run, 0, 4)
    trackers = Trackers("tensorboard")
    rows = [row(number, 1.0) for number in range(1, 6)]
    trackers.show(run, rows[:4], state_of(4, between=3))
    trackers.show(run, rows, state_of(5))
    assert [name for name, step in shown_histograms(run) if step == 5] == [
        "parameters/conv/bias",
        "parameters/conv/kernel",
    ]


def test_numbers_that_have_no_histogram_end_no_run(run):
    odd = jnp.array([jnp.nan, jnp.inf, 1.0, 1.0 + 2**-23])
    state = dataclasses.replace(state_of(0), params={"odd": odd, "count": jnp.arange(3)})
    Trackers("tensorboard").show(run, [], state)
    assert [(name, one["sum"]) for name, one in read(run)[0].items()] == [
        ("parameters/odd", 2 + 2**-23)
    ]


def test_without_a_tracker_and_on_other_hosts_there_are_none(run, monkeypatch):
    Trackers("").show(run, [], state_of(0))
    monkeypatch.setattr(devices, "first_host", lambda: False)
    Trackers("tensorboard").show(run, [], state_of(0))
    assert not (run / FILE).exists()
    assert not (run / "tensorboard").exists()
