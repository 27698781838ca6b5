"""Which images make an epoch: each once, or those of a new domain more often."""

import numpy as np
import pytest

from jaxgear.data.batches import Batches
from jaxgear.data.sampling import ONCE, Sampling
from jaxgear.data.stream import Stream

N = 20


def added(count, of=N):
    return np.arange(of) < count


def test_without_choices_each_image_comes_once():
    assert sorted(ONCE.order(N, 0, 1)) == list(range(N))


@pytest.mark.parametrize(
    ("new", "share", "expected"), [(4, 0.5, 10), (3, 0.5, 10), (4, 0.1, 4), (0, 0.5, 0), (4, 1, 20)]
)
def test_the_share_is_drawn_from_added_images_and_never_less_than_they_are(new, share, expected):
    order = Sampling(added(new), share).order(N, 0, 1)
    assert len(order) == N  # as many steps as without
    is_added = order % N < new
    assert is_added.sum() == expected
    assert len(set(order)) == N  # each copy has its own index, so its own random view
    seen = np.bincount(order[is_added] % N, minlength=max(new, 1))[: max(new, 1)]
    assert seen.max() - seen.min() <= 1  # all once before one comes again
    others = order[~is_added]
    assert len(set(others)) == len(others) == N - expected


def test_the_order_is_a_function_of_seed_and_epoch():
    choice = Sampling(added(3), 0.5)
    first = choice.order(N, 1, 2)
    for seed, epoch, same in [(1, 2, True), (1, 3, False), (2, 2, False)]:
        assert np.array_equal(first, choice.order(N, seed, epoch)) is same


@pytest.mark.parametrize("images", [1, 2, 37, 1000])
def test_an_order_by_index_has_each_image_once(images):
    order = Sampling(by_index=0).order(images, 1, 2)
    assert not isinstance(order, np.ndarray)
    whole = order[np.arange(images)]
    assert sorted(whole) == list(range(images))
    np.testing.assert_array_equal(order[np.array([images - 1, 0])], whole[[-1, 0]])


def test_an_order_by_index_is_random_and_of_its_seed_and_epoch():
    def order(seed, epoch):
        return Sampling(by_index=0).order(1000, seed, epoch)[np.arange(1000)]

    first = order(1, 2)
    np.testing.assert_array_equal(first, order(1, 2))
    # Of two random orders one place in 1,000 is the same, and ranks differ by a third on average.
    for other in (order(1, 3), order(2, 2), np.arange(1000)):
        assert (first == other).sum() < 10
        assert 280 < np.abs(first - other).mean() < 390
    assert 280 < np.abs(np.diff(first)).mean() < 390


def test_an_order_by_index_gives_the_same_batches_in_memory_and_streamed():
    images = np.arange(N, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    labels = np.arange(N, dtype=np.int32) % 3
    sets = [kind(images, labels, 6, 3, sampling=Sampling(by_index=0)) for kind in (Batches, Stream)]
    epochs = [list(data.shuffled(2)) for data in sets]
    assert len(epochs[0]) == len(epochs[1]) == 4
    for batch, streamed in zip(*epochs, strict=True):
        np.testing.assert_array_equal(batch.index, streamed.index)
        np.testing.assert_array_equal(batch.weight, streamed.weight)
        np.testing.assert_array_equal(batch.image[:, 0, 0, 0], batch.index)
        np.testing.assert_array_equal(streamed.image[:, 0, 0, 0], batch.index)
    (rest,) = sets[1].shuffled(2, first=3)  # a resumed epoch
    np.testing.assert_array_equal(rest.index, epochs[0][3].index)
    chunks = list(sets[0].chunks(2, 0, 3))
    np.testing.assert_array_equal(
        np.concatenate([chunk.index for chunk in chunks])[:4], [b.index for b in epochs[0]]
    )


@pytest.mark.parametrize("kind", [Batches, Stream])
def test_copies_are_the_same_image_with_another_index(kind):
    images = np.arange(N, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    labels = np.arange(N, dtype=np.int32) % 3
    data = kind(images, labels, 4, seed=3, sampling=Sampling(added(2), 0.5))
    seen = []
    for batch in data.shuffled(1):
        np.testing.assert_array_equal(batch.image[:, 0, 0, 0], batch.index % N)
        np.testing.assert_array_equal(batch.label, batch.index % N % 3)
        seen += [int(i) for i, w in zip(batch.index, batch.weight, strict=True) if w]
    assert len(set(seen)) == N
    assert sum(index % N < 2 for index in seen) == N / 2
    assert max(seen) >= N
    assert data.name(max(seen)) == f"number {max(seen) % N}"
