"""The files that count as images, and their classes: layouts, hidden files, links, names."""

import contextlib
import os
import random
import shutil
import unicodedata
from pathlib import Path

import pytest

from jaxgear.data.folder import walk
from jaxgear.data.folder.walk import list_files, list_pictures
from jaxgear.errors import DataError


def fill(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"not opened here")
    return root


def found(root: Path) -> list[tuple[str, str, str | None]]:
    return [(c.path, c.name, c.split) for c in list_pictures(root).candidates]


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


def test_splits_and_their_other_names(tmp_path: Path):
    fill(tmp_path, "train/a/1", "valid/a/2", "validation/a/3", "val/b/4", "test/b/5", "notes.txt")
    assert found(tmp_path) == [
        ("test/b/5", "b", "test"),
        ("train/a/1", "a", "train"),
        ("val/b/4", "b", "val"),
        ("valid/a/2", "a", "val"),
        ("validation/a/3", "a", "val"),
    ]
    assert list_pictures(tmp_path).ignored == ["notes.txt"]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Train", "Valid", "TEST"),
        ("training", "dev", "holdout"),
        ("train_set", "val-set", "testset"),
        ("01 Training", "02 Validation", "03 Testing"),
        ("train2017", "val2017", "hold-out"),
        ("TrainImages", "imgs_val", "test.data"),
        ("x_train", "X Validation", "tests"),
    ],
)
def test_splits_in_other_spellings(tmp_path: Path, train: str, val: str, test: str):
    fill(tmp_path, f"{train}/a/1", f"{val}/a/2", f"{test}/b/3", f"{train}/labels.csv")
    assert {(c.name, c.split) for c in list_pictures(tmp_path).candidates} == {
        ("a", "train"),
        ("a", "val"),
        ("b", "test"),
    }


@pytest.mark.parametrize("name", ["trainval", "train_val", "TrainValid"])
def test_pictures_for_training_and_validation_are_trained_on(tmp_path: Path, name: str):
    fill(tmp_path, f"{name}/a/1", "test/a/2")
    assert {path: split for path, _, split in found(tmp_path)} == {
        f"{name}/a/1": "train",
        "test/a/2": "test",
    }


@pytest.mark.parametrize("names", [("trainers", "tester"), ("holds", "vest"), ("trains", "data")])
def test_words_that_only_begin_like_a_split_are_classes(tmp_path: Path, names: tuple[str, str]):
    fill(tmp_path, *(f"{name}/a.jpg" for name in names))
    assert sorted(name for _, name, _ in found(tmp_path)) == sorted(names)


def test_one_class_may_be_called_train(tmp_path: Path):
    fill(tmp_path, "train/1.jpg", "train/more/2.jpg", "car/2.jpg", "Test/3.jpg")
    assert {name for _, name, _ in found(tmp_path)} == {"train", "car", "Test"}


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["train/a/1", "test/a/2", "boots/3"], r"splits \(test, train\) beside .* \(boots\)"),
        (["Training/a/1", "boots/3.jpg"], r"splits \(Training\) beside another folder \(boots\)"),
        (["train/a/1", "train/x.csv", "boots/3"], r"splits \(train\) beside another folder"),
        (["train/a/1", "query/a/2", "gallery/a/3"], r"splits \(train\) beside .* \(gallery\)"),
        (["train/a/1", "test/2.jpg"], r"test: a split without class folders"),
        (["train/1.jpg", "test/2.jpg"], r"a split without class folders"),
        (["train/a/1", "eval/a/2"], r"eval: unclear split; rename it to train, val or test"),
        (["fold1/a/1", "fold2/a/2"], r"fold1: unclear split"),
        (["gear/train/a/1", "gear/Test/a/2"], r"gear: holds the splits Test, train"),
        (["boots/train/1", "boots/val/2", "axes/3"], r"boots: holds the splits train, val"),
        (["boots_train/1", "boots_test/2"], r"folders boots_train and boots_test"),
        (["trainA/1", "trainB/1", "testA/2", "testB/1"], r"folders trainA and testA"),
    ],
)
def test_splits_that_are_not_clear_are_refused(tmp_path: Path, paths: list[str], message: str):
    fill(tmp_path, *paths)
    with pytest.raises(DataError, match=message):
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
def test_an_empty_class_folder_is_refused_and_no_class(tmp_path: Path, empty: str):
    fill(tmp_path, "boots/a.jpg", "axes/a.jpg", "tents/.DS_Store")
    (tmp_path / empty).mkdir(parents=True)
    listing = list_pictures(tmp_path)
    assert listing.classes == {"axes", "boots"}
    reason = "class folder without pictures; fill or remove it"
    assert [(r.path, r.reason) for r in listing.refused] == [("gloves", reason), ("tents", reason)]


def test_an_empty_class_folder_of_one_split_is_refused(tmp_path: Path):
    fill(tmp_path, "train/boots/a.jpg", "train/axes/a.jpg", "test/boots/a.jpg")
    (tmp_path / "test/axes").mkdir()
    listing = list_pictures(tmp_path)
    assert [r.path for r in listing.refused] == ["test/axes"]
    assert listing.classes == {"axes", "boots"}


@pytest.mark.parametrize(
    "left",
    [
        "boots/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
        "#recycle/old.jpg",
        "lost+found/#12345",
        "@Recycle/b.jpg",
        "boots/IMG_1.AAE",
        "boots/IMG_1.jpg.supplemental-metada.json",
        "boots/Picasa.ini",
        "boots/Icon\r",
        "boots/GOPR1.THM",
        "boots/a.jpg~",
        "boots/~$a.jpg",
        "CANONMSC/M0100.CTG",
        "$RECYCLE.BIN/a.jpg",
        "boots/a.jpg.xmp",
    ],
)
def test_what_systems_and_cameras_leave_is_ignored_and_counted(tmp_path: Path, left: str):
    fill(tmp_path, "boots/a.jpg", "axes/a.jpg", left)
    listing = list_pictures(tmp_path)
    assert [c.path for c in listing.candidates] == ["axes/a.jpg", "boots/a.jpg"]
    assert len(listing.ignored) == 1
    assert left.startswith(listing.ignored[0])
    assert listing.refused == []


@pytest.mark.parametrize("names", [("Boots", "boots"), ("STRASSE", "straße")])
def test_names_that_differ_in_case_alone(tmp_path: Path, names: tuple[str, str]):
    fill(tmp_path, *(f"{name}/a.jpg" for name in names))
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system ignores case")
    with pytest.raises(DataError, match=rf"{names[0]} and {names[1]} differ only in case"):
        list_pictures(tmp_path)


def test_case_is_compared_across_splits(tmp_path: Path):
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


def test_a_folder_that_may_not_be_entered_is_refused(tmp_path: Path, monkeypatch):
    """Mode 644: the folder can be listed, but no file in it opened."""
    fill(tmp_path, "boots/a.jpg", "boots/more/b.jpg", "axes/a.jpg", "axes/inner/c.jpg")
    stat = os.stat

    def refusing(path, **options):
        if str(path) in {f"{tmp_path}/boots/.", f"{tmp_path}/axes/inner/."}:
            raise PermissionError(13, "Permission denied")
        return stat(path, **options)

    monkeypatch.setattr(walk.os, "stat", refusing)
    listing = list_pictures(tmp_path)
    reason = "folder that cannot be listed"
    assert [(r.path, r.reason) for r in listing.refused] == [
        ("axes/inner", reason),
        ("boots", reason),
    ]
    assert [c.path for c in listing.candidates] == ["axes/a.jpg"]


def test_folders_that_vanish_meanwhile_are_refused(tmp_path: Path, monkeypatch):
    fill(tmp_path, "boots/a.jpg", "boots/more/b.jpg", "axes/a.jpg")
    real = walk._identity

    def vanishing(folder):
        if folder in (tmp_path / "axes", tmp_path / "boots/more"):
            shutil.rmtree(folder)
        return real(folder)

    monkeypatch.setattr(walk, "_identity", vanishing)
    assert [r.path for r in list_pictures(tmp_path).refused] == ["axes", "boots/more"]


def test_a_root_that_may_not_be_entered_is_an_error(tmp_path: Path, monkeypatch):
    fill(tmp_path, "boots/a.jpg", "axes/a.jpg")

    def refusing(path, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(walk.os, "stat", refusing)
    for listed in (list_pictures, list_files):
        with pytest.raises(DataError, match="cannot be listed: Permission denied"):
            listed(tmp_path)


def test_a_class_that_leads_back_to_the_root_is_told_once(tmp_path):
    (tmp_path / "train" / "axes").mkdir(parents=True)
    (tmp_path / "train" / "axes" / "0.png").write_bytes(b"x")
    (tmp_path / "train" / "loop").symlink_to(tmp_path)
    listing = list_pictures(tmp_path)
    assert [refused.path for refused in listing.refused] == ["train/loop"]
    assert listing.ignored == []
