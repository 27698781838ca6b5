"""Which images make an epoch: each once, or those of a new domain more often."""

import numpy as np
import pytest
from pictures import write_set

from jaxgear.data.batches import Batches
from jaxgear.data.dataset import open_dataset
from jaxgear.data.prepare import writing
from jaxgear.data.prepare.prepared import prepare
from jaxgear.data.sampling import ONCE, Sampling, Shards, shards_of
from jaxgear.data.stream import Stream

N = 20
BY_INDEX_ORDER = [236, 453, 27, 810]  # of 1,000 images, seed 3, epoch 2


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


# --- shards read in sequence, shuffled within windows


def made_shards(lengths, seed=0):
    """Shards of images whose indices are in no order."""
    count = sum(lengths)
    images = np.random.default_rng(seed).permutation(count).astype(np.int32)
    return Shards(images, np.array(lengths))


def windowed(lengths, window, batch_size, seed=1, epoch=2):
    sampling = Sampling(shards=made_shards(lengths), window=window)
    return sampling.order(sum(lengths), seed, epoch, batch_size)


@pytest.mark.parametrize("lengths", [(1,), (7, 1, 20, 3), (50,) * 9, (13,) * 40])
@pytest.mark.parametrize("window", [1, 16, 100, 10_000])
@pytest.mark.parametrize("batch_size", [1, 6, 16, 48])
def test_windows_have_each_image_once(lengths, window, batch_size):
    order = windowed(lengths, window, batch_size)
    whole = order[np.arange(sum(lengths))]
    assert sorted(whole) == list(range(sum(lengths)))
    again = windowed(lengths, window, batch_size)  # from any position on
    last = np.arange(sum(lengths))[-5:][::-1]
    np.testing.assert_array_equal(again[last], whole[last])


def test_windows_are_random_and_of_their_seed_and_epoch():
    first = windowed((50,) * 9, 64, 16)[np.arange(450)]
    for seed, epoch, same in [(1, 2, True), (1, 3, False), (2, 2, False)]:
        other = windowed((50,) * 9, 64, 16, seed, epoch)[np.arange(450)]
        assert np.array_equal(first, other) is same


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_a_host_reads_few_shards_and_goes_through_each_in_sequence(hosts):
    lengths, window, batch = (200,) * 40, 320, 32
    order, shards = windowed(lengths, window, batch), made_shards(lengths)
    place = np.empty(8000, np.int64)  # where an image is stored
    place[shards.images] = np.arange(8000)
    read = place[order[np.arange(8000)]].reshape(-1, hosts, batch // hosts)
    for host in range(hosts):
        own = read[:, host]
        lanes = 16 // hosts
        # A lane may go on to its next shard within a window.
        assert all(len(set(rows // 200)) <= 2 * lanes for rows in own)
        assert np.mean([len(set(rows // 200)) for rows in own]) < 1.2 * lanes
        if hosts > 1:
            others = np.delete(read, host, axis=1)
            assert not set(own.reshape(-1)) & set(others.reshape(-1))
    lane = read.reshape(-1, 16, 2)[:, 0].reshape(-1)  # a lane takes 2 images of each batch
    for window in lane.reshape(-1, 20):  # 320 / 16
        for shard in set(window // 200):
            rows = np.sort(window[window // 200 == shard])
            np.testing.assert_array_equal(rows, np.arange(rows[0], rows[0] + len(rows)))
    assert np.abs(np.diff(lane)).mean() > 5  # and is shuffled there


def test_windows_give_the_same_batches_in_memory_and_streamed_and_on_hosts():
    images = np.arange(100, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    labels = np.arange(100, dtype=np.int32) % 3
    sampling = Sampling(shards=made_shards((30, 30, 30, 10)), window=40)
    given = (images, labels, 12, 3)
    memory, stream = (kind(*given, sampling=sampling) for kind in (Batches, Stream))
    parts = [Stream(*given, sampling=sampling, host=host, hosts=2) for host in range(2)]
    epochs = [[b.index for b in data.shuffled(2)] for data in (memory, stream, *parts)]
    np.testing.assert_array_equal(epochs[0], epochs[1])
    np.testing.assert_array_equal(epochs[0], np.concatenate(epochs[2:], axis=1))
    for first in (0, 1, 5, 8):  # a resumed epoch
        rest = [b.index for b in stream.shuffled(2, first)]
        np.testing.assert_array_equal(rest, epochs[0][first:])
    assert not np.array_equal(epochs[0], [b.index for b in memory.shuffled(3)])
    ordered = np.concatenate([b.index for b in stream.ordered()])
    np.testing.assert_array_equal(ordered[:100], sampling.shards.images)


def test_orders_of_earlier_code_stay():
    order = np.random.default_rng((3, 2)).permutation(1000)
    np.testing.assert_array_equal(ONCE.order(1000, 3, 2, 48), order)
    assert Sampling(by_index=9).order(1000, 3, 2, 48)[np.arange(4)].tolist() == BY_INDEX_ORDER
    assert ONCE.in_order()[np.arange(3)].tolist() == [0, 1, 2]


def test_shards_of_a_prepared_set(tmp_path):
    """In the order of the stored rows, also of a part of a split."""
    root = write_set(tmp_path / "data", {"a": 40, "b": 40})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "SHARD_BYTES", 10_000)
        prepare(root, tmp_path / "out", size=16, workers=1, say=lambda line: None)
    data = open_dataset(f"tfds:gear@{tmp_path / 'out'}", size=16, seed=0, say=lambda line: None)
    records = data.training_records()
    shards = shards_of(records, data.folder)
    stored = [s.records for s in data.folder.shards if s.split == "train"]
    assert shards.lengths.tolist() == list(map(len, stored))
    assert len(stored) > 3
    paths = [record.path for own in stored for record in own]
    assert [records[i].path for i in shards.images.tolist()] == paths
    some = shards_of(records.take(np.arange(0, len(records), 3)), data.folder)
    assert some.lengths.sum() == len(some.images) == len(range(0, len(records), 3))
    folder = open_dataset(str(root), size=16, seed=0, say=lambda line: None)
    assert shards_of(folder.training_records(), folder.folder) is None
