"""Parts that several machines decode: joined, they are the set that one machine writes."""

import multiprocessing
import os
import shutil
import signal
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from pictures import digests, write_set
from PIL import Image

from jaxgear.data.images import decode, encode_png
from jaxgear.data.prepare import writing
from jaxgear.data.prepare.parts import compare_part
from jaxgear.data.prepare.prepared import prepare, prepare_part
from jaxgear.data.splits import near_duplicates, stages
from jaxgear.errors import DataError, UsageError
from jaxgear.files import Lock

OPTIONS = {"size": 24, "workers": 1, "seed": 3, "say": lambda line: None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Images of two classes, one of them twice and one unusable."""
    root = write_set(tmp_path_factory.mktemp("parts") / "data", {"axes": 15, "boots": 15})
    again = sorted((root / "axes").iterdir())[0]
    (root / "axes" / "again.jpg").write_bytes(again.read_bytes())
    (root / "boots" / "broken.jpg").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory) -> dict[str, str]:
    return digests(prepare(folder, tmp_path_factory.mktemp("whole"), on_bad="skip", **OPTIONS))


def decode_all(folder, out, parts):
    return [prepare_part(folder, out, part, parts, **OPTIONS) for part in range(1, parts + 1)]


@pytest.mark.parametrize("parts", [1, 4, 16])
def test_joined_parts_are_the_set_of_one_machine_to_the_byte(
    folder, whole, parts, tmp_path, monkeypatch
):
    decode_all(folder, tmp_path, parts)
    monkeypatch.setattr(decode, "_decode", None)  # joining decodes nothing
    version = prepare(folder, tmp_path, on_bad="skip", join=True, **OPTIONS)
    assert digests(version) == whole
    assert {path.name for path in version.parent.iterdir()} == {version.name}


@pytest.mark.parametrize("compared", [(), (2,), (1, 2, 3)])
def test_near_duplicates_may_be_found_before_the_join(folder, tmp_path, compared, monkeypatch):
    """`--join` finds those of other ranges; no descriptors of a whole set are in one process."""
    root = shutil.copytree(folder, tmp_path / "data")
    for path in sorted((root / "boots").glob("*.png"))[:9]:
        again = np.asarray(Image.open(path).convert("RGB"))
        Image.fromarray(again).save(path.with_suffix(".jpg"), quality=85)
    expected = digests(prepare(root, tmp_path / "whole", on_bad="skip", **OPTIONS))
    decode_all(root, tmp_path / "out", 3)
    for part in compared:
        compare_part(tmp_path / "out", part, 3, size=24, say=lambda line: None)
    done, compare = [], stages.compare
    monkeypatch.setattr(
        stages,
        "compare",
        lambda places, part, *rest: done.append(part) or compare(places, part, *rest),
    )
    monkeypatch.setattr(near_duplicates, "groups", None)  # in memory
    assert digests(prepare(root, tmp_path / "out", on_bad="skip", join=True, **OPTIONS)) == expected
    assert done == [part for part in (1, 2, 3) if part not in compared]


def test_pairs_of_other_images_are_found_again(tmp_path):
    """An image that joined two others is deleted before the join, and another one added."""
    root = write_set(tmp_path / "data", {"axes": 12, "boots": 12})
    decode_all(root, tmp_path / "out", 2)
    for part in (1, 2):
        compare_part(tmp_path / "out", part, 2, size=24, say=lambda line: None)
    first = sorted((root / "axes").iterdir())[0]
    first.unlink()
    joined = prepare(root, tmp_path / "out", join=True, **OPTIONS)
    assert digests(joined) == digests(prepare(root, tmp_path / "alone", **OPTIONS))


def test_comparing_waits_for_all_parts(folder, tmp_path):
    prepare_part(folder, tmp_path, 1, 3, **OPTIONS)
    with pytest.raises(UsageError, match=r"--compare 1/3: not decoded yet: --part 2/3, 3/3$"):
        compare_part(tmp_path, 1, 3, size=24)


def test_unusable_images_stop_the_join_and_what_was_decoded_stays(folder, whole, tmp_path):
    decode_all(folder, tmp_path, 2)
    with pytest.raises(DataError, match=r"boots/broken\.jpg"):
        prepare(folder, tmp_path, join=True, **OPTIONS)
    assert digests(prepare(folder, tmp_path, on_bad="skip", join=True, **OPTIONS)) == whole


def test_an_unfinished_part_is_named(folder, tmp_path):
    with pytest.raises(UsageError, match=r"no part was decoded .* --part 1/N"):
        prepare(folder, tmp_path, join=True, **OPTIONS)
    for part in (1, 3, 4):
        prepare_part(folder, tmp_path, part, 4, **OPTIONS)
    with pytest.raises(UsageError, match=r"not complete yet: --part 2/4$"):
        prepare(folder, tmp_path, join=True, **OPTIONS)


def test_a_part_that_is_being_decoded_is_not_removed(folder, tmp_path):
    """By `prepare` of the whole folder meanwhile."""
    place = prepare_part(folder, tmp_path, 1, 2, **OPTIONS)
    with Lock(place / ".lock"):
        prepare(folder, tmp_path, on_bad="skip", **OPTIONS)
        assert place.is_dir()
    prepare(folder, tmp_path, on_bad="skip", **OPTIONS)
    assert not place.parent.exists()


def _killed_after(folder: Path, out: Path, images: int) -> None:
    def tick(done, total):
        if done == images:
            os.kill(os.getpid(), signal.SIGKILL)

    prepare_part(folder, out, 1, 2, **OPTIONS, tick=tick)


def test_a_killed_part_continues(folder, whole, tmp_path, monkeypatch):
    process = multiprocessing.get_context("spawn").Process(
        target=_killed_after, args=(folder, tmp_path, 9)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    names, decode_one = [], decode._decode
    monkeypatch.setattr(
        decode,
        "_decode",
        lambda data, name, *rest: names.append(name) or decode_one(data, name, *rest),
    )
    said = []
    prepare_part(folder, tmp_path, 1, 2, **OPTIONS | {"say": said.append})
    assert said[0].startswith("continuing an earlier run: ")
    prepare_part(folder, tmp_path, 2, 2, **OPTIONS)
    assert 0 < len(names) < 31 - 8  # the files of 30 images and the broken one
    assert digests(prepare(folder, tmp_path, on_bad="skip", join=True, **OPTIONS)) == whole


def test_images_that_came_since_are_named_and_decoding_again_adds_them(tmp_path):
    root = write_set(tmp_path / "data", {"axes": 12, "boots": 12})
    decode_all(root, tmp_path / "out", 3)
    write_set(root, {"axes": 1}, start=100)
    with pytest.raises(UsageError, match=r"no part has decoded axes/00100\.png"):
        prepare(root, tmp_path / "out", join=True, **OPTIONS)
    decode_all(root, tmp_path / "out", 3)
    joined = prepare(root, tmp_path / "out", join=True, **OPTIONS)
    assert digests(joined) == digests(prepare(root, tmp_path / "alone", **OPTIONS))


def test_a_damaged_part_is_named(folder, tmp_path):
    place, _ = decode_all(folder, tmp_path, 2)
    (staged,) = place.glob("*.staged")
    staged.write_bytes(staged.read_bytes()[:-3000])
    with pytest.raises(UsageError, match=r"part-1-of-2: .* is missing there"):
        prepare(folder, tmp_path, on_bad="skip", join=True, **OPTIONS)


def test_joining_takes_no_object_an_image(tmp_path, monkeypatch):
    """A record, a path and a reader as objects took 1.9 kB; columns and a shard take 0.3 kB."""
    monkeypatch.setattr(writing, "SHARD_BYTES", 10_000)
    rng, peaks, counts = np.random.default_rng(0), [], (10, 60, 300)  # the first imports TFDS
    for count in counts:
        root, out = tmp_path / f"{count}", tmp_path / f"{count}-out"
        for name in ("axes", "boots"):
            (root / name).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(0, 256, (8, 8, 3), np.uint8)
            (root / ("axes", "boots")[number % 2] / f"{number}.png").write_bytes(encode_png(image))
        for part in range(1, 5):
            prepare_part(root, out, part, 4, size=8, workers=1, say=lambda line: None)
        if count > counts[0]:
            tracemalloc.start()
        prepare(root, out, size=8, workers=1, join=True, say=lambda line: None)
        if tracemalloc.is_tracing():
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / (counts[2] - counts[1]) < 1000
