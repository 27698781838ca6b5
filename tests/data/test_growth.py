"""No test image, nor another version of it, is ever trained on, whatever is added to a folder and
with any seed; and old images never move to another split.
"""

import hashlib
import shutil
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import encoded, scene
from PIL import Image

from jaxgear.data.dataset import open_dataset


def other_version(seed: int, way: int) -> bytes:
    """The photograph `scene(seed)`, saved by other software."""
    pixels = scene(seed)
    size = [(64, 48), (96, 72), (48, 36), (64, 48), (128, 96)][way]
    again = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    return [
        encoded(again, "JPEG", quality=60),
        encoded(again, "JPEG", quality=90),
        encoded(again, "PNG"),
        encoded(again, "WEBP", quality=70),
        encoded(again // 2 + 100, "JPEG", quality=85),  # paler
    ][way]


def own_split(seed: int, sha256: str) -> str:
    """An independent version of the rule: a hash of seed and image, and two thresholds."""
    digest = hashlib.sha256(f"{seed}:{sha256}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    return "test" if place < 0.15 else "val" if place < 0.30 else "train"


# For every class of every stage: new images, and versions of existing images.
STAGE = st.tuples(st.integers(0, 12), st.lists(st.integers(0, 10**6), max_size=8))
STAGES = st.lists(st.tuples(STAGE, STAGE), min_size=2, max_size=4)


@pytest.mark.parametrize("examples", [3, pytest.param(25, marks=pytest.mark.slow)])
def test_no_version_of_a_test_picture_is_ever_trained_on(examples, tmp_path):
    trees = iter(range(10**6))

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(STAGES, st.integers(0, 2**31))
    def check(stages, seed):
        root = tmp_path / str(next(trees))
        photographs = {"axes": [], "boots": []}  # seeds of `scene`
        taken = iter(range(10**6))
        for number, stage in enumerate([((20, [1, 2, 3]), (20, [4, 5, 6])), *stages]):
            for (name, known), (more, again) in zip(photographs.items(), stage, strict=True):
                (root / name).mkdir(parents=True, exist_ok=True)
                for _ in range(more):
                    known.append(next(taken))
                    path = root / name / f"{known[-1]}-new.png"
                    path.write_bytes(encoded(scene(known[-1])))
                for pick in again:
                    which = known[pick % len(known)]
                    path = root / name / f"{which}-{number}-{pick}.jpg"
                    path.write_bytes(other_version(which, pick % 5))
            dataset = open_dataset(str(root), size=16, seed=seed, say=lambda line: None)
            check_splits(dataset, seed)
        shutil.rmtree(root)

    check()


def check_splits(dataset, seed: int) -> None:
    """Checks one stage: each image is in its own split or left out, so none has moved since the
    previous stage.
    """
    records = dataset.folder.records
    splits = {r.path: split for r, split in zip(records, dataset.splits, strict=True)}
    of_photograph = defaultdict(set)
    for path, split in splits.items():
        if split != "left_out":
            of_photograph[path.split("/")[1].split("-")[0]].add(split)
    mixed = {name: found for name, found in of_photograph.items() if len(found) > 1}
    # A version that is not recognised (at times one is missed) may be in another split. Recognised
    # versions always share a split.
    groups = defaultdict(set)
    for record, group in zip(records, dataset.groups, strict=True):
        groups[record.path.split("/")[1].split("-")[0]].add(group)
    assert all(len(groups[name]) > 1 for name in mixed)
    assert len(mixed) <= 1
    assert set(splits.values()) >= {"train", "val", "test"}
    for label in range(len(dataset.classes)):
        mine = [r for r in records if r.label == label and splits[r.path] != "left_out"]
        moved = [r for r in mine if splits[r.path] != own_split(seed, r.sha256)]
        # Only images that fill an empty split of a class may be elsewhere.
        assert len({dataset.groups[records.index(r)] for r in moved}) <= 2
        if moved:
            staying = {splits[r.path] for r in mine} - {splits[r.path] for r in moved}
            assert len(staying) < 3
