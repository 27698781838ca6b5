"""Which examples make an epoch: added pictures more often, images without labels beside."""

import numpy as np
import pytest

from jaxgear.data.batches import Batches
from jaxgear.data.sampling import ONCE, Sampling
from jaxgear.data.stream import Stream

N = 20


def added(count, of=N):
    return np.arange(of) < count


def test_without_choices_each_image_comes_once():
    assert sorted(ONCE.labelled(N, 0, 1)) == list(range(N))
    assert ONCE.without_labels(N, 0, 1, 5).shape == (5, 0)


@pytest.mark.parametrize(
    ("new", "share", "expected"), [(4, 0.5, 10), (3, 0.5, 10), (4, 0.1, 4), (0, 0.5, 0), (4, 1, 20)]
)
def test_the_share_is_drawn_from_added_images_and_never_less_than_they_are(new, share, expected):
    order = Sampling(added=added(new), share=share).labelled(N, 0, 1)
    assert len(order) == N  # as many steps as without
    is_added = order % N < new
    assert is_added.sum() == expected
    assert len(set(order)) == N  # each copy has its own index, so its own random view
    seen = np.bincount(order[is_added] % N, minlength=max(new, 1))[: max(new, 1)]
    assert seen.max() - seen.min() <= 1  # all once before one comes again
    others = order[~is_added]
    assert len(set(others)) == len(others) == N - expected


def test_the_order_is_a_function_of_seed_and_epoch():
    choice = Sampling(added=added(3), share=0.5, unlabelled=5, beside=4)
    first = choice.labelled(N, 1, 2), choice.without_labels(N, 1, 2, 3)
    for seed, epoch, same in [(1, 2, True), (1, 3, False), (2, 2, False)]:
        again = choice.labelled(N, seed, epoch), choice.without_labels(N, seed, epoch, 3)
        for one, other in zip(first, again, strict=True):
            assert np.array_equal(one, other) is same


def test_images_without_labels_join_each_batch_and_no_other_rows():
    rows = Sampling(unlabelled=5, beside=4).without_labels(N, 0, 1, steps=3)
    assert rows.shape == (3, 4)
    assert set(rows.ravel() % N) == set(range(15, 20))
    assert len(set(rows.ravel())) == 12
    assert np.ptp(np.bincount(rows.ravel() % N)[15:]) <= 1  # all once before one comes again


@pytest.mark.parametrize("kind", [Batches, Stream])
def test_batches_hold_labelled_rows_first_and_padding_counts_nowhere(kind):
    images = np.arange(N, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    labels = np.where(np.arange(N) < 15, 0, -1).astype(np.int32)
    choice = Sampling(unlabelled=5, beside=2)
    data = kind(images, labels, 4, seed=3, sampling=choice)
    assert len(data) == 4  # of the 15 labelled images
    seen = []
    for batch in data.shuffled(1):
        np.testing.assert_array_equal(batch.image[:, 0, 0, 0], batch.index % N)
        assert (np.asarray(batch.label) < 0).tolist() == [False] * 4 + [True] * 2
        assert batch.weight[4:].tolist() == [1, 1]
        seen += [int(i) for i, w in zip(batch.index[:4], batch.weight, strict=False) if w]
    assert sorted(seen) == list(range(15))
