"""Which files count as pictures of which class: layouts, hidden files, links, names."""

import contextlib
import os
import random
import unicodedata
from pathlib import Path

import pytest

from jaxgear.data import walk
from jaxgear.data.walk import list_pictures
from jaxgear.errors import DataError


def fill(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"not opened here")
    return root


def found(root: Path) -> list[tuple[str, str, str | None]]:
    return [(c.path, c.name, c.side) for c in list_pictures(root).candidates]


def test_class_folders_sorted_and_descended_into(tmp_path: Path):
    fill(tmp_path, "boots/b.jpg", "boots/a/deep/z", "axes/x.PNG", "boots/c.txt")
    assert found(tmp_path) == [
        ("axes/x.PNG", "axes", None),
        ("boots/a/deep/z", "boots", None),
        ("boots/b.jpg", "boots", None),
        ("boots/c.txt", "boots", None),
    ]


def test_numbers_are_class_names_sorted_as_strings(tmp_path: Path):
    fill(tmp_path, "10/a.jpg", "2/a.jpg")
    assert [name for _, name, _ in found(tmp_path)] == ["10", "2"]


def test_sides_and_their_other_names(tmp_path: Path):
    fill(tmp_path, "train/a/1", "valid/a/2", "validation/a/3", "val/b/4", "test/b/5", "notes.txt")
    assert found(tmp_path) == [
        ("test/b/5", "b", "test"),
        ("train/a/1", "a", "train"),
        ("val/b/4", "b", "val"),
        ("valid/a/2", "a", "val"),
        ("validation/a/3", "a", "val"),
    ]
    assert list_pictures(tmp_path).ignored == ["notes.txt"]


def test_one_class_may_be_called_train(tmp_path: Path):
    fill(tmp_path, "train/1.jpg", "car/2.jpg", "Test/3.jpg")
    assert {name for _, name, _ in found(tmp_path)} == {"train", "car", "Test"}


def test_sides_beside_a_class_are_refused(tmp_path: Path):
    fill(tmp_path, "train/a/1", "test/a/2", "boots/3")
    with pytest.raises(DataError, match=r"sides \(test, train\) beside another folder \(boots\)"):
        list_pictures(tmp_path)


def test_hidden_and_system_files_are_ignored_and_named(tmp_path: Path):
    hidden = [".git/x", "_old/a.jpg", "__MACOSX/boots/a.jpg", ".DS_Store", "readme.txt"]
    hidden += ["boots/.a.jpg", "boots/Thumbs.db", "boots/desktop.ini", "boots/_thumbs/a.jpg"]
    hidden += ["boots/._a.jpg", "boots/.cache/a.jpg"]
    fill(tmp_path, "boots/a.jpg", "boots/_DSC0001.JPG", "axes/a.jpg", *hidden)
    listing = list_pictures(tmp_path)
    assert [c.path for c in listing.candidates] == [
        "axes/a.jpg",
        "boots/_DSC0001.JPG",
        "boots/a.jpg",
    ]
    assert listing.ignored == [
        ".DS_Store",
        ".git",
        "__MACOSX",
        "_old",
        "boots/._a.jpg",
        "boots/.a.jpg",
        "boots/.cache",
        "boots/Thumbs.db",
        "boots/_thumbs",
        "boots/desktop.ini",
        "readme.txt",
    ]
    assert listing.refused == []


def test_a_folder_named_like_a_picture_is_refused(tmp_path: Path):
    fill(tmp_path, "boots/x.jpg/inside.jpg", "boots/a.jpg", "axes/a.jpg")
    listing = list_pictures(tmp_path)
    assert [(r.path, r.reason) for r in listing.refused] == [
        ("boots/x.jpg", "a folder, not a picture")
    ]
    assert "boots/x.jpg/inside.jpg" not in [c.path for c in listing.candidates]


@pytest.mark.parametrize("empty", ["gloves", "gloves/nested"])
def test_empty_class_folder_is_an_error_by_name(tmp_path: Path, empty: str):
    fill(tmp_path, "boots/a.jpg", "axes/a.jpg")
    (tmp_path / empty).mkdir(parents=True)
    with pytest.raises(DataError, match=r"gloves: class folder without pictures"):
        list_pictures(tmp_path)


def test_a_class_of_hidden_files_only_is_empty(tmp_path: Path):
    fill(tmp_path, "boots/a.jpg", "gloves/.DS_Store")
    with pytest.raises(DataError, match="gloves: class folder without"):
        list_pictures(tmp_path)


@pytest.mark.parametrize("names", [("Boots", "boots"), ("STRASSE", "straße")])
def test_names_that_differ_in_case_alone(tmp_path: Path, names: tuple[str, str]):
    fill(tmp_path, *(f"{name}/a.jpg" for name in names))
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system ignores case")
    with pytest.raises(DataError, match=rf"{names[0]} and {names[1]} differ in case"):
        list_pictures(tmp_path)


def test_case_is_compared_across_sides(tmp_path: Path):
    fill(tmp_path, "train/Boots/1", "train/axes/1", "test/boots/2", "test/axes/2")
    with pytest.raises(DataError, match="Boots and boots differ"):
        list_pictures(tmp_path)


def test_unicode_forms_are_one_class_and_sort_alike(tmp_path: Path):
    nfd = unicodedata.normalize("NFD", "é")
    fill(tmp_path, f"train/{nfd}/é ü.jpg", f"test/é/{nfd}2.jpg", "test/f/1", "train/f/1")
    listing = list_pictures(tmp_path)
    assert listing.classes == {"é", "f"}
    # "f" sorts before "é" (NFC, one letter above ASCII) though after "e" + accent
    assert [c.name for c in listing.candidates] == ["f", "é", "f", "é"]


def test_both_forms_of_one_name_are_two_files_in_stable_order(tmp_path: Path):
    nfd = unicodedata.normalize("NFD", "é")
    fill(tmp_path, f"a/{nfd}.jpg", "a/é.jpg", "b/x")
    if len(list((tmp_path / "a").iterdir())) == 1:
        pytest.skip("this file system normalises names")
    assert [c.path for c in list_pictures(tmp_path).candidates] == [
        f"a/{nfd}.jpg",
        "a/é.jpg",
        "b/x",
    ]


def test_order_is_not_that_of_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = ["a.jpg", "B.JPG", "é.jpeg", "e\u0301 ü.png", "n" * 255, "10", "9", "Ü雪"]
    fill(tmp_path, *(f"{folder}/{name}" for folder in ("boots", "axes/deep") for name in names))
    expected = list_pictures(tmp_path)
    assert len(expected.candidates) == len(set(expected.candidates)) == 2 * len(names)
    scandir = os.scandir
    for seed in range(3):

        def shuffled(folder, seed=seed):
            with scandir(folder) as entries:
                found = list(entries)
            random.Random(seed).shuffle(found)
            return contextlib.nullcontext(found)

        monkeypatch.setattr(walk.os, "scandir", shuffled)
        assert list_pictures(tmp_path) == expected


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "\x1b[2J", "\x85"])
def test_a_class_name_can_be_printed(tmp_path: Path, name: str):
    fill(tmp_path, "boots/a.jpg", f"{name}/a.jpg")
    with pytest.raises(DataError, match="holds control characters") as error:
        list_pictures(tmp_path)
    assert str(error.value).isprintable()


def test_links_are_followed_and_loops_end(tmp_path: Path):
    outside = fill(tmp_path / "elsewhere", "p.jpg")
    root = fill(tmp_path / "data", "boots/a.jpg", "axes/a.jpg")
    (root / "boots" / "more").symlink_to(outside)
    (root / "boots" / "up").symlink_to(root)
    (root / "boots" / "self").symlink_to(root / "boots")
    (root / "boots" / "broken.jpg").symlink_to(tmp_path / "nowhere")
    (root / "boots" / "itself.jpg").symlink_to(root / "boots" / "itself.jpg")
    (root / "gloves").symlink_to(outside)
    listing = list_pictures(root)
    assert [c.path for c in listing.candidates] == [
        "axes/a.jpg",
        "boots/a.jpg",
        "boots/broken.jpg",
        "boots/itself.jpg",
        "boots/more/p.jpg",
        "gloves/p.jpg",
    ]
    assert listing.ignored == ["boots/self", "boots/up"]


def test_names_that_are_not_utf8(tmp_path: Path):
    fill(tmp_path, "boots/a.jpg", "axes/a.jpg")
    try:
        (tmp_path / "boots" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system accepts UTF-8 only")
    refused = list_pictures(tmp_path).refused
    assert [(r.path, r.reason) for r in refused] == [
        ("boots/caf\\udce9.jpg", "name that is not UTF-8")
    ]
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    with pytest.raises(DataError, match="not UTF-8; rename it"):
        list_pictures(tmp_path)


def test_no_such_folder_and_not_a_folder(tmp_path: Path):
    with pytest.raises(DataError, match=r"nowhere: no such folder"):
        list_pictures(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"file: not a folder"):
        list_pictures(tmp_path / "file")


def test_folders_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fill(tmp_path, "boots/a.jpg", "boots/locked/b.jpg", "axes/a.jpg")
    scandir = os.scandir
    locked = {tmp_path / "boots/locked"}

    def refusing(folder):
        if Path(folder) in locked:
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(walk.os, "scandir", refusing)
    listing = list_pictures(tmp_path)
    assert [r.path for r in listing.refused] == ["boots/locked"]
    locked.add(tmp_path)
    with pytest.raises(DataError, match="cannot be listed: Permission denied"):
        list_pictures(tmp_path)


def test_a_class_that_cannot_be_listed_stays_a_class(tmp_path: Path, monkeypatch):
    fill(tmp_path, "boots/a.jpg", "axes/a.jpg")
    scandir = os.scandir

    def refusing(folder):
        if Path(folder).name == "boots":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(walk.os, "scandir", refusing)
    listing = list_pictures(tmp_path)
    assert listing.classes == {"axes", "boots"}
    assert [r.path for r in listing.refused] == ["boots"]
