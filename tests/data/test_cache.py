"""The cache only saves time: pixels stay right whatever happens to it."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, scene, write_set

from jaxgear.cache import user_cache
from jaxgear.data.folder import picture_cache as cache
from jaxgear.data.folder.picture_cache import Decoded, PictureCache, shrink
from jaxgear.data.folder.read import pixels, read_folder
from jaxgear.data.images import decode as images
from jaxgear.data.images import load_letterboxed

KEY = "ab" * 32


def entry(seed: int = 0) -> Decoded:
    return shrink(encoded(scene(seed)), "scene.png", 16)


def same(a: Decoded | None, b: Decoded) -> bool:
    return (
        a is not None
        and (a.height, a.width, a.descriptor) == (b.height, b.width, b.descriptor)
        and (np.array_equal(a.pixels, b.pixels))
    )


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_round_trip(own_cache: Path):
    store = PictureCache(16)
    assert store.get(KEY) is None
    store.put(KEY, entry())
    assert same(store.get(KEY), entry())
    assert same(PictureCache(16).get(KEY), entry())
    assert len(files(own_cache)) == 1, "no temporary file is left"


def test_other_sizes_and_versions_do_not_mix(monkeypatch: pytest.MonkeyPatch):
    PictureCache(16).put(KEY, entry())
    assert PictureCache(17).get(KEY) is None
    monkeypatch.setattr(images, "VERSION", images.VERSION + 1)
    assert PictureCache(16).get(KEY) is None


def test_every_damaged_byte_and_every_cut_is_noticed(own_cache: Path):
    store = PictureCache(16)
    store.put(KEY, entry())
    (path,) = files(own_cache)
    whole = path.read_bytes()
    for position in range(0, len(whole), 37):
        path.write_bytes(whole[:position])
        assert store.get(KEY) is None
        flipped = bytearray(whole)
        flipped[position] ^= 1
        path.write_bytes(flipped)
        assert store.get(KEY) is None
    path.write_bytes(whole + b"x")
    assert store.get(KEY) is None


def test_an_entry_under_a_wrong_name_is_not_used(own_cache: Path):
    store = PictureCache(16)
    store.put(KEY, entry())
    (path,) = files(own_cache)
    path.rename(path.with_name("ab" * 31 + "cd"))
    assert store.get("ab" * 31 + "cd") is None


def test_a_damaged_cache_is_repaired(tmp_path: Path, own_cache: Path):
    found = read_folder(write_set(tmp_path, {"a": 2, "b": 2}), size=16)
    expected = pixels(found, 16)
    for path in files(own_cache):
        path.write_bytes(b"junk" * 1000)
    assert read_folder(found.root, size=16) == found
    assert np.array_equal(pixels(found, 16), expected)
    assert all(len(path.read_bytes()) != 4000 for path in files(own_cache))


@pytest.mark.parametrize("obstacle", ["file", "read-only", "full"])
def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str
):
    place = tmp_path / "cache"
    attempts = []
    if obstacle == "file":
        place.write_bytes(b"")
    else:
        code = 30 if obstacle == "read-only" else 28

        def refuse(*_):
            attempts.append(1)
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(cache.Path, "replace", refuse)
    root = write_set(tmp_path / "data", {"a": 20, "b": 20})
    expected = [load_letterboxed(path.read_bytes(), 16, "") for path in sorted(root.rglob("*.png"))]
    monkeypatch.setenv("JAXGEAR_CACHE", str(place))
    found = read_folder(root, size=16)
    assert len(found.records) == 40
    assert np.array_equal(pixels(found, 16), expected)
    assert len(attempts) <= 2 * (os.cpu_count() or 1), "it stops trying"


def test_many_threads_may_write_the_same_entry():
    stores = [PictureCache(16) for _ in range(8)]
    wrong = []

    def work(store: PictureCache):
        for _ in range(20):
            store.put(KEY, entry())
            if not same(store.get(KEY), entry()):
                wrong.append(1)

    threads = [threading.Thread(target=work, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_where_the_users_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("JAXGEAR_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert user_cache() == tmp_path / "own"
    monkeypatch.setenv("JAXGEAR_CACHE", "~/c")
    assert user_cache() == tmp_path / "home" / "c"
    monkeypatch.setenv("JAXGEAR_CACHE", "$XDG_CACHE_HOME/c")
    assert user_cache() == tmp_path / "xdg" / "c"
    monkeypatch.delenv("JAXGEAR_CACHE")
    assert user_cache() == tmp_path / "xdg" / "jaxgear"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert user_cache() == tmp_path / "home" / ".cache" / "jaxgear"

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(cache.Path, "home", homeless)
    assert user_cache() is None
    root = write_set(tmp_path / "data", {"a": 1, "b": 1})
    assert len(pixels(read_folder(root, size=16), 16)) == 2
