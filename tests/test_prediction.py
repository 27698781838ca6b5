"""Predictions are those of the network, whatever the batch size, and of every file there is one."""

import dataclasses
import hashlib
import itertools

import jax
import numpy as np
import PIL.Image
import pytest
from pictures import encoded, scene, write_set
from small_bundle import CLASSES, make_bundle

from jaxgear.data.images.decode import load_rgb
from jaxgear.data.images.letterboxing import letterbox
from jaxgear.data.splits.known import KnownPictures
from jaxgear.errors import DataError
from jaxgear.prediction import predictor as prediction

SIZE = 16
BUNDLE = make_bundle()


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / "new" / f"{i:02d}.png" for i in range(9)]
    paths[0].parent.mkdir()
    for seed, path in enumerate(paths):
        path.write_bytes(encoded(scene(seed)))
    return paths


@pytest.fixture
def compiled(caplog):
    """What was compiled so far, in any thread."""
    jax.config.update("jax_log_compiles", True)
    yield lambda: [line for line in caplog.messages if line.startswith("Finished XLA compilation")]
    jax.config.update("jax_log_compiles", False)


@pytest.mark.parametrize("batch_size", [1, 4, 9, 64])
def test_predictor_is_the_network(batch_size, compiled):
    images = np.random.default_rng(0).integers(0, 256, (9, SIZE, SIZE, 3), np.uint8)
    predictor = prediction.Predictor(BUNDLE, batch_size)
    logits = predictor.logits(images)
    probs = predictor.probs(images[:5])
    assert len(compiled()) == 1
    expected = BUNDLE.program.logits(BUNDLE.weights, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(probs, jax.nn.softmax(expected[:5] / 0.5), rtol=1e-4)
    np.testing.assert_array_equal(probs.argmax(axis=1), logits[:5].argmax(axis=1))
    assert predictor.logits(images[:0]).shape == (0, len(CLASSES))


@pytest.mark.parametrize("batch_size", [1, 2, 4, 64])
def test_every_file_has_its_prediction_in_order(files, batch_size, compiled):
    files[3].write_text("no picture")
    known = hashlib.sha256(files[5].read_bytes()).hexdigest()
    bundle = dataclasses.replace(BUNDLE, pictures=KnownPictures.of([known], ["train"]))
    sources = [files[0].parent, "no/such.png"]
    found = list(prediction.predict(bundle, sources, batch_size))
    assert len(compiled()) == 1
    assert [one.path for one in found] == [*map(str, files), "no/such.png"]
    assert {i: one.error for i, one in enumerate(found) if one.error} == {
        3: "text, not a picture",
        9: "no such file",
    }
    assert [i for i, one in enumerate(found) if one.split] == [5]
    assert (found[5].split, found[5].sha256) == ("train", known)
    good = [one for one in found if not one.error]
    for one in good:
        np.testing.assert_array_equal(one.image, letterbox(load_rgb(one.path), SIZE))
    probs = prediction.Predictor(bundle, 3).probs(np.stack([one.image for one in good]))
    np.testing.assert_allclose([one.probs for one in good], probs, rtol=1e-5)


def test_one_picture_in_every_form_has_one_prediction(files):
    """As a path, its bytes, an open file, pixels and Pillow's; those of a file know their split."""
    data = files[5].read_bytes()
    known = hashlib.sha256(data).hexdigest()
    bundle = dataclasses.replace(BUNDLE, pictures=KnownPictures.of([known], ["train"]))
    (expected,) = prediction.predict(bundle, str(files[5]))
    with PIL.Image.open(files[5]) as image, files[5].open("rb") as file:
        found = list(prediction.predict(bundle, [data, file, load_rgb(data), image]))
    assert [one.path for one in found] == [f"<picture {number}>" for number in (1, 2, 3, 4)]
    assert [one.split for one in found] == ["train", "train", None, None]
    for one in found:
        np.testing.assert_array_equal(one.image, expected.image)
        np.testing.assert_allclose(one.probs, expected.probs, rtol=1e-5)


def test_a_mistake_is_said_when_predict_is_called_not_when_it_is_asked(tmp_path):
    with pytest.raises(TypeError, match="neither a path nor a picture"):
        prediction.predict(BUNDLE, 3)
    with pytest.raises(DataError, match="no pictures in this folder"):
        prediction.predict(BUNDLE, tmp_path)


def test_nothing_but_unreadable_files(files):
    files[0].write_bytes(b"")
    (only,) = prediction.predict(BUNDLE, [files[0]])
    assert (only.probs, only.error) == (None, "empty file")


def test_reads_only_a_few_batches_ahead_and_stops_when_nobody_asks(files, monkeypatch):
    """100,000 pictures need no more memory than 1,000."""
    read = []

    def count(path, name):
        read.append(path)
        return files[0].read_bytes()

    monkeypatch.setattr(prediction, "read_bytes", count)
    many = [files[0].with_name(f"{i}.png") for i in range(500)]
    found = prediction.predict_files(BUNDLE, many, batch_size=8)
    for number, _ in enumerate(itertools.islice(found, 100), 1):
        assert len(read) <= number + 5 * 8
    found.close()
    assert len(read) < 200


def test_a_folder_is_labelled_in_the_order_of_the_model(tmp_path, capsys):
    """A class that the folder lacks is said; one that the model does not know is an error."""
    bundle = make_bundle()
    write_set(tmp_path / "set", {"hardshell_jackets": 2, "boots": 1})
    split = prediction.open_labelled(str(tmp_path / "set"), bundle, "stop")
    assert [CLASSES[label] for label in split.labels] == [
        r.path.split("/")[0] for r in split.records
    ]
    assert "no pictures of class axes" in capsys.readouterr().err
    write_set(tmp_path / "set", {"gloves": 1}, start=9)
    with pytest.raises(DataError, match="set/gloves: the model knows no class 'gloves'"):
        prediction.open_labelled(str(tmp_path / "set"), bundle, "stop")


def test_what_a_picture_shares_its_batch_with_does_not_matter():
    bundle = make_bundle()
    images = np.random.default_rng(1).integers(0, 256, (40, SIZE, SIZE, 3), np.uint8)
    alone = prediction.Predictor(bundle, 1).probs(images)
    for batch_size in (3, 40, 64):
        predictor = prediction.Predictor(bundle, batch_size)
        np.testing.assert_allclose(predictor.probs(images), alone, atol=1e-6)
        backwards = predictor.probs(images[::-1])[::-1]
        np.testing.assert_allclose(backwards, alone, atol=1e-6)
