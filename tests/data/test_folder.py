"""A folder becomes checked records; bad files are listed; the second start decodes nothing."""

import hashlib
import os
import shutil
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from pictures import empty_cache, encoded, scene, write_set

from jaxgear.data.folder.read import pixels, read_folder
from jaxgear.data.images import decode
from jaxgear.data.images.decode import load_rgb
from jaxgear.data.images.letterboxing import letterbox
from jaxgear.data.splits.clean import conflicts, require_clean
from jaxgear.errors import DataError


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that were actually decoded, in any order."""
    seen, decode_one = [], decode._decode

    def counting(data, name, *options):
        seen.append(name)
        return decode_one(data, name, *options)

    monkeypatch.setattr(decode, "_decode", counting)
    return seen


def tree(root: Path) -> dict[str, tuple]:
    """Every file and folder below root, with the properties that a write would change."""
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in sorted(root.rglob("*"))
    }


def bad_set(root: Path) -> Path:
    """Four good images of two classes, and one bad file of each kind."""
    write_set(root, {"axes": 2, "boots": 2})
    jpeg = encoded(scene(9), "JPEG")
    (root / "boots" / "half.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (root / "boots" / "no_end.jpg").write_bytes(jpeg[:-2])
    (root / "boots" / "empty.jpg").write_bytes(b"")
    (root / "boots" / "page.jpg").write_bytes(b"<!doctype html><title>404</title>")
    (root / "boots" / "notes.txt").write_text("a note")
    (root / "boots" / "folder.jpg").mkdir()
    (root / "boots" / "gone.jpg").symlink_to(root / "nowhere.jpg")
    os.mkfifo(root / "boots" / "pipe.jpg")
    return root


def test_records(tmp_path: Path):
    root = write_set(tmp_path, {"boots": 2, "axes": 1})
    found = read_folder(root)
    assert found.root == root
    assert found.classes == ("axes", "boots")
    assert [(r.path, r.label, r.split) for r in found.records] == [
        ("axes/00002.png", 0, None),
        ("boots/00000.png", 1, None),
        ("boots/00001.png", 1, None),
    ]
    first = found.records[0]
    data = (root / first.path).read_bytes()
    assert first.sha256 == hashlib.sha256(data).hexdigest()
    assert (first.height, first.width) == (48, 64)
    assert np.array_equal(found.load(first), load_rgb(data))
    with empty_cache():
        assert read_folder(str(root)) == found


def test_pixels_are_the_letterboxed_pictures_in_record_order(tmp_path: Path):
    found = read_folder(write_set(tmp_path, {"b": 3, "a": 2}), size=32)
    for size in (32, 20):
        got = pixels(found, size)
        assert got.dtype == np.uint8
        expected = [letterbox(load_rgb(found.root / r.path), size) for r in found.records]
        assert np.array_equal(got, expected)
        with empty_cache():
            assert np.array_equal(pixels(found, size), expected)


def test_splits_are_kept(tmp_path: Path):
    root = write_set(tmp_path, {"train/a": 2, "train/b": 2, "valid/a": 1, "test/b": 1})
    assert [r.split for r in read_folder(root).records] == ["test"] + ["train"] * 4 + ["val"]


def test_second_start_decodes_nothing(tmp_path: Path, decodes: list):
    root = write_set(tmp_path, {"a": 3, "b": 3})
    first = read_folder(root, size=32)
    assert sorted(decodes) == [r.path for r in first.records]
    stored = pixels(first, 32)
    assert len(decodes) == 6, "each file is decoded once for the check and its pixels"
    decodes.clear()
    assert read_folder(root, size=32) == first
    assert np.array_equal(pixels(first, 32), stored)
    assert decodes == []


def test_an_influx_decodes_only_what_is_new(tmp_path: Path, decodes: list):
    root = write_set(tmp_path, {"a": 3, "b": 3})
    pixels(read_folder(root, size=32), 32)
    decodes.clear()
    write_set(root, {"a": 2}, start=100)
    (root / "a" / "00000.png").rename(root / "b" / "moved.png")  # known by content, not by place
    grown = read_folder(root, size=32)
    assert sorted(decodes) == ["a/00100.png", "a/00101.png"]
    assert len(pixels(grown, 32)) == 8


def test_nothing_is_written_under_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = bad_set(tmp_path / "data")
    (root / "boots" / "pipe.jpg").unlink()  # `tree` would wait for a writer
    (root / "boots" / "gone.jpg").unlink()
    before = tree(root)
    monkeypatch.setenv("JAXGEAR_CACHE", str(root / "boots" / "cache"))
    pixels(require_clean(read_folder(root, size=16), "skip"), 16)
    monkeypatch.setenv("JAXGEAR_CACHE", str(root))
    pixels(require_clean(read_folder(root, size=16), "skip"), 16)
    assert tree(root) == before


def test_bad_files_are_listed_with_reasons(tmp_path: Path):
    found = read_folder(bad_set(tmp_path))
    reasons = {r.path: r.reason for r in found.refused}
    assert reasons.pop("boots/notes.txt") == "text, not a picture"
    assert reasons.pop("boots/page.jpg") == "a web page, not a picture"
    assert reasons.pop("boots/empty.jpg") == "empty file"
    assert reasons.pop("boots/folder.jpg") == "a folder, not a picture"
    assert reasons.pop("boots/gone.jpg") == "broken symbolic link"
    assert reasons.pop("boots/pipe.jpg") == "not a regular file"
    assert "truncated" in reasons.pop("boots/half.jpg")
    assert "truncated" in reasons.pop("boots/no_end.jpg")
    assert reasons == {}
    assert len(found.records) == 4
    assert [r.path for r in found.refused] == sorted(r.path for r in found.refused)


def test_stop_names_all_and_skip_goes_on(tmp_path: Path):
    found = read_folder(bad_set(tmp_path))
    with pytest.raises(DataError) as caught:
        require_clean(found)
    first, *rest = str(caught.value).splitlines()
    assert first.startswith(f"{tmp_path}: 8 files cannot be used")
    assert "--on-bad skip" in first
    assert len(rest) == 8
    assert "  boots/page.jpg: a web page, not a picture" in rest
    kept = require_clean(found, "skip")
    assert kept.records == found.records
    assert len(kept.records) + len(kept.refused) == 12
    clean = read_folder(write_set(tmp_path / "clean", {"a": 1, "b": 1}))
    assert require_clean(clean) is clean


def test_a_long_list_is_cut(tmp_path: Path):
    write_set(tmp_path, {"a": 1, "b": 1})
    for index in range(33):
        (tmp_path / "a" / f"{index}.txt").write_text("x")
    with pytest.raises(DataError) as caught:
        require_clean(read_folder(tmp_path))
    lines = str(caught.value).splitlines()
    assert len(lines) == 22
    assert lines[-1] == f"  … and 13 more; run `python -m jaxgear check {tmp_path}`"


def test_skip_does_not_lose_a_class_silently(tmp_path: Path):
    write_set(tmp_path, {"a": 1, "b": 1, "c": 0})
    (tmp_path / "c" / "x.jpg").write_bytes(b"")
    found = read_folder(tmp_path)
    assert found.classes == ("a", "b", "c")
    with pytest.raises(DataError, match="no usable picture is left of class c"):
        require_clean(found, "skip")


def test_skip_leaves_an_empty_class_folder_out_by_name(tmp_path: Path):
    write_set(tmp_path, {"a": 1, "b": 1, "c": 0})
    found = read_folder(tmp_path)
    with pytest.raises(DataError, match=r"1 files cannot be used(.|\n)*  c: class folder without"):
        require_clean(found)
    kept = require_clean(found, "skip")
    assert kept.classes == ("a", "b")
    assert [r.path for r in kept.refused] == ["c"]


def test_same_bytes_in_two_classes(tmp_path: Path):
    root = write_set(tmp_path, {"a": 2, "b": 2})
    shutil.copy(root / "a" / "00000.png", root / "b" / "copy.png")
    found = read_folder(root)
    assert [(c.path, c.reason) for c in conflicts(found)] == [
        ("a/00000.png", "same bytes as b/copy.png, in another class"),
        ("b/copy.png", "same bytes as a/00000.png, in another class"),
    ]
    with pytest.raises(DataError, match=r"2 files(.|\n)*a/00000.png: same bytes as b/copy.png"):
        require_clean(found, "stop")
    kept = require_clean(found, "skip")
    assert [r.path for r in kept.records] == ["a/00001.png", "b/00002.png", "b/00003.png"]
    assert kept.fingerprint != found.fingerprint


def test_same_bytes_in_one_class_are_no_conflict(tmp_path: Path):
    root = write_set(tmp_path, {"a": 2, "b": 2})
    shutil.copy(root / "a" / "00000.png", root / "a" / "copy.png")
    assert conflicts(read_folder(root)) == ()


def test_same_bytes_on_two_splits_stay_on_the_evaluated_one(tmp_path: Path):
    root = write_set(tmp_path, {"train/a": 2, "train/b": 2, "val/a": 1, "test/a": 1})
    shutil.copy(root / "test/a/00005.png", root / "train/a/t.png")
    shutil.copy(root / "test/a/00005.png", root / "val/a/t.png")
    shutil.copy(root / "val/a/00004.png", root / "train/a/v.png")
    found = read_folder(root)
    assert [(c.path, c.reason) for c in conflicts(found)] == [
        ("train/a/t.png", "same bytes as test/a/00005.png, in another split"),
        ("train/a/v.png", "same bytes as val/a/00004.png, in another split"),
        ("val/a/t.png", "same bytes as test/a/00005.png, in another split"),
    ]
    with pytest.raises(DataError, match=r"train/a/t.png: same bytes as test/a/00005.png"):
        require_clean(found)
    assert len(require_clean(found, "skip").records) == 6


def test_too_few_classes(tmp_path: Path):
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"0 class folders with pictures \(none\), at least 2"):
        read_folder(tmp_path / "none")
    one = write_set(tmp_path / "one", {"boots": 3})
    with pytest.raises(DataError, match=r"1 class folders with pictures \(boots\)"):
        read_folder(one)
    assert read_folder(one, min_classes=1).classes == ("boots",)


def test_fingerprint_follows_the_content(tmp_path: Path):
    root = write_set(tmp_path / "x", {"a": 2, "b": 2})
    before = read_folder(root).fingerprint
    assert len(before) == 64
    shutil.copytree(root, tmp_path / "y")
    assert read_folder(tmp_path / "y").fingerprint == before, "not a matter of place or time"
    (root / "a" / ".hidden").write_bytes(b"x")
    assert read_folder(root).fingerprint == before

    def changed(change) -> bool:
        shutil.rmtree(tmp_path / "z", ignore_errors=True)
        shutil.copytree(root, tmp_path / "z")
        change(tmp_path / "z")
        return read_folder(tmp_path / "z").fingerprint != before

    assert changed(lambda z: (z / "a/00000.png").write_bytes(encoded(scene(77))))
    assert changed(lambda z: (z / "a/00000.png").rename(z / "a/other.png"))
    assert changed(lambda z: (z / "a/00000.png").rename(z / "b/00000.png"))
    assert changed(lambda z: (z / "a/00000.png").unlink())
    assert changed(lambda z: write_set(z, {"a": 1}, start=50))


def test_fingerprint_is_the_same_for_both_unicode_forms(tmp_path: Path):
    prints = []
    for form in ("NFC", "NFD"):
        root = write_set(tmp_path / form, {"a": 1, "b": 1})
        (root / "a" / "00000.png").rename(root / "a" / unicodedata.normalize(form, "é ü.png"))
        (root / "a").rename(root / unicodedata.normalize(form, "ä"))
        prints.append(read_folder(root).fingerprint)
    assert prints[0] == prints[1]


def test_a_file_that_changes_meanwhile_is_noticed(tmp_path: Path):
    root = write_set(tmp_path, {"a": 2, "b": 2})
    found = read_folder(root, size=20)
    (root / "a" / "00000.png").write_bytes(encoded(scene(5)))
    with pytest.raises(DataError, match=r"a/00000.png: changed since it was checked"):
        pixels(found, 16)
    (root / "a" / "00000.png").unlink()
    with pytest.raises(DataError, match=r"a/00000.png: no such file"):
        pixels(found, 16)


def test_real_crops(shared: Path):
    found = read_folder(shared / "data" / "wild", size=32)
    assert found.refused == ()
    assert len(found.records) == 97
    assert pixels(found, 32).std() > 20


@pytest.mark.slow
def test_real_catalogue(shared: Path):
    """On a busy machine some 10 ms a picture at first, well under 1 ms later."""
    root = shared / "data" / "gear"
    found = read_folder(root)
    assert len(found.classes) == 12
    assert require_clean(found) is found
    start = time.perf_counter()
    assert read_folder(root) == found
    assert pixels(found, 128).shape == (len(found.records), 128, 128, 3)
    assert time.perf_counter() - start < 4
