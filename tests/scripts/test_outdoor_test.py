"""The composite test: objects of the split that was asked for, never a training photograph."""

import hashlib
import json

import numpy as np
import pytest
from made_runs import write_run
from pictures import write_set
from PIL import Image, ImageDraw

from jaxgear.data.composites import bank
from jaxgear.data.images.decode import load_rgb
from jaxgear.errors import UsageError
from scripts import outdoor_test


@pytest.fixture
def run(tmp_path):
    """A run of one red and two green pictures; the red one is of the test split."""
    made = write_run(tmp_path / "run", data=str(tmp_path / "gear"))
    splits = json.loads((made / "splits.json").read_text())
    (tmp_path / "gear" / "axes").mkdir(parents=True)
    for picture, colour in zip(splits["pictures"], ("green", "green", "red"), strict=True):
        picture["path"] = f"axes/{picture['side']}.png"
        image = Image.new("RGB", (60, 80), "white")
        ImageDraw.Draw(image).rectangle((10, 10, 50, 70), fill=colour)
        image.save(tmp_path / "gear" / picture["path"])
        data = (tmp_path / "gear" / picture["path"]).read_bytes()
        picture["sha256"] = hashlib.sha256(data).hexdigest()
    (made / "splits.json").write_text(json.dumps(splits))
    write_set(tmp_path / "gear", {"boots": 1})  # a set has two classes
    write_set(tmp_path, {"photos": 10})
    return made


def test_composites_are_of_the_side_and_repeat(run, tmp_path):
    for out in ("one", "two"):
        assert outdoor_test.build(run, tmp_path / "photos", tmp_path / out, "test", "", 3) == 1
    first, second = (next((tmp_path / out / "axes").iterdir()) for out in ("one", "two"))
    tested = (tmp_path / "gear/axes/test.png").read_bytes()
    assert first.name == second.name == hashlib.sha256(tested).hexdigest()[:16] + ".jpg"
    assert first.read_bytes() == second.read_bytes()
    pixels = load_rgb(first).astype(int)
    red = (pixels[..., 0] > 1.5 * pixels[..., 1]) & (pixels[..., 0] > 1.5 * pixels[..., 2])
    assert red.mean() > 0.1
    assert (pixels.min(axis=-1) > 250).mean() < 0.2  # its white stayed behind
    with pytest.raises(UsageError, match="already"):
        outdoor_test.build(run, tmp_path / "photos", tmp_path / "one", "test", "", 3)


def test_only_photographs_of_the_test_half_are_used(run, tmp_path, monkeypatch):
    halves = []
    real = bank.photographs
    monkeypatch.setattr(
        outdoor_test, "photographs", lambda folder, half: halves.append(half) or real(folder, half)
    )
    outdoor_test.build(run, tmp_path / "photos", tmp_path / "out", "val", "", 0)
    assert halves == ["test"]


@pytest.mark.parametrize("seed", range(4))
def test_any_shape_can_be_pasted(seed):
    rng = np.random.default_rng(seed)
    tall = np.full((90, 20, 4), 255, np.uint8)
    tall[10:80, 5:15, :3] = 30
    made = outdoor_test.composite(tall, rng.integers(0, 255, (40, 200, 3), np.uint8), rng)
    assert made.size == (outdoor_test.SIDE, outdoor_test.SIDE)
