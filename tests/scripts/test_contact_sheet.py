"""Pages of cut-outs: each class in turn, the picture beside its object on magenta."""

import numpy as np
import pytest
from pictures import write_set
from PIL import Image, ImageDraw

from scripts import contact_sheet
from scripts.contact_sheet import ACROSS, CELL, DOWN, MAGENTA


def call(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["contact_sheet", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        contact_sheet.main()
    return stop.value.code


@pytest.fixture
def folder(tmp_path):
    """Red and green rectangles on white, of two classes."""
    for name, colour in (("axes", "red"), ("boots", "green")):
        (tmp_path / "gear" / name).mkdir(parents=True)
        for number in range(3):
            image = Image.new("RGB", (120, 120 + number), "white")
            ImageDraw.Draw(image).rectangle((30, 30, 90, 90), fill=colour)
            image.save(tmp_path / "gear" / name / f"{number}.png")
    return tmp_path / "gear"


def test_a_page_shows_pictures_of_all_classes_and_their_objects(folder, tmp_path, monkeypatch):
    assert call(monkeypatch, folder, tmp_path / "out", "--pages", 1) == 0
    (page,) = (tmp_path / "out").iterdir()
    assert page.name == "cutouts-1.png"
    pixels = np.asarray(Image.open(page))
    assert pixels.shape == (CELL * DOWN, 2 * CELL * ACROSS, 3)
    cells = pixels[:CELL].reshape(CELL, 2 * ACROSS, CELL, 3).swapaxes(0, 1)
    for place, colour in enumerate([(255, 0, 0), (0, 128, 0)] * 3):  # axes and boots in turn
        there, alone = cells[2 * place : 2 * place + 2]
        for split in (there, alone):
            assert (split[60, 60] == colour).all()
        assert (there[110, 60] == 255).all()  # white there, magenta behind the object alone
        assert (alone[110, 60] == MAGENTA).all()
    assert (pixels[CELL:] == 255).all()  # six pictures are one row


def test_pages_beyond_the_pictures_are_not_written(folder, tmp_path, monkeypatch):
    assert call(monkeypatch, folder, tmp_path / "out", "--pages", 3) == 0
    assert [page.name for page in (tmp_path / "out").iterdir()] == ["cutouts-1.png"]


def test_the_same_folder_gives_the_same_pages(tmp_path, monkeypatch):
    write_set(tmp_path / "gear", {"axes": 30, "boots": 12})
    for out in ("one", "two"):
        assert call(monkeypatch, tmp_path / "gear", tmp_path / out) == 0
    names = sorted(page.name for page in (tmp_path / "one").iterdir())
    assert names == ["cutouts-1.png", "cutouts-2.png"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_mistakes_are_one_line(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    (folder / "axes" / "text.jpg").write_text("no picture")
    (tmp_path / "file").write_text("")
    good = write_set(tmp_path / "good", {"axes": 1, "boots": 1})
    for words, code, said in (
        ([tmp_path / "none", tmp_path / "out"], 4, "none"),
        ([tmp_path / "empty", tmp_path / "out"], 4, "empty"),
        ([folder, tmp_path / "out"], 4, "text.jpg"),
        ([folder, tmp_path / "out", "--pages", 0], 2, "--pages 0"),
        ([good, tmp_path / "file" / "out"], 2, "file/out"),
    ):
        assert call(monkeypatch, *words) == code
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert said in line
    assert not (tmp_path / "out").exists()
