"""Rows survive a file bit for bit, and say which epoch was best and whether it overfits."""

import math
from dataclasses import replace

import pytest

from jaxgear.errors import DivergedError
from jaxgear.training import history
from jaxgear.training.history import Row


def rows(val, train=None):
    train = train or [1.0 / (i + 1) for i in range(len(val))]
    return [
        Row(i + 1, i, t, v, 0.5, 0.5, 1e-3, 1.0)
        for i, (t, v) in enumerate(zip(train, val, strict=True))
    ]


def test_csv_round_trip_is_exact():
    row = Row(3, 40, 1 / 3, 2 / 7, 0.1 + 0.2, 1e-300, 3e-4, 1.5)
    text = history.to_csv([row, replace(row, epoch=4)])
    assert text.splitlines()[0] == (
        "epoch,step,train_loss,val_loss,train_accuracy,val_accuracy,learning_rate,seconds"
    )
    assert history.from_csv(text) == [row, replace(row, epoch=4)]


def test_best_is_the_earliest_lowest_and_never_nan():
    assert history.best(rows([math.nan, 2.0, 1.0, 1.0, math.inf])).epoch == 3


def test_a_history_without_a_finite_loss_diverged():
    with pytest.raises(DivergedError, match=r"^diverged: no validation loss is finite; "):
        history.best(rows([math.nan, math.inf]))


def sized(val, sizes):
    return [replace(row, size=size) for row, size in zip(rows(val), sizes, strict=True)]


def test_the_best_is_among_the_largest_images():
    resized = sized([0.1, 0.2, 1.0, 0.8], [64, 64, 128, 128])
    assert history.from_csv(history.to_csv(resized)) == resized
    assert history.best(resized).epoch == 4
    assert history.best(resized[:2]).epoch == 1
    assert history.overfitting(sized([0.1] * 6 + [1.0], [64] * 6 + [128])) is None


def test_flops_are_those_of_each_epoch():
    three = [replace(row, step=10 * row.epoch) for row in rows([1.0, 1.0, 1.0])]
    assert history.flops(7, three) == 210
    assert history.flops([2, 2, 7, 7], three) == 110
    assert history.flops(None, three) is None


def test_patience_counts_from_the_best():
    assert history.epochs_since_best(rows([3.0, 1.0, 2.0, 2.0])) == 2
    assert history.epochs_since_best(rows([3.0, 2.0, 1.0])) == 0


def test_overfitting_is_named_when_seen():
    sentence = history.overfitting(rows([2.0, 1.0, 1.1, 1.2, 1.3, 1.4]))
    assert sentence is not None
    assert "4 epochs" in sentence
    assert "best epoch 2" in sentence


@pytest.mark.parametrize(
    ("val", "train"),
    [
        ([3.0, 2.0, 1.0], None),  # still falling
        ([2.0, 1.0, 1.1, 1.2], None),  # too few epochs since
        ([2.0, 1.0, 1.001, 1.002, 1.001, 1.0], None),  # noise
        ([2.0, 1.0, 1.1, 1.2, 1.3, 1.4], [1.0, 0.9, 0.95, 0.95, 0.95, 0.95]),  # training rose too
    ],
)
def test_overfitting_is_not_claimed_otherwise(val, train):
    assert history.overfitting(rows(val, train)) is None
