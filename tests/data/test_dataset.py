"""The set that `--data` names, the order of the search, and the printed lines."""

import ast
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from pictures import encoded, scene, write_set

from jaxgear.data import dataset, sources
from jaxgear.data.dataset import open_dataset
from jaxgear.data.folder.lazy import LazyPictures
from jaxgear.data.folder.names import SPLITS
from jaxgear.data.synthetic.drawn import CLASSES
from jaxgear.errors import DataError


@pytest.fixture
def said():
    return []


def test_without_data_it_draws_and_says_how_to_get_photographs(tmp_path, monkeypatch, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources, "DRAWN", 60)
    found = open_dataset("", size=16, seed=0, say=said.append)
    assert found.classes == tuple(sorted(CLASSES))
    assert len(found.splits) == 60
    assert "60 drawn pictures" in said[0]
    assert "python -m jaxgear get gear" in said[0]
    assert list(tmp_path.iterdir()) == []


def test_photographs_are_taken_where_they_are(tmp_path, monkeypatch, said):
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path / "data/gear_images", {"axes": 8, "boots": 8})
    found = open_dataset("", size=16, seed=0, say=said.append)
    assert found.classes == ("axes", "boots")
    assert len(said) == 1  # the counts alone


def test_splits_hold_the_pictures_of_their_records(tmp_path, said):
    write_set(tmp_path / "set", {"axes": 12, "boots": 12})
    found = open_dataset(str(tmp_path / "set"), size=16, seed=3, say=said.append)
    (tmp_path / "run/model").mkdir(parents=True)
    (tmp_path / "run/model/bundle.json").touch()
    total = 0
    for name in SPLITS:
        split = found.test_split(tmp_path / "run") if name == "test" else found.split(name)
        assert split.images.shape == (len(split.records), 16, 16, 3)
        assert [r.label for r in split.records] == list(split.labels)
        assert found.counts()[name] == len(split.records)
        total += len(split.records)
    assert total == 24 - found.counts().get("left_out", 0)
    other = open_dataset(str(tmp_path / "set"), size=16, seed=4, say=said.append)
    assert other.splits != found.splits


def test_the_test_split_is_closed_until_there_is_a_model(tmp_path, said):
    """Only `test_split` opens it, and only `conclude` calls `test_split`."""
    write_set(tmp_path / "set", {"axes": 12, "boots": 12})
    found = open_dataset(str(tmp_path / "set"), size=16, seed=3, say=said.append)
    for name in ("test", "left_out", "x"):
        with pytest.raises(ValueError, match="not for training or choosing"):
            found.split(name)
    with pytest.raises(ValueError, match="no finished model yet"):
        found.test_split(tmp_path / "run")
    root = Path(dataset.__file__).parents[2]
    users = [
        (path.stem, function.name)
        for folder in ("jaxgear", "experiments", "scripts")
        for path in (root / folder).rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and node.attr in ("test_split", "_split")
    ]
    assert sorted(set(users)) == [
        ("conclusion", "conclude"),
        ("dataset", "split"),
        ("dataset", "test_split"),
    ]


def test_skipped_and_hidden_files_are_said(tmp_path, said):
    write_set(tmp_path / "set", {"axes": 8, "boots": 8})
    (tmp_path / "set/axes/page.jpg").write_text("<html>")
    (tmp_path / "set/.hidden").touch()
    with pytest.raises(DataError, match=r"axes/page\.jpg"):
        open_dataset(str(tmp_path / "set"), size=16, seed=0, say=said.append)
    found = open_dataset(str(tmp_path / "set"), size=16, seed=0, on_bad="skip", say=said.append)
    assert len(found.splits) == 16
    assert any("axes/page.jpg" in line for line in said)
    assert any(".hidden" in line for line in said)


def test_near_duplicates_on_a_folder_s_own_splits_are_warned_of(tmp_path, said):
    write_set(tmp_path / "set/train", {"axes": 8, "boots": 8})
    for name in ("axes", "boots"):
        (tmp_path / "set/test" / name).mkdir(parents=True)
        source = next((tmp_path / "set/train" / name).iterdir())
        with PIL.Image.open(source) as picture:
            picture.convert("RGB").save(
                tmp_path / "set/test" / name / "near-duplicate.jpg", quality=60
            )
    open_dataset(str(tmp_path / "set"), size=32, seed=0, say=said.append)
    warnings = [line for line in said if line.startswith("warning: near-duplicates")]
    assert warnings
    assert all("near-duplicate.jpg" in line for line in warnings)


def test_near_duplicates_in_two_classes_are_warned_of(tmp_path, said):
    write_set(tmp_path / "set", {"axes": 8, "boots": 8})
    with PIL.Image.open(tmp_path / "set/axes/00003.png") as picture:
        picture.convert("RGB").save(tmp_path / "set/boots/wrong.jpg", quality=60)
    open_dataset(str(tmp_path / "set"), size=32, seed=0, say=said.append)
    (warning,) = [line for line in said if line.startswith("warning")]
    assert "two classes: boots/wrong.jpg and axes/00003.png; `jaxgear check --sheet`" in warning


@pytest.mark.parametrize("count", ["drawn:0", "drawn:x", "drawn:-3"])
def test_a_count_that_is_none_is_refused(count, said):
    with pytest.raises(DataError, match=count):
        open_dataset(count, size=16, seed=0, say=said.append)


def test_drawing_works_without_a_cache(tmp_path, monkeypatch, said):
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAXGEAR_CACHE", str(tmp_path / "file"))
    found = open_dataset("drawn:60", size=16, seed=0, say=said.append)
    assert np.bincount([r.label for r in found.folder.records]).tolist() == [5] * 12


@pytest.mark.parametrize(("free", "stored"), [(10_000, True), (1_000_000, False), (None, False)])
def test_a_set_of_more_than_half_of_the_free_memory_is_streamed(
    free, stored, tmp_path, monkeypatch, said
):
    write_set(tmp_path / "set", {"axes": 12, "boots": 12})  # 24 pictures: 18 kB at 16 pixels
    found = open_dataset(str(tmp_path / "set"), size=16, seed=0, say=said.append)
    monkeypatch.setattr(dataset, "free_memory", lambda: free)
    said.clear()
    chosen = found.streamed(False, said.append)
    assert chosen.stored is stored
    assert len(said) == stored
    twice = dataclasses.replace(found, unlabelled=found.folder)  # images without labels count too
    monkeypatch.setattr(dataset, "free_memory", lambda: 40_000)
    assert not found.streamed(False, said.append).stored
    assert twice.streamed(False, said.append).stored
    forced = found.streamed(True, said.append)
    assert "(--stream)" in said[-1]
    for name in ("train", "val"):
        split, same = found.split(name), forced.split(name)
        assert isinstance(same.images, LazyPictures)
        np.testing.assert_array_equal(same.images[:], split.images)
        np.testing.assert_array_equal(same.labels, split.labels)


def test_many_near_duplicates_are_a_line_with_the_first_few(tmp_path, said):
    """One line per file could be tens of thousands of lines."""
    write_set(tmp_path / "set/train", {"axes": 12, "boots": 12})
    for name in ("axes", "boots"):
        shutil.copytree(tmp_path / "set/train" / name, tmp_path / "set/test" / name)
        for path in (tmp_path / "set/test" / name).iterdir():
            with PIL.Image.open(path) as picture:
                picture.convert("RGB").save(path.with_suffix(".jpg"))
            path.unlink()
    open_dataset(str(tmp_path / "set"), size=16, seed=0, say=said.append)
    (warning,) = [line for line in said if line.startswith("warning")]
    assert warning.count(" and test/") == 3
    assert "and 21 more; `jaxgear check" in warning


def test_many_unusable_pictures_are_a_line_too(tmp_path, said):
    write_set(tmp_path / "set", {"axes": 12, "boots": 12})
    for number in range(50):
        (tmp_path / f"set/axes/{number}.jpg").write_text("no")
        (tmp_path / f"set/axes/.{number}.jpg").write_text("no")
    open_dataset(str(tmp_path / "set"), size=16, seed=0, on_bad="skip", say=said.append)
    assert len(said) == 3
    assert "50 unusable pictures left out: axes/0.jpg, axes/1.jpg, axes/10.jpg and 47 more" in said


def test_a_class_that_is_not_tested_is_a_warning(tmp_path, said):
    write_set(tmp_path / "set", {"train/axes": 8, "train/boots": 8, "Val/axes": 2, "test/boots": 2})
    open_dataset(str(tmp_path / "set"), size=16, seed=0, say=said.append)
    assert [line for line in said if line.startswith("warning")] == [
        "warning: no val pictures of boots",
        "warning: no test pictures of axes",
    ]


def test_frames_of_one_object_are_split_by_file_where_that_is_asked_for(tmp_path, said):
    for label, name in enumerate(("axes", "boots")):
        (tmp_path / name).mkdir()
        for number in range(20):
            frame = encoded(scene(label), "JPEG", quality=60 + number)
            (tmp_path / name / f"{number}.jpg").write_bytes(frame)
    with pytest.raises(DataError, match="axes has 20 pictures to split in 1 groups"):
        open_dataset(str(tmp_path), size=16, seed=0, say=said.append)
    found = open_dataset(str(tmp_path), size=16, seed=0, group_by="file", say=said.append)
    assert set(found.splits) == {"train", "val", "test"}
    assert "warning: near-duplicates in two splits: " in said[0]
