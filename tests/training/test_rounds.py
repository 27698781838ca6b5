"""Several runs as one program: each is as if it were trained alone."""

import signal
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgear.data.augment.transforms import flip
from jaxgear.data.batches import Batches
from jaxgear.errors import DivergedError
from jaxgear.machine import devices
from jaxgear.machine.signals import Signals
from jaxgear.models.convnet import Conv, ConvNet, Dropout, GlobalPool
from jaxgear.training import compiled, loop, steps
from jaxgear.training.progress import Progress
from jaxgear.training.vectorized import Lane, Rounds, grouped

K, EPOCHS = 3, 3
QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def expected():
    """Four lanes, and what each gives alone. Two have three steps an epoch, one has four, and one
    stops an epoch earlier.
    """
    lanes = [lane(0), lane(1, rate=0.03), lane(2, count=30, smoothing=0.2), lane(3, last=2)]
    return lanes, [alone(one) for one in lanes]


@pytest.fixture(params=[1, 2])
def steps_a_program(request, monkeypatch):
    """Each step in a program of its own, or two in each."""
    monkeypatch.setattr(compiled, "steps_a_program", lambda train: request.param)


def batches(count, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, count).astype(np.int32)
    images = rng.integers(0, 80, (count, 8, 8, 3)) + 60 * labels[:, None, None, None]
    alone = devices.mesh_of(jax.devices()[:1])
    return Batches(images.astype(np.uint8), labels, 8, seed, mesh=alone)


def lane(seed, rate=0.01, count=22, layers=4, last=EPOCHS, smoothing=0.1, scales=()):
    model = ConvNet([Conv(layers), Dropout(0.2), GlobalPool()], classes=K)
    schedule = optax.cosine_decay_schedule(rate, 9)
    # Nested: its rate is inside of a `cond`.
    tx = optax.apply_if_finite(optax.adamw(schedule, weight_decay=rate / 10), 5)
    images = np.zeros((1, 8, 8, 3), np.uint8)
    return Lane(
        name=str(seed),
        state=steps.init_state(model, tx, images, seed, average=True),
        train=batches(count, seed),
        val=batches(9 + 2 * seed, seed + 100),
        first=1,
        last=last,
        schedule=schedule,
        step_options={
            "classes": K,
            "loss": steps.smoothed_cross_entropy(smoothing),
            "augment": flip(),
            "class_weights": np.float32([1, 1 + seed, 1]),
        },
        scales=scales,
    )


def alone(lane):
    """The last state and the rows of a lane that is trained by itself."""
    epochs = loop.epochs(
        jax.tree.map(jnp.copy, lane.state), lane.train, lane.val, first=lane.first, last=lane.last,
        schedule=lane.schedule, progress=QUIET, scales=lane.scales, **lane.step_options,
    )  # fmt: skip
    return [(jax.tree.map(jnp.copy, state), row) for state, row in epochs]  # before it is donated


def together(lanes, signals=None):
    return driven(Rounds(lanes, signals or Signals(), QUIET), lanes)


def driven(rounds, lanes):
    """What each lane yields, and the error with which it ended, if any."""
    going = {i: rounds.epochs(i) for i in range(len(lanes))}
    yielded, errors = [[] for _ in lanes], [None for _ in lanes]
    while going:
        for i, epochs in list(going.items()):
            try:
                yielded[i].append(next(epochs))
            except StopIteration:
                del going[i]
            except (DivergedError, loop.Stopped) as error:
                errors[i] = error
                del going[i]
    return yielded, errors


def assert_as_alone(yielded, expected):
    assert len(yielded) == len(expected)
    for (state, row), (state_alone, row_alone) in zip(yielded, expected, strict=True):
        assert (row.epoch, row.step) == (row_alone.epoch, row_alone.step)
        assert row.size == row_alone.size
        assert row.train_accuracy == pytest.approx(row_alone.train_accuracy, abs=1e-6)
        assert row.train_loss == pytest.approx(row_alone.train_loss, rel=1e-4)
        assert row.val_loss == pytest.approx(row_alone.val_loss, rel=1e-4)
        assert row.learning_rate == pytest.approx(row_alone.learning_rate)
        assert jax.tree.structure(state.params) == jax.tree.structure(state_alone.params)
        for ours, theirs in zip(
            *(jax.tree.leaves((s.params, s.averaged, s.totals)) for s in (state, state_alone)),
            strict=True,
        ):
            np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=1e-3)


def test_lanes_with_other_seeds_rates_and_counts_are_as_alone(expected, steps_a_program):
    lanes, of_lanes = expected
    assert grouped(lanes) == [lanes]
    yielded, errors = together(lanes)
    assert errors == [None] * 4
    for ours, theirs in zip(yielded, of_lanes, strict=True):
        assert_as_alone(ours, theirs)
    assert len(yielded[3]) == 2


def test_lanes_with_images_of_growing_size_are_as_alone(steps_a_program):
    """One is an epoch ahead, so its images grow first; whole images are apart."""
    scales = (0.5, 0.5, 1.0)
    lanes = [lane(0, scales=scales), replace(lane(1, scales=scales), first=2), lane(2)]
    assert grouped(lanes) == [lanes[:2], lanes[2:]]
    expected = [alone(one) for one in lanes[:2]]
    yielded, errors = together(lanes[:2])
    assert errors == [None] * 2
    assert [row.size for _, row in yielded[1]] == [4, 8]
    for ours, theirs in zip(yielded, expected, strict=True):
        assert_as_alone(ours, theirs)


def test_a_lane_that_diverges_ends_and_the_others_go_on(expected):
    (*_, last), (*_, of_last) = expected
    lanes = [lane(0), lane(1), last]
    broken = lanes[1].state.replace(
        params=jax.tree.map(lambda x: x * jnp.nan, lanes[1].state.params)
    )
    lanes[1] = replace(lanes[1], state=broken)
    yielded, errors = together(lanes)
    assert [type(error) for error in errors] == [type(None), DivergedError, type(None)]
    assert "diverged at step 1 (epoch 1)" in str(errors[1])
    assert yielded[1] == []
    assert_as_alone(yielded[2], of_last)


@pytest.mark.parametrize("steps_a_program", [2], indirect=True)
def test_a_signal_stops_all_lanes_where_they_are_and_they_go_on_from_there(
    steps_a_program, monkeypatch
):
    lanes, signals = [lane(0, count=44), lane(1, count=52)], Signals()
    checked = loop.check_finite

    def signal_at_step_8(sent, train, schedule):
        checked(sent, train, schedule)
        if sent.first >= 8:
            signals.received = signal.SIGTERM

    monkeypatch.setattr(loop, "check_finite", signal_at_step_8)
    first, errors = together(lanes, signals)
    assert [len(rows) for rows in first] == [1, 1]
    assert {error.code for error in errors} == {143}
    assert 0 < errors[0].state.totals.count < 44  # in the middle of an epoch
    monkeypatch.setattr(loop, "check_finite", checked)
    rest = [
        replace(one, state=error.state, first=2) for one, error in zip(lanes, errors, strict=True)
    ]
    yielded, _ = together(rest)
    for one, ours in zip(lanes, yielded, strict=True):
        assert_as_alone(ours, alone(one)[1:])


def test_lanes_whose_steps_differ_in_more_than_numbers_are_apart():
    lanes = [lane(0), lane(1, layers=5), lane(2), lane(3, layers=5)]
    assert grouped(lanes) == [[lanes[0], lanes[2]], [lanes[1], lanes[3]]]
