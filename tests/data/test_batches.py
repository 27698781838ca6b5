"""Every image appears once an epoch, in an order that depends on (seed, epoch)."""

import functools

import jax
import numpy as np
import pytest

from jaxgear.data.batches import Batches, in_batches, take
from jaxgear.data.folder.lazy import LazyPictures
from jaxgear.data.stream import Stream

N = 11


@pytest.fixture
def images():
    return np.arange(N, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)


def batches(images, size=4, seed=0):
    return Batches(images, np.arange(N, dtype=np.int32) % 3, size, seed)


def counted(epoch):
    return [int(i) for b in epoch for i, w in zip(b.index, b.weight, strict=True) if w]


@pytest.mark.parametrize("size", [1, 4, 11, 30])
def test_every_picture_counts_once(images, size):
    data = batches(images, size)
    assert sorted(counted(data.shuffled(3))) == list(range(N))
    assert counted(data.ordered()) == list(range(N))
    assert {b.image.shape for b in data.shuffled(0)} == {(size, 2, 2, 3)}
    assert len(list(data.ordered())) == len(data)


def test_pictures_of_a_folder_are_not_copied_on_a_cpu():
    """A set that barely fits in memory would not fit twice."""
    pixels = LazyPictures((N, 5, 5, 3), lambda row: np.full((5, 5, 3), row, np.uint8))[:]
    images = Batches(pixels, np.zeros(N, np.int32), 4).images
    assert images.unsafe_buffer_pointer() == pixels.ctypes.data
    assert int(images[N - 1].max()) == N - 1


def test_rows_belong_together(images):
    for batch in batches(images).shuffled(5):
        np.testing.assert_array_equal(batch.image[:, 0, 0, 0], batch.index)
        np.testing.assert_array_equal(batch.label, batch.index % 3)
        assert int(batch.epoch) == 5


@pytest.mark.parametrize("kind", [Batches, Stream])
@pytest.mark.parametrize("share", [1 / 3, 2 / 3, 0.01])
def test_epochs_of_a_share_take_up_pass_after_pass(images, kind, share):
    labels = np.arange(N, dtype=np.int32) % 3
    whole = [batch for number in (1, 2) for batch in batches(images).shuffled(number)]
    data = kind(images, labels, 4, share=share)
    epochs = [list(data.shuffled(number)) for number in range(1, 6 // len(data) + 1)]
    assert {len(epoch) for epoch in epochs} == {len(data)} == {max(1, round(3 * share))}
    parts = [batch for epoch in epochs for batch in epoch]
    for part, batch in zip(parts, whole, strict=True):
        for a, b in zip(jax.tree.leaves(part), jax.tree.leaves(batch), strict=True):
            np.testing.assert_array_equal(a, b)
    for number, epoch in enumerate(epochs, 1):  # an interrupted one
        rest = list(data.shuffled(number, len(data) - 1))
        np.testing.assert_array_equal(rest[0].index, epoch[-1].index)
        chunks = list(data.chunks(number, 0, 5))
        assert sum(int(chunk.count) for chunk in chunks) == len(data)
        index = np.concatenate([chunk.index[: int(chunk.count)] for chunk in chunks])
        np.testing.assert_array_equal(index, [batch.index for batch in epoch])
    assert sorted(counted(data.ordered())) == list(range(N))  # all of them


@pytest.mark.parametrize(("first", "most"), [(0, 1), (0, 2), (1, 2), (0, 3), (2, 5)])
def test_chunks_are_the_batches_of_an_epoch(images, first, most):
    """All chunks have the same number of rows, so that one program fits all."""
    data = batches(images)
    chunks = list(data.chunks(5, first, most))
    take_rows = jax.jit(functools.partial(take, data.mesh))
    taken = [
        take_rows(data.images, data.labels, of.index[i], of.weight[i], of.epoch)
        for of in chunks
        for i in range(int(of.count))
    ]
    assert {of.index.shape for of in chunks} == {(most, 4)}
    for found, batch in zip(taken, data.shuffled(5, first), strict=True):
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(batch), strict=True):
            np.testing.assert_array_equal(a, b)


def test_rows_go_in_batches_of_one_size_and_come_back_in_order():
    shapes = []

    def run(x, y):
        shapes.append(x.shape)
        return 2 * x + y

    x = np.arange(7)
    np.testing.assert_array_equal(in_batches(run, (x, np.ones(7)), 3), 2 * x + 1)
    assert shapes == [(3,)] * 3
    np.testing.assert_array_equal(in_batches(run, (x[:2], np.zeros(2)), 3), [0, 2])


def test_order_is_a_function_of_seed_and_epoch(images):
    order = lambda seed, epoch: counted(batches(images, seed=seed).shuffled(epoch))  # noqa: E731
    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)
