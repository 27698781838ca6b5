"""The drawn set: deterministic, of every class, varied, and beyond a linear model on pixels."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxgear.data.synthetic import drawn
from jaxgear.data.synthetic.drawn import CLASSES, MARKER, draw, write_drawn
from jaxgear.errors import DataError


def picture(seed: int, index: int, size: int = 64) -> Image.Image:
    rng = np.random.default_rng([seed, index])
    return draw(CLASSES[index % len(CLASSES)], rng, size)


def pixels(image: Image.Image, side: int) -> np.ndarray:
    """Letterboxed on white: u8 [side, side, 3]."""
    canvas = Image.new("RGBA", (max(image.size),) * 2, "white")
    image = image.convert("RGBA")
    place = ((canvas.width - image.width) // 2, (canvas.height - image.height) // 2)
    canvas.alpha_composite(image, place)
    return np.asarray(canvas.convert("RGB").resize((side, side), Image.Resampling.BOX))


def files(folder) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MARKER
    }


@pytest.mark.parametrize("class_name", CLASSES)
def test_same_state_same_picture(class_name):
    one, two = (draw(class_name, np.random.default_rng([3, 5])) for _ in range(2))
    assert one.mode == two.mode
    assert one.tobytes() == two.tobytes()
    assert max(one.size) == 160


def test_every_class_is_drawn_in_many_ways():
    for index in range(len(CLASSES)):
        views = [pixels(picture(0, index + 12 * k), 32).astype(int) for k in range(6)]
        for k, view in enumerate(views):
            assert view.std() > 5  # something is there
            for other in views[:k]:
                assert np.abs(view - other).mean() > 3


def test_some_are_transparent_and_some_are_on_scenery():
    drawn = [picture(1, i) for i in range(240)]
    clear = [p for p in drawn if p.mode == "RGBA"]
    assert 12 <= len(clear) <= 50
    for p in clear:
        alpha = np.asarray(p.getchannel("A"))
        assert alpha.min() == 0
        assert alpha.max() == 255
    opaque = [np.asarray(p) for p in drawn if p.mode == "RGB"]
    # A studio background has one colour along its top edge or is faint; scenery has texture below.
    busy = [p for p in opaque if np.abs(np.diff(p[-3].astype(int), axis=0)).mean() > 5]
    white = [p for p in opaque if p[0].min() >= 235 and p[-1].min() >= 235]
    assert len(busy) >= 15
    assert len(white) >= 80


def test_picture_does_not_depend_on_how_many_are_asked_for(tmp_path):
    few = files(write_drawn(tmp_path / "few", 14, seed=2, size=48))
    many = files(write_drawn(tmp_path / "many", 40, seed=2, size=48))
    other = files(write_drawn(tmp_path / "other", 14, seed=3, size=48))
    assert len(few) == 14
    assert len(many) == 40
    assert few.items() <= many.items()
    assert not set(few.values()) & set(other.values())


def test_classes_are_balanced_and_both_formats_are_written(tmp_path):
    folder = write_drawn(tmp_path / "drawn", 96, size=48)
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == sorted(CLASSES)
    for name in CLASSES:
        assert len(list((folder / name).iterdir())) == 8
    kinds = set()
    for path in folder.glob("*/*"):
        with Image.open(path) as image:
            kinds.add((path.suffix, image.mode))
    assert kinds == {(".jpg", "RGB"), (".png", "RGBA")}


def test_complete_folder_is_reused_and_a_damaged_or_other_one_replaced(tmp_path):
    folder = write_drawn(tmp_path / "drawn", 24, size=48)
    before = files(folder)
    kept = next(folder.glob("*/*.jpg"))
    stamp = kept.stat().st_mtime_ns
    write_drawn(folder, 24, size=48)
    assert kept.stat().st_mtime_ns == stamp
    kept.unlink()
    write_drawn(folder, 24, size=48)
    assert files(folder) == before
    write_drawn(folder, 12, size=48)
    assert len(files(folder)) == 12
    assert json.loads((folder / MARKER).read_text())["count"] == 12
    assert [p.name for p in tmp_path.iterdir()] == ["drawn"]  # no leftovers


def test_files_of_others_are_never_touched(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match="mine"):
        write_drawn(tmp_path / "mine", 12)
    assert (tmp_path / "mine" / "photo.jpg").read_bytes() == b"x"
    with pytest.raises(DataError, match=r"photo\.jpg"):
        write_drawn(tmp_path / "mine" / "photo.jpg", 12)


@pytest.mark.parametrize(
    ("train", "test"), [(360, 240), pytest.param(1000, 400, marks=pytest.mark.slow)]
)
def test_linear_model_on_pixels_fails(train, test):
    from sklearn.linear_model import LogisticRegression

    x = np.stack([pixels(picture(0, i), 32) for i in range(train + test)]).reshape(-1, 32 * 32 * 3)
    x = (x - x[:train].mean(0)) / 255
    y = np.arange(train + test) % len(CLASSES)
    # 0.01 is the best C of 1e-4 to 1e-1 at both sizes.
    linear = LogisticRegression(C=0.01, tol=1e-2, max_iter=200).fit(x[:train], y[:train])
    accuracy = linear.score(x[train:], y[train:])
    assert 1.3 / 12 < accuracy < 0.6  # better than chance, far from solved


def test_a_folder_that_another_process_has_drawn_meanwhile_stays(tmp_path, monkeypatch):
    """Another host may read it already: hosts that start together draw the same set."""
    folder, drawn_by_us = tmp_path / "drawn", drawn.draw

    def slower(*arguments):
        if not folder.exists():
            monkeypatch.setattr(drawn, "draw", drawn_by_us)
            drawn.write_drawn(folder, 12)
            slower.there = folder.stat().st_ino
        return drawn_by_us(*arguments)

    monkeypatch.setattr(drawn, "draw", slower)
    assert drawn.write_drawn(folder, 12) == folder
    assert folder.stat().st_ino == slower.there
    assert list(tmp_path.iterdir()) == [folder]
