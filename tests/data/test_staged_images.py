"""Images to store as columns: each is found by its hash, whichever bytes that ends in."""

from pathlib import Path

import numpy as np
import pytest

from jaxgear.data.folder import sortable
from jaxgear.data.images.descriptor import BYTES
from jaxgear.data.prepare.decoding.images import Images
from jaxgear.data.prepare.decoding.workshop import Staged, Workshop
from jaxgear.errors import DataError

ONE = "ab" * 31
# Ending in zeros, which NumPy's strings lose; a beginning of another; all zeros.
HASHES = [f"{ONE}00", f"{ONE}cd", "ab" * 16 + "00" * 16, "00" * 31 + "01", "ff" * 32]


def staged(sha256: str, offset: int = 0) -> Staged:
    return Staged(sha256, "11" * 32, 3, 4, Path("a.staged"), offset, 5)


def made(*hashes: str) -> Images:
    images = Images()
    for place, sha256 in enumerate(hashes):
        images.add(staged(sha256, place))
    return images


def test_each_is_found_by_its_hash():
    images = made(*HASHES)
    assert images.find(sortable(HASHES)).tolist() == [0, 1, 2, 3, 4]
    assert images.find(sortable([f"{ONE}ce", "00" * 32, f"{ONE}00"])).tolist() == [-1, -1, 0]
    assert Images().find(sortable(HASHES[:2])).tolist() == [-1, -1]
    ascending = np.unique(sortable(HASHES)).view("V32").tolist()
    assert [digest.hex() for digest in ascending] == sorted(HASHES)


def test_of_equal_ones_the_last_counts():
    images = made(HASHES[0], HASHES[1], HASHES[0])
    assert images.find(sortable(HASHES[:2])).tolist() == [2, 1]
    assert len(images.sha256()) == 2


def test_a_part_of_them_is_as_the_whole():
    images = made(*HASHES)
    some = images.take(np.array([4, 1]))
    assert len(some) == 2
    assert some.columns.tolist() == [images.columns[row].tolist() for row in (4, 1)]


def test_a_process_knows_hashes_that_end_in_zeros(tmp_path: Path):
    known = np.sort(sortable(HASHES[:3]))
    with Workshop(tmp_path, tmp_path, None, known) as shop:
        knows = [shop._knows(bytes.fromhex(sha256)) for sha256 in HASHES]
    assert knows == [True, True, True, False, False]


def test_a_file_that_was_cut_short_is_named(tmp_path: Path):
    (tmp_path / "a.staged").write_bytes(bytes(BYTES + 4))
    images = Images()
    images.add(Staged(HASHES[0], "11" * 32, 3, 4, tmp_path / "a.staged", BYTES, 5))
    assert images.descriptor(0) == bytes(BYTES)
    with pytest.raises(DataError, match=r"a\.staged: damaged; remove"):
        images.read(0)
    (tmp_path / "a.staged").write_bytes(bytes(BYTES - 1))
    with pytest.raises(DataError, match=r"a\.staged: damaged; remove"):
        images.descriptor(0)
