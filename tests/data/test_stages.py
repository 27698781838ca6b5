"""Near-duplicates over files: the groups that are found in memory, for any number of parts."""

import hashlib

import numpy as np
import pytest
from test_near_duplicates import noisy

from jaxgear.data.folder import Record
from jaxgear.data.splits import near_duplicate_groups, stages


def in_memory(descriptors: dict[str, bytes]) -> dict[str, str]:
    records = [Record("", sha, 0, None, 1, 1, look) for sha, look in descriptors.items()]
    return dict(zip(descriptors, near_duplicate_groups(records), strict=True))


def in_stages(descriptors, parts, folder, seed=0, without=()) -> dict[str, str]:
    """Each image in a random part, some also in a second one."""
    rng = np.random.default_rng(seed)
    own = [{} for _ in range(parts)]
    for sha256, look in descriptors.items():
        for part in {*rng.integers(0, parts, rng.integers(1, 3)).tolist()}:
            own[part][sha256] = look
    folders = [folder / str(part) for part in range(parts)]
    for place, found in zip(folders, own, strict=True):
        place.mkdir()
        stages.sign(place, parts, found)
    pairs = [stages.compare(folders, part + 1, without) for part in range(parts)]
    groups = stages.components(np.concatenate(pairs))
    return {sha: groups.get(sha, sha)[:12] for sha in descriptors if sha not in without}


def named(looks) -> dict[str, bytes]:
    return {hashlib.sha256(b"%d" % n).hexdigest(): look for n, look in enumerate(looks)}


@pytest.fixture(scope="module")
def looks() -> dict[str, bytes]:
    """Near-duplicates of 12 images to just above the limits; bursts of two others, and blanks."""
    rng = np.random.default_rng(0)
    burst = noisy(range(20, 22), range(0, 6), (96, 120)) * 30
    some = [bytes([9, 0, 9, 0]) + rng.integers(0, 256, 544, np.uint8).tobytes() for _ in range(99)]
    blank = [bytes([9, 0, 9, 0]) + b"\xff" * 544] * 50
    return named(noisy(range(12), range(0, 60, 4), (72, 90)) + burst + some + blank)


@pytest.mark.parametrize("parts", [1, 4, 16])
def test_groups_are_those_in_memory_for_any_number_of_parts(looks, parts, tmp_path):
    expected = in_memory(looks)
    assert in_stages(looks, parts, tmp_path) == expected
    sizes = sorted(np.unique(list(expected.values()), return_counts=True)[1])
    assert sizes[-1] >= 100
    assert sizes.count(1) > 100


def test_images_that_do_not_count_join_no_others(looks, tmp_path):
    without = set(list(looks)[::3])
    kept = {sha: look for sha, look in looks.items() if sha not in without}
    assert in_stages(looks, 2, tmp_path, without=without) == in_memory(kept) != in_memory(looks)


@pytest.mark.parametrize("looks", [{}, {"ab" * 32: bytes([9, 0, 9, 0]) + bytes(544)}])
def test_few_images(looks, tmp_path):
    assert in_stages(looks, 3, tmp_path) == {sha: sha[:12] for sha in looks}


def test_a_digest_is_of_the_images(looks, tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for place, own in zip(folders, (dict(list(looks.items())[:9]), looks), strict=True):
        place.mkdir()
        stages.sign(place, 2, own)
    digest = stages.digest(folders)
    assert digest == stages.digest(folders)
    assert len({digest, stages.digest(folders[1:]), stages.digest(folders, ["ab"])}) == 3


def test_hashes_that_end_in_zeros_are_whole(looks, tmp_path):
    named_so = {sha[:-8] + "0" * 8: look for sha, look in list(looks.items())[:120]}
    named_so = {"0" * 64: next(iter(named_so.values())), **named_so}
    without = {list(named_so)[5]}
    kept = {sha: look for sha, look in named_so.items() if sha not in without}
    assert in_stages(named_so, 2, tmp_path, without=without) == in_memory(kept)
