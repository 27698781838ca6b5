"""The staged entry of an image does not depend on images staged with it."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, scene

from jaxgear.data.folder import sortable
from jaxgear.data.folder.walk import Refused
from jaxgear.data.images.decode import load_rgb
from jaxgear.data.images.descriptor import describe
from jaxgear.data.images.letterboxing import letterbox
from jaxgear.data.prepare.decoding import staging, workshop
from jaxgear.data.prepare.decoding.images import Images
from jaxgear.data.prepare.decoding.workshop import Staged, Workshop, portable, staged


@pytest.mark.parametrize("size", [24, None])
def test_pictures_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int | None):
    """With known images, copies and bad files in between, in groups of every size."""
    contents = {f"{n}.png": encoded(scene(n, 30 + n, 40)) for n in range(7)}
    contents["jpeg.jpg"] = encoded(scene(8), "JPEG")
    contents["bad.jpg"], contents["copy.png"] = b"no", contents["2.png"]
    paths = sorted(contents)
    for path, data in contents.items():
        (tmp_path / path).write_bytes(data)
    sums = {path: hashlib.sha256(data).hexdigest() for path, data in contents.items()}
    known = sortable([sums["4.png"]])
    for at_once in (1, 30_000, 2**22):
        monkeypatch.setattr(workshop, "_AT_ONCE", at_once)
        place = tmp_path / f"{at_once}"
        place.mkdir()
        with Workshop(tmp_path, place, size, known) as shop:
            found = shop.stage(paths)
        by_path = dict(zip(paths, found, strict=True))
        assert by_path["bad.jpg"] == Refused("bad.jpg", "text, not a picture")
        assert (by_path["4.png"], by_path["copy.png"]) == (sums["4.png"], sums["2.png"])
        entries = [one for one in found if isinstance(one, Staged)]
        assert list(staged(place)) == entries
        assert len(entries) == 7
        images = Images()
        for entry in entries:
            images.add(entry)
        for row, entry in enumerate(entries):
            path = next(path for path, own in by_path.items() if own is entry)
            pixels = load_rgb(contents[path])
            assert entry.sha256 == sums[path]
            assert images.descriptor(row) == images.read(row)[0] == describe(pixels)
            assert (entry.height, entry.width) == pixels.shape[:2]
            if size is None:
                assert images.read(row)[1] == portable(contents[path])
            else:
                assert np.array_equal(load_rgb(images.read(row)[1]), letterbox(pixels, size))


def test_a_task_that_is_started_again_gives_its_entries_again(tmp_path: Path):
    """By the same process: the first time its answer may have been lost."""
    (tmp_path / "a.png").write_bytes(encoded(scene(1)))
    with Workshop(tmp_path, tmp_path, 24, sortable([])) as shop:
        (first,), (second,) = shop.stage(["a.png"]), shop.stage(["a.png"])
    assert isinstance(second, Staged)
    assert second == first._replace(offset=second.offset)


def test_a_process_of_a_node_serves_one_set_after_another(tmp_path: Path):
    """The second set is staged at the same place, after the files of the first are gone."""
    (tmp_path / "a.png").write_bytes(encoded(scene(1)))
    place = tmp_path / "staged"
    for _ in range(2):
        place.mkdir()
        (entry,) = staging._work_on_node(["a.png"], tmp_path, place, 24, sortable([]))
        assert list(staged(place)) == [entry]
        shutil.rmtree(place)
    staging._workshops.popitem()[1].close()
