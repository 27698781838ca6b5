"""`--unlabelled` in whole experiments: what is left out, what is recorded, going on to the bit."""

import csv
import dataclasses
import io
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from PIL import Image
from test_experiment import recipe_of

from experiments import scratch, transfer
from jaxgear import experiment
from jaxgear.data.dataset import open_dataset
from jaxgear.data.labels import Correction, append
from jaxgear.data.sources import drawn_set
from jaxgear.data.unlabelled import NO_LABEL, hidden, unlabelled_split, with_unlabelled
from jaxgear.errors import CheckpointError, DataError
from jaxgear.training import history
from jaxgear.training.pseudo_labels import PseudoLabels

pytestmark = pytest.mark.one_cache
WEIGHTS = Path(__file__).parent / "models" / "golden" / "resnet18_width2.pth"
CONFIG = experiment.Config(data="drawn:60", image_size=16, batch_size=8, epochs=3)
EAGER = PseudoLabels(threshold=0.0)  # every image is used


@pytest.fixture(scope="module")
def heap(cache, tmp_path_factory):
    """A heap without classes: 24 pictures that `drawn:60` lacks, and near-duplicates of 9 that it
    has, three of each split.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXGEAR_CACHE", str(cache))
        ours = open_dataset("drawn:60", size=16, seed=0, say=lambda line: None)
        more = drawn_set("drawn:84")
    place = tmp_path_factory.mktemp("heap")
    known = {record.path for record in ours.folder.records}
    for path in sorted(p for p in more.rglob("*") if p.suffix in (".jpg", ".png")):
        if str(path.relative_to(more)) not in known:
            shutil.copy(path, place / f"{path.parent.name}-{path.name}")
    for split in ("train", "val", "test"):
        for record in [r for r in ours._records(split) if r.path.endswith(".jpg")][:3]:
            with Image.open(ours.folder.root / record.path) as image:
                name = f"known-{split}-{Path(record.path).stem}.jpg"
                image.convert("RGB").save(place / name, quality=80)
    return place


def dataset(source):
    ours = open_dataset("drawn:60", size=16, seed=0, say=lambda line: None)
    lines = []
    return with_unlabelled(ours, str(source), say=lines.append), lines


def train(out, make, **changes):
    config = dataclasses.replace(CONFIG, out=str(out), **changes)
    with experiment.start(config, make) as run:
        for _ in run.epochs():
            pass
        return run.finish()


def folder_of(heap, place):
    """The new pictures of the heap in class folders."""
    for path in heap.iterdir():
        name, _, rest = path.name.partition("-")
        if name != "known":
            (place / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place / name / rest)
    return place


def test_near_duplicates_of_the_set_are_left_out_whatever_their_split(heap):
    found, lines = dataset(heap)
    names = [record.path for record in found.unlabelled.records]
    assert len(names) == 24
    assert not any(name.startswith("known") for name in names)
    assert "9 left out (near-duplicates of pictures of the set)" in lines[0]
    listed = [row["path"] for row in found.describe()["unlabelled"]]
    assert listed == names


def test_a_folder_without_new_pictures_is_named():
    with pytest.raises(DataError, match=r"^--unlabelled drawn:60: no usable picture that the set"):
        dataset("drawn:60")


def test_class_folders_tell_hidden_labels_and_a_heap_none(heap, tmp_path):
    assert set(unlabelled_split(dataset(heap)[0]).labels) == {NO_LABEL}
    found, _ = dataset(folder_of(heap, tmp_path / "new"))
    classes = found.classes
    truth = [classes[hidden(label)] for label in unlabelled_split(found).labels]
    assert truth == [record.path.split("/")[0] for record in found.unlabelled.records]
    shutil.move(tmp_path / "new" / classes[0], tmp_path / "new" / "kites")  # a class of its own
    found, _ = dataset(tmp_path / "new")
    labels = unlabelled_split(found).labels
    kites = [record.path.startswith("kites") for record in found.unlabelled.records]
    assert any(kites)
    np.testing.assert_array_equal(labels == NO_LABEL, kites)


def test_a_run_records_what_it_used_and_going_on_gives_the_same_bits(heap, tmp_path):
    """Stopped after one epoch and continued, with a moving average and streamed: the same state."""
    source = folder_of(heap, tmp_path / "new")
    make = recipe_of(optax.adam, 0.01, pseudo_labels=EAGER, average=0.9)
    whole = train(tmp_path / "whole", make, unlabelled=str(source))
    config = dataclasses.replace(CONFIG, out=str(tmp_path / "cut"), unlabelled=str(source))
    with experiment.start(config, make) as run:
        next(iter(run.epochs()))
        path = run.path
    streamed = dataclasses.replace(config, resume=str(path), stream=True)
    with experiment.start(streamed, make) as run:
        for _ in run.epochs():
            pass
        state = run.state
        run.finish()
    with experiment.start(dataclasses.replace(config, resume=str(whole), epochs=3), make) as run:
        expected = run.run.latest(run.state)
    for a, b in zip(*(jax.tree.leaves(s.params) for s in (state, expected)), strict=True):
        np.testing.assert_array_equal(a, b)
    texts = [(folder / "history.csv").read_text() for folder in (whole, path)]
    rows, again = map(history.from_csv, texts)
    assert [dataclasses.replace(row, seconds=0) for row in rows] == [
        dataclasses.replace(row, seconds=0) for row in again
    ]
    assert all(row.pseudo_used == 1 for row in rows)
    assert all(0 <= row.pseudo_right < 1 for row in rows)
    assert next(csv.reader(io.StringIO(texts[0])))[-2:] == ["pseudo_used", "pseudo_right"]


def test_a_run_goes_on_with_the_same_images_alone(heap, tmp_path):
    source = tmp_path / "new"
    shutil.copytree(heap, source)
    make = recipe_of(optax.sgd, 0.01)
    config = dataclasses.replace(CONFIG, out=str(tmp_path / "runs"), unlabelled=str(source))
    with experiment.start(config, make) as run:
        next(iter(run.epochs()))
        path = run.path
    gone = next(p for p in sorted(source.iterdir()) if not p.name.startswith("known"))
    gone.unlink()
    with pytest.raises(CheckpointError, match=rf"{gone.name} \(unlabelled, removed\)"):
        experiment.start(dataclasses.replace(config, resume=str(path)), make)


def test_images_without_labels_are_named_without_dropout_and_change_what_is_learned(heap, tmp_path):
    """The same run with and without them differs, and without them has no column about them."""
    make = recipe_of(optax.sgd, 0.05, pseudo_labels=EAGER)
    folders = [train(tmp_path, make, unlabelled=source) for source in ("", str(heap))]
    rows = [history.from_csv((folder / "history.csv").read_text()) for folder in folders]
    assert rows[0][0].pseudo_used is None
    assert rows[1][0].pseudo_used == 1
    assert np.isnan(rows[1][0].pseudo_right)  # a heap: no label is known
    assert rows[0][-1].val_loss != rows[1][-1].val_loss
    assert "unlabelled" not in json.loads((folders[0] / "splits.json").read_text())


@pytest.mark.parametrize("finetune", [0, pytest.param(4, marks=pytest.mark.slow)])
def test_transfer_learns_from_them_too(heap, tmp_path, finetune):
    config = transfer.Config(
        **dataclasses.asdict(CONFIG)
        | {"image_size": 32, "epochs": 2, "unlabelled": str(heap), "out": str(tmp_path)},
        weights=str(WEIGHTS),
        finetune=finetune,
        finetune_epochs=1,
    )
    path = transfer.main(config)
    rows = history.from_csv((path / "history.csv").read_text())
    assert all(0 <= row.pseudo_used <= 1 for row in rows)


@pytest.mark.parametrize("backgrounds", ["", pytest.param("drawn", marks=pytest.mark.slow)])
def test_added_pictures_have_figures_of_their_own(heap, tmp_path, capsys, backgrounds):
    table = tmp_path / "labels.csv"
    new = [path for path in sorted(heap.iterdir()) if not path.name.startswith("known")]
    dataset = open_dataset("drawn:60", size=16, seed=0, say=lambda line: None)
    append(
        table,
        [
            Correction(str(path), "", "add", path.name.split("-")[0], "ana", "2026-11-29T12:00:00")
            for path in new
        ],
    )
    choices = {"width": 1 / 8, "labels": str(table), "added_share": 0.5, "backgrounds": backgrounds}
    config = scratch.Config(
        **dataclasses.asdict(CONFIG) | {"epochs": 1, "out": str(tmp_path)} | choices
    )
    path = scratch.main(config)
    splits = json.loads((path / "splits.json").read_text())["pictures"]
    count = {
        kind: sum(
            row["side"] == "val" and row["path"].startswith("added/") is new for row in splits
        )
        for kind, new in (("set", False), ("added", True))
    }
    figures = json.loads((path / "test.json").read_text())["validation"]
    assert count["set"] == dataset.counts()["val"]
    assert count["added"] > 0
    if backgrounds:
        count["pasted"] = sum(count.values())
    assert {kind: row["n"] for kind, row in figures.items()} == count
    right = sum(row["n"] * row["accuracy"] for row in figures.values())
    (row,) = history.from_csv((path / "history.csv").read_text())
    assert right / sum(count.values()) == pytest.approx(row.val_accuracy, abs=0.1)
    text = capsys.readouterr().out
    assert f"{count['added']} added by --labels" in text
