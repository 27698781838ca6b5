"""Images of the data set are recognised, and no others."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxgear.data.folder.names import ALL
from jaxgear.data.splits.known import KnownPictures


def sha(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


@given(st.dictionaries(st.integers(0, 1000), st.sampled_from(ALL), max_size=40))
def test_agrees_with_a_dictionary(pictures):
    known = KnownPictures.of(map(sha, pictures), pictures.values())
    restored = KnownPictures.from_arrays(known.to_arrays())
    for table in (known, restored):
        assert len(table) == len(pictures)
        for number in range(50):
            assert table.split_of(sha(number)) == pictures.get(number)


def test_of_copies_the_trained_one_counts():
    for splits in (["test", "train"], ["train", "test"], ["left_out", "train"]):
        known = KnownPictures.of([sha(1), sha(1)], splits)
        assert (len(known), known.split_of(sha(1))) == (1, "train")


@pytest.mark.parametrize(
    "change",
    [
        {"sides": None},
        {"digests": np.zeros((2, 1), np.uint64)},
        {"digests": np.array([2, 1], np.uint64)},
        {"digests": np.array([1, 2], np.int64)},
        {"sides": np.array([0, 9], np.uint8)},
        {"sides": np.array([0], np.uint8)},
    ],
)
def test_what_is_no_such_table_is_refused(change):
    arrays = KnownPictures.of([sha(1), sha(2)], ["train", "val"]).to_arrays() | change
    with pytest.raises(ValueError, match="not a table"):
        KnownPictures.from_arrays({k: v for k, v in arrays.items() if v is not None})
