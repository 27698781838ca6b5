"""Streamed batches equal in-memory batches bit for bit."""

import os
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from pictures import empty_cache, write_set

from jaxgear.data.batches import Batches
from jaxgear.data.composites.masks import with_masks
from jaxgear.data.composites.pasted import with_pasted
from jaxgear.data.dataset import Split
from jaxgear.data.folder.lazy import LazyPictures
from jaxgear.data.folder.read import pixels, read_folder, stored_pictures
from jaxgear.data.stream import AHEAD, ON_DEVICE, Stream
from jaxgear.errors import DataError, UsageError

SIZE, BATCH = 16, 6


@pytest.fixture
def folder(tmp_path):
    return read_folder(write_set(tmp_path / "set", {"a": 10, "b": 9}), size=SIZE)


@pytest.fixture
def paths(folder):
    """The same images in memory and on disk."""
    labels = np.array([record.label for record in folder.records], np.int32)
    with empty_cache():  # both decode
        images = pixels(folder, SIZE), stored_pictures(folder, SIZE)
    memory, stored = images
    return Batches(memory, labels, BATCH, seed=3), Stream(stored, labels, BATCH, seed=3)


def assert_same(expected, found):
    expected, found = list(expected), list(found)
    assert len(expected) == len(found)
    for a, b in zip(expected, found, strict=True):
        for name in ("image", "label", "weight", "index", "epoch"):
            one, other = getattr(a, name), getattr(b, name)
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("first", [0, 1, 3, 4])
def test_an_epoch_from_any_batch_on(paths, first):
    memory, stream = paths
    assert_same(memory.shuffled(5, first), stream.shuffled(5, first))


def test_an_ordered_pass_and_what_else_is_asked(paths):
    memory, stream = paths
    assert_same(memory.ordered(), stream.ordered())
    assert (len(stream), stream.examples) == (len(memory), memory.examples) == (4, 19)


def training(batches):
    return batches.shuffled(2)


def validation(batches):
    return batches.ordered()


@pytest.mark.parametrize("of", [training, validation])
@pytest.mark.parametrize("hosts", [2, 3])
def test_the_parts_of_hosts_are_the_batch_and_each_decodes_its_own(paths, hosts, of):
    memory, stream = paths
    decoded = []
    images = LazyPictures(
        stream.images.shape, lambda row: decoded.append(row) or stream.images[row]
    )
    parts = [
        of(Stream(images, stream.labels, BATCH, 3, host=host, hosts=hosts)) for host in range(hosts)
    ]
    for whole, *own in zip(of(memory), *parts, strict=True):
        for name in ("image", "label", "weight", "index"):
            joined = np.concatenate([getattr(part, name) for part in own])
            np.testing.assert_array_equal(joined, getattr(whole, name))
    assert len(decoded) == len(memory) * BATCH  # padding too, and nothing on two hosts


def test_hosts_that_cannot_share_a_batch(paths):
    with pytest.raises(UsageError, match="--batch-size 6: must be a multiple of 4"):
        Stream(paths[1].images, paths[1].labels, BATCH, hosts=4)


def counted(images):
    """`images`, and a list of the rows requested so far."""
    asked = []
    return LazyPictures(images.shape, lambda row: asked.append(row) or images[row]), asked


@pytest.mark.parametrize("masked", [False, True])
def test_no_more_is_decoded_than_is_ahead(folder, masked):
    folder = replace(folder, records=folder.records * 20)
    labels = np.zeros(len(folder.records), np.int32)
    images, decoded = counted(stored_pictures(folder, SIZE))
    split = Split(images, labels, folder.records)
    stream = Stream(with_masks(split, folder).images if masked else images, labels, 2)
    batches = stream.shuffled(0)
    next(batches)
    batches.close()
    # Grain's threads hold one batch each beside their buffer.
    assert len(decoded) <= 2 * (1 + ON_DEVICE + AHEAD + 2 * os.cpu_count())


@pytest.fixture
def bank():
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), np.uint8))


def test_pictures_with_masks_and_pasted_ones_are_those_in_memory(folder, bank):
    labels = np.array([record.label for record in folder.records], np.int32)
    memory = Split(pixels(folder, SIZE), labels, folder.records)
    stored = replace(memory, images=stored_pictures(folder, SIZE))
    for change in (with_masks, lambda *of: with_pasted(*of, bank)):
        one, other = change(memory, folder), change(stored, folder)
        assert list(one.records) == list(other.records)
        whole = Batches(one.images, one.labels, BATCH, seed=3)
        stream = Stream(other.images, other.labels, BATCH, seed=3)
        assert_same(whole.shuffled(5, 1), stream.shuffled(5, 1))
        assert_same(whole.ordered(), stream.ordered())


def test_a_pass_over_pasted_pictures_makes_each_once(folder, bank):
    """Each image is decoded once as it is and once for its view, plus padding; none in advance."""
    folder = replace(folder, records=folder.records * 10)
    labels = np.zeros(190, np.int32)
    images, decoded = counted(stored_pictures(folder, SIZE))
    both = with_pasted(Split(images, labels, folder.records), folder, bank)
    assert decoded == []
    stream = Stream(both.images, both.labels, 10)
    assert len(list(stream.ordered())) == 38
    assert len(decoded) == 190 + 192


def test_a_picture_that_changed_is_named(folder, paths):
    (folder.root / folder.records[4].path).write_bytes(b"other")
    with pytest.raises(DataError, match="changed since it was checked"):
        list(paths[1].ordered())


def test_stored_pictures_are_an_array(folder):
    expected = pixels(folder, SIZE)
    stored = stored_pictures(folder, SIZE)
    assert stored.shape == expected.shape
    np.testing.assert_array_equal(stored[3:9], expected[3:9])
    np.testing.assert_array_equal(stored[np.array([7, 2])], expected[[7, 2]])
    np.testing.assert_array_equal(stored[-1], expected[-1])
    np.testing.assert_array_equal(np.stack(list(stored)), expected)
