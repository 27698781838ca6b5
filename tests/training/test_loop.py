"""Epochs: rows are means over all pictures, a run continues bit for bit, divergence stops it."""

import signal
from dataclasses import replace

import jax
import numpy as np
import optax
import pytest

from jaxgear.data.augment.transforms import flip, mixup
from jaxgear.data.batches import Batches, resized
from jaxgear.errors import DivergedError
from jaxgear.models.convnet import Conv, ConvNet, Dropout, GlobalPool
from jaxgear.training import compiled, loop, steps
from jaxgear.training.progress import Progress

K = 3
QUIET = Progress(quiet=True)


@pytest.fixture(params=[1, 2], autouse=True)
def steps_a_program(request, monkeypatch):
    """Three steps an epoch: one in each program, or two and then one."""
    monkeypatch.setattr(compiled, "steps_a_program", lambda train: request.param)
    return request.param


def make_batches(n=22, size=8, seed=0, share=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, n).astype(np.int32)
    images = rng.integers(0, 80, (n, 8, 8, 3)) + 60 * labels[:, None, None, None]
    names = [f"class{label}/{i}.jpg" for i, label in enumerate(labels)]
    return Batches(images.astype(np.uint8), labels, size, seed, names, share=share)


def make_state(tx=None):
    model = ConvNet([Conv(4), Dropout(0.2), GlobalPool()], classes=K)
    images = np.zeros((1, 8, 8, 3), np.uint8)
    return steps.init_state(model, tx or optax.adam(1e-2), images, seed=0, average=True)


def train(state, first, last, share=1.0, **options):
    return loop.epochs(
        state,
        make_batches(share=share),
        make_batches(9, seed=1),
        first=first,
        last=last,
        schedule=lambda step: 1e-2 / (1 + step),
        classes=K,
        loss=steps.smoothed_cross_entropy(0.1),
        **{"progress": QUIET, "augment": flip(), "mix": mixup(0.2)} | options,
    )


def test_learns_and_rows_describe_it():
    *_, (state, row) = train(make_state(), 1, 12)
    assert row.epoch == 12
    assert row.step == int(state.step) == 12 * 3
    assert row.val_accuracy > 0.8
    assert row.learning_rate == pytest.approx(1e-2 / 36)  # of the last step, which is number 35
    assert row.seconds > 0


@pytest.mark.parametrize("steps_a_program", [2], indirect=True)
def test_steps_in_one_program_are_those_sent_one_by_one(monkeypatch, steps_a_program):
    """But for rounding: XLA fuses what is in a loop in its own way."""
    together = list(train(make_state(), 1, 3))
    monkeypatch.setattr(compiled, "steps_a_program", lambda train: 1)
    alone = list(train(make_state(), 1, 3))
    for (_, a), (_, b) in zip(together, alone, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=1e-4)
        assert a.train_accuracy == b.train_accuracy
        assert a.step == b.step
    for a, b in zip(
        *(jax.tree.leaves(s.params) for s in (together[-1][0], alone[-1][0])), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_validation_row_is_the_mean_over_all_pictures():
    ((state, row),) = train(make_state(), 1, 1)
    val = make_batches(9, seed=1)
    logits = state.apply(state.variables, val.images, train=False)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, val.labels)
    assert row.val_loss == pytest.approx(float(losses.mean()), rel=1e-5)
    assert row.val_accuracy == pytest.approx(float((logits.argmax(axis=1) == val.labels).mean()))


def test_stopping_and_going_on_changes_nothing():
    straight = list(train(make_state(), 1, 4))[-1]
    half = list(train(make_state(), 1, 2))[-1][0]
    resumed = list(train(half, 3, 4))[-1]
    for a, b in zip(
        *(jax.tree.leaves((s.params, s.averaged, s.opt_state)) for s, _ in (straight, resumed)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    assert straight[1].train_loss == resumed[1].train_loss
    assert straight[1].val_loss == resumed[1].val_loss


def test_the_epochs_of_a_size_are_as_if_the_set_were_stored_so():
    """Then an epoch of whole images follows. FLOPs are those of each epoch."""
    counted, small, val = [], make_batches(), make_batches(9, seed=1)
    scales = (0.5, 0.5, 1.0)
    (_, first), (_, second), (_, third) = train(
        make_state(), 1, 3, scales=scales, augment=None, mix=None, counted=counted.append
    )
    assert [first.size, second.size, third.size] == [4, 4, 8]
    small.images, val.images = (resized(split.images, 0.5) for split in (small, val))
    _, (_, expected) = loop.epochs(
        make_state(), small, val, first=1, last=2, schedule=lambda step: 1e-2 / (1 + step),
        classes=K, loss=steps.smoothed_cross_entropy(0.1), progress=QUIET,
    )  # fmt: skip
    assert second.train_loss == pytest.approx(expected.train_loss, rel=1e-5)
    assert second.val_loss == pytest.approx(expected.val_loss, rel=1e-5)
    ((first, second, third),) = counted
    assert first == second < third / 3


@pytest.mark.parametrize(("share", "epochs"), [(1 / 3, 6), (2 / 3, 3)])
def test_epochs_of_a_share_train_as_whole_ones_do(share, epochs, steps_a_program):
    """Six steps are two passes, in epochs of one step, or of two, the second over a pass's end."""
    whole = list(train(make_state(), 1, 2))[-1][0]
    rows = list(train(make_state(), 1, epochs, share=share))
    assert [row.step for _, row in rows] == [6 // epochs * (i + 1) for i in range(epochs)]
    for a, b in zip(
        *(jax.tree.leaves((s.params, s.averaged, s.opt_state)) for s in (whole, rows[-1][0])),
        strict=True,
    ):
        if steps_a_program == 1:
            np.testing.assert_array_equal(a, b)
        else:  # another number of rounds in the compiled loop
            np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("number", "at", "options"),
    [
        (signal.SIGINT, 5, {}),
        (signal.SIGTERM, 5, {"scales": (0.5, 0.5, 1.0, 1.0)}),
        (signal.SIGTERM, 3, {"share": 2 / 3}),  # the last step of a pass, in the middle of an epoch
    ],
)
def test_a_signal_within_an_epoch_loses_no_step(number, at, options, steps_a_program):
    """It comes in step `at` of 8 or 12; from the state that was handed out, the rest is as without.

    The program that the step is in runs to its end.
    """
    straight = list(train(make_state(), 1, 4, **options))
    steps = straight[0][1].step

    class Interrupting(Progress):
        sent = False

        def step(self, epoch, step, *arguments):
            if not self.sent and steps * (epoch - 1) + step >= at:
                self.sent = True
                signal.raise_signal(number)

    rows = []
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(loop.Stopped) as stopped:
        rows += train(make_state(), 1, 4, progress=Interrupting(quiet=True), **options)
    assert stopped.value.code == 128 + number
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    assert int(stopped.value.state.step) == at
    resumed = list(train(stopped.value.state, 2, 4, **options))
    assert [row.epoch for _, row in resumed] == [2, 3, 4]
    for (_, a), (_, b) in zip(straight[1:], resumed, strict=True):
        assert replace(a, seconds=0) == replace(b, seconds=0)
    for a, b in zip(
        jax.tree.leaves((straight[-1][0].params, straight[-1][0].opt_state)),
        jax.tree.leaves((resumed[-1][0].params, resumed[-1][0].opt_state)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_divergence_names_step_rate_and_pictures():
    with pytest.raises(DivergedError, match=r"step 2 .*rate 0\.005.*class\d/\d+\.jpg, ") as error:
        list(train(make_state(optax.sgd(1e30)), 1, 3, augment=None, mix=None))
    assert error.value.exit_code == 3


def test_evaluator_is_independent_of_batch_size():
    state = make_state()
    found = []
    for size in (1, 4, 9, 20):
        batches = make_batches(9, size)
        metrics, logits = compiled.Evaluator(state.apply, state.variables, batches, QUIET)(
            state.variables, batches
        )
        assert float(metrics.count) == 9
        assert logits.shape == (9, K)
        found.append((float(metrics.loss), logits))
    for loss, logits in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        np.testing.assert_allclose(logits, found[0][1], atol=1e-5)
