"""`predict --crops`: rows of the CSV, `none`, the grid, sorting, and mistakes before the work."""

import csv
import dataclasses
import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from pictures import placed
from test_proposals import pasted, red_bundle

from jaxgear import cli
from jaxgear.data import crops
from jaxgear.data.folder import HEAP, pixels
from jaxgear.data.images import ImageError, load_rgb
from jaxgear.data.sources import read_new
from jaxgear.errors import DataError
from jaxgear.prediction import sorted_folder
from jaxgear.prediction.proposals.boxes import iou

OBJECT, COLUMNS = (0.1, 0.2, 0.25, 0.4), "path,left,top,right,bottom,class,probability"
SURE = 1.0  # score that no crop without red reaches


def call(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code


def rows_of(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A run that accepts what is red, a photograph with a red object, and one without."""
    monkeypatch.chdir(tmp_path)
    dataclasses.replace(red_bundle(), accept_from=SURE).save(tmp_path / "run" / "model")
    (tmp_path / "new").mkdir()
    PIL.Image.fromarray(pasted(OBJECT, noise=0)).save("new/a.png")
    PIL.Image.fromarray(np.full((300, 400, 3), 128, np.uint8)).save("new/b.png")
    return tmp_path


def test_a_row_for_each_crop_of_gear_and_one_for_a_photograph_without(here, capsys):
    assert call("predict", "run", "new", "--crops", 5, "--csv", "a.csv", "--grid", "a.png") == 0
    printed = capsys.readouterr()
    assert Path("a.csv").read_text().splitlines()[0] == COLUMNS
    *gear, none = rows_of("a.csv")
    assert 1 <= len(gear) <= 5
    assert {row["path"] for row in gear} == {"new/a.png"}
    assert {row["class"] for row in gear} == {"axes"}
    boxes = np.array([[float(row[side]) for side in COLUMNS.split(",")[1:5]] for row in gear])
    assert iou(boxes, np.array([OBJECT])).max() >= 0.5
    assert (iou(boxes, boxes) - np.eye(len(boxes)) <= 0.3).all()
    assert all(len(row["left"].partition(".")[2]) >= 4 for row in gear)
    sides = [none[side] for side in COLUMNS.split(",")[:6]]
    assert sides == ["new/b.png", "0.0000", "0.0000", "1.0000", "1.0000", "none"]
    lines = [line.split("\t") for line in printed.out.splitlines()]
    assert [line[1] for line in lines] == [row["class"] for row in (*gear, none)]
    assert lines[0][0] == crops.address("new/a.png", tuple(boxes[0]))
    with PIL.Image.open("a.png") as picture:
        assert picture.format == "PNG"


def test_the_same_rows_at_any_batch_size(here, capsys):
    texts = []
    for size in (1, 64):
        arguments = ["--crops", 4, "--batch-size", size, "--csv", "a.csv"]
        assert call("predict", "run", "new", *arguments) == 0
        texts.append(Path("a.csv").read_text())
    assert texts[0] == texts[1]


def test_the_address_of_a_crop_is_predicted_as_the_crop_was(here, capsys):
    call("predict", "run", "new/a.png", "--crops", 5, "--csv", "a.csv")
    first, *_ = capsys.readouterr().out.splitlines()
    assert call("predict", "run", first.split("\t")[0]) == 0
    assert capsys.readouterr().out.splitlines() == [first]


def test_a_table_of_crops_names_them_for_predict_next_and_unlabelled(here, capsys, monkeypatch):
    (here / "tables").mkdir()
    call("predict", "run", "new", "--crops", 5, "--csv", "tables/a.csv")
    gear = [line for line in capsys.readouterr().out.splitlines() if line.startswith("new/a.png#")]
    addresses = [line.split("\t")[0] for line in gear]
    assert call("predict", "run", "tables/a.csv") == 0
    assert capsys.readouterr().out.splitlines() == gear
    assert call("next", "run", "tables/a.csv") == 0
    chosen = capsys.readouterr().out.splitlines()
    assert chosen
    assert set(chosen) <= set(addresses)
    folder = read_new("tables/a.csv", 16)
    assert [str(folder.root / record.path) for record in folder.records] == [
        str(here / address) for address in sorted(addresses)
    ]
    assert folder.classes == (HEAP,)  # a prediction is no label
    sha256 = {crops.sha256(address, "it") for address in addresses}
    assert {record.sha256 for record in folder.records} == sha256
    assert pixels(folder, 16).shape == (len(addresses), 16, 16, 3)
    shutil.copytree(here / "new", here / "tables/new")
    monkeypatch.chdir("/")  # then paths count from the table
    assert [record.sha256 for record in read_new(str(here / "tables/a.csv"), 16).records] == [
        record.sha256 for record in folder.records
    ]


def test_a_table_without_gear_or_with_a_box_that_is_none_is_named(here, capsys):
    Path("a.csv").write_text(f"{COLUMNS}\nnew/b.png,0.0000,0.0000,1.0000,1.0000,none,0.9\n")
    assert call("predict", "run", "a.csv") == 4
    assert "a.csv: names no crop" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"a\.csv: no usable picture"):
        read_new("a.csv", 16)
    Path("a.csv").write_text(f"{COLUMNS}\nnew/b.png,0.5,0.5,0.1,1.0,axes,0.9\n")
    assert call("predict", "run", "a.csv") == 4
    assert "a.csv, line 2: no path or no box" in capsys.readouterr().err
    Path("new/a.png").rename("a.csv")  # an image may have any name
    assert call("predict", "run", "a.csv") == 0


def test_a_model_without_backgrounds_takes_every_crop_and_says_so(here, capsys):
    red_bundle().save(here / "other")
    assert call("predict", "other", "new/b.png", "--crops", 3) == 0
    assert "other takes every picture for gear" in capsys.readouterr().err


def test_an_unreadable_photograph_among_others(here, capsys):
    Path("new/c.jpg").write_text("hello")
    arguments = ["--csv", "a.csv", "--grid", "a.png"]
    assert call("predict", "run", "new", "new/gone.png", "--crops", *arguments) == 4
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert errors == ["error: new/c.jpg: text, not a picture", "error: new/gone.png: no such file"]
    assert {row["path"] for row in rows_of("a.csv")} == {"new/a.png", "new/b.png"}


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--crops", "0"], "--crops 0"),
        (["--crops", "501"], "--crops 501"),
        (["--crops", "--label-studio", "a.json"], "--label-studio"),
        (["--crops", "--grid", "a.jpg"], "--grid a.jpg"),
        (["--crops", "--copy"], "--copy"),
    ],
    ids=" ".join,
)
def test_mistakes_are_one_line_before_the_work(here, capsys, arguments, word):
    assert call("predict", "run", "new", *arguments) == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert word in line
    assert printed.out == ""
    assert sorted(os.listdir()) == ["new", "run"]  # noqa: PTH208


def sort(*more):
    return call("predict", "run", "new", "--crops", 5, "--sort", "out", *more)


@pytest.mark.parametrize("copy", [[], ["--copy"]])
def test_crops_are_sorted_as_pictures_once(here, capsys, copy):
    assert sort("--review-below", 0, *copy) == 0
    before = placed("out")
    rows = {row["file"]: row for row in rows_of("out/sorted.csv")}
    assert rows.keys() == before.keys()
    assert before["none/b.png"] == Path("new/b.png").read_bytes()
    gear = [file for file in before if file.startswith("axes/")]
    assert gear
    for file in gear:
        address = rows[file]["path"]
        photograph, box = crops.parted(address)
        assert photograph == str(here / "new/a.png")
        assert Path(file).name.startswith("a.png_0.")
        assert before[file] == crops.crop(load_rgb("new/a.png"), box)
        assert rows[file]["sha256"] == hashlib.sha256(before[file]).hexdigest()
    Path("out", gear[0]).unlink()  # what a person removes stays removed
    table = Path("out/sorted.csv").read_bytes()
    assert sort("--review-below", 0, *copy) == 0
    assert placed("out") == {file: before[file] for file in before if file != gear[0]}
    assert Path("out/sorted.csv").read_bytes() == table


def test_a_killed_sorting_of_crops_is_finished(here, monkeypatch, capsys):
    place, count = sorted_folder.SortedFolder._place, []

    def dying(self, row):
        count.append(row)
        if len(count) == 2:
            raise KeyboardInterrupt
        place(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(sorted_folder.SortedFolder, "_place", dying)
        assert sort() == 130
    assert len(placed("out")) == 1
    assert sort() == 0
    call("predict", "run", "new", "--crops", 5, "--sort", "whole")
    assert placed("out") == placed("whole")


def test_addresses_name_crops_and_only_crops(tmp_path):
    path, box = "a#b.jpg", (0.1, 0.25, 0.3333, 1.0)
    assert crops.address(path, box) == "a#b.jpg#0.1000,0.2500,0.3333,1.0000"
    assert crops.parted(crops.address(path, box)) == (path, box)
    for other in ("a.jpg", "a.jpg#1", "a#0.1,0.2,0.3,0.4", "a#0.3000,0.1000,0.3000,0.4000"):
        assert crops.parted(other) == (other, None)
    assert crops.parted("a#0.1000,0.1000,1.3000,0.4000")[1] is None
    file = tmp_path / "a#0.1000,0.1000,0.3000,0.4000"  # a file that is named so is a file
    file.write_bytes(b"whole")
    assert crops.parted(str(file)) == (str(file), None)
    assert crops.read_bytes(file, "it") == b"whole"


def test_a_crop_has_the_pixels_that_its_box_touches(tmp_path):
    image = np.arange(10 * 20 * 3, dtype=np.uint8).reshape(10, 20, 3)
    for box, part in (
        (crops.WHOLE, image),
        ((0.1, 0.2, 0.3, 0.5), image[2:5, 2:6]),
        ((0.12, 0.21, 0.29, 0.49), image[2:5, 2:6]),
        ((0.999, 0.999, 1.0, 1.0), image[9:, 19:]),
        ((0.0, 0.0, 0.0001, 0.0001), image[:1, :1]),
    ):
        np.testing.assert_array_equal(load_rgb(crops.crop(image, box)), part)
    path = tmp_path / "a.png"
    PIL.Image.fromarray(image).save(path)
    data = crops.read_bytes(f"{path}#0.1000,0.2000,0.3000,0.5000", "it")
    np.testing.assert_array_equal(load_rgb(data), image[2:5, 2:6])
    with pytest.raises(ImageError, match="it: no such file"):
        crops.read_bytes(f"{tmp_path}/gone.png#0.1000,0.2000,0.3000,0.5000", "it")
