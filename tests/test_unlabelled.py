"""`--unlabelled` in whole experiments: what is left out, what is recorded, going on to the bit."""

import dataclasses
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
from jaxgear.bundle import Bundle
from jaxgear.data.composites.bank import drawn_backgrounds
from jaxgear.data.dataset import open_dataset
from jaxgear.data.labels import Correction, append
from jaxgear.data.recorded import describe_unlabelled, with_recorded_labels
from jaxgear.data.sources import drawn_set
from jaxgear.data.unlabelled import how_used, pseudo_labelled, with_unlabelled
from jaxgear.errors import CheckpointError, DataError
from jaxgear.training import history

pytestmark = pytest.mark.one_cache
WEIGHTS = Path(__file__).parent / "models" / "golden" / "resnet18_width2.pth"
CONFIG = experiment.Config(data="drawn:60", image_size=16, batch_size=8, epochs=3)


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
        for record in [r for r in ours._split(split).records if r.path.endswith(".jpg")][:3]:
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


@pytest.fixture(scope="module")
def plain(cache, tmp_path_factory):
    """The history of a run on the labels alone, and its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXGEAR_CACHE", str(cache))
        folder = train(tmp_path_factory.mktemp("plain"), recipe_of(optax.sgd, 0.05))
    return rows_of(folder), folder


def rows_of(folder):
    return history.from_csv((folder / "history.csv").read_text())


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


def test_a_folder_without_new_pictures_is_named():
    with pytest.raises(DataError, match=r"^--unlabelled drawn:60: no usable picture that the set"):
        dataset("drawn:60")


PROBS = np.array([[9, 1], [8, 2], [7, 3], [6, 4], [5.5, 4.5], [2, 8], [3, 7], [5.1, 4.9]]) / 10


@pytest.mark.parametrize(
    ("share", "used"),
    [(1.0, range(8)), (0.5, [0, 1, 2, 5]), (0.3, [0, 1, 5]), (0.01, [0, 5]), (0.0, [])],
)
def test_the_most_probable_share_of_each_class_is_used(heap, share, used):
    """Class 0 is named six times, class 1 twice: each gives its own share, rounded up."""
    found, _ = dataset(heap)
    some = dataclasses.replace(found.unlabelled, records=found.unlabelled.records[:8])
    probs = np.pad(PROBS, ((0, 0), (0, len(found.classes) - 2)))
    named = pseudo_labelled(dataclasses.replace(found, unlabelled=some), probs, share)
    assert [p.label for p in named.pseudo_labels] == PROBS.argmax(axis=1).tolist()
    assert [p.probability for p in named.pseudo_labels] == PROBS.max(axis=1).tolist()
    assert [row for row, p in enumerate(named.pseudo_labels) if p.used] == list(used)
    counts = np.array(found.training_counts())
    counts[:2] += np.bincount(PROBS.argmax(axis=1)[list(used)], minlength=2)
    assert named.training_counts() == tuple(counts)
    assert [row["used"] for row in describe_unlabelled(named)] == [
        p.used for p in named.pseudo_labels
    ]


def test_pictures_without_gear_are_never_used(heap):
    """The share is of the others; a resumed run has the same pictures without gear."""
    found, _ = dataset(heap)
    some = dataclasses.replace(found.unlabelled, records=found.unlabelled.records[:8])
    some = dataclasses.replace(found, unlabelled=some)
    probs = np.pad(PROBS, ((0, 0), (0, len(found.classes) - 2)))
    gear = np.array([False, True, True, False, True, True, False, False])
    named = pseudo_labelled(some, probs, 0.5, gear)
    assert [row for row, p in enumerate(named.pseudo_labels) if p.used] == [1, 2, 5]
    assert [p.gear for p in named.pseudo_labels] == gear.tolist()
    again = with_recorded_labels(describe_unlabelled(named), some)
    assert again.pseudo_labels == named.pseudo_labels


def test_names_of_class_folders_are_compared_and_never_learned(heap, tmp_path):
    """`how_used` counts against them; a heap, or a folder that is no class, tells nothing."""
    source = folder_of(heap, tmp_path / "new")
    found, _ = dataset(source)
    folder, classes = found.unlabelled, found.classes
    truth = np.array([classes.index(folder.classes[record.label]) for record in folder.records])
    wrong = (truth + (np.arange(len(truth)) < 6)) % len(classes)
    probs = np.eye(len(classes))[wrong]
    assert how_used(pseudo_labelled(found, probs, 1.0)) == (1.0, 18 / 24)
    of_heap, _ = dataset(heap)
    share, right = how_used(pseudo_labelled(of_heap, probs, 1.0))
    assert share == 1
    assert np.isnan(right)
    shutil.move(source / classes[0], source / "kites")
    other, _ = dataset(source)
    others = [name for name in other.unlabelled.classes if name != "kites"]
    assert len(others) == len(classes) - 1
    labels = [
        classes.index(name) if (name := other.unlabelled.classes[r.label]) in classes else 0
        for r in other.unlabelled.records
    ]
    assert how_used(pseudo_labelled(other, np.eye(len(classes))[labels], 1.0)) == (1.0, 1.0)


def test_a_run_records_what_it_used_and_going_on_gives_the_same_bits(heap, tmp_path, capsys):
    """Stopped after one epoch and continued streamed: the same state, and no round is repeated."""
    source = folder_of(heap, tmp_path / "new")
    make = recipe_of(optax.adam, 0.01, average=0.9)
    whole = train(tmp_path / "whole", make, unlabelled=str(source))
    config = dataclasses.replace(CONFIG, out=str(tmp_path / "cut"), unlabelled=str(source))
    with experiment.start(config, make) as run:
        next(iter(run.epochs()))
        path = run.path
    assert "first round: " in capsys.readouterr().out
    streamed = dataclasses.replace(config, resume=str(path), stream=True)
    with experiment.start(streamed, make) as run:
        for _ in run.epochs():
            pass
        state = run.state
        run.finish()
    assert "first round: " not in capsys.readouterr().out
    with experiment.start(dataclasses.replace(config, resume=str(whole)), make) as run:
        expected = run.run.latest(run.state)
    for a, b in zip(*(jax.tree.leaves(s.params) for s in (state, expected)), strict=True):
        np.testing.assert_array_equal(a, b)
    rows, again = map(rows_of, (whole, path))
    assert [dataclasses.replace(row, seconds=0) for row in rows] == [
        dataclasses.replace(row, seconds=0) for row in again
    ]
    header = (whole / "history.csv").read_text().splitlines()[0]
    assert header.split(",")[-2:] == ["pseudo_used", "pseudo_right"]
    splits = json.loads((whole / "splits.json").read_text())
    used = [row for row in splits["unlabelled"] if row["used"]]
    assert rows[0].pseudo_used == len(used) / 24
    right = sum(row["path"].startswith(row["pseudo_label"]) for row in used)
    assert rows[0].pseudo_right == right / len(used)
    names = {row["path"] for row in splits["pictures"]}
    assert not names & {row["path"] for row in splits["unlabelled"]}
    bundle = Bundle.load(whole)
    for row in splits["unlabelled"]:  # `next` and `evaluate` know what was trained on
        assert bundle.split_of(row["sha256"]) == ("train" if row["used"] else None)


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
    config = dataclasses.replace(config, resume=str(path))
    with pytest.raises(CheckpointError, match=rf"{gone.name} \(unlabelled, removed\)"):
        experiment.start(config, make)
    with experiment.start(dataclasses.replace(config, allow_data_change=True), make) as run:
        recorded = json.loads((path / "splits.json").read_text())["unlabelled"]
        for record, label in zip(
            *(run.dataset.unlabelled.records, run.dataset.pseudo_labels),
            strict=True,
        ):
            (row,) = [row for row in recorded if row["sha256"] == record.sha256]
            assert label.used == row["used"]


def test_a_run_without_such_images_cannot_go_on_with_them_and_a_share_of_none_is_as_without(
    heap, plain, tmp_path
):
    make = recipe_of(optax.sgd, 0.05, pseudo_labels=0.0)
    expected, folder = plain
    rows = rows_of(train(tmp_path, make, unlabelled=str(heap)))
    assert [row.val_loss for row in rows] == [row.val_loss for row in expected]
    assert rows[0].pseudo_used == 0
    config = dataclasses.replace(CONFIG, resume=str(folder), unlabelled=str(heap), epochs=4)
    with pytest.raises(CheckpointError, match=r"\(unlabelled, added\)"):
        experiment.start(config, make)


def test_pseudo_labels_change_what_is_learned(heap, plain, tmp_path):
    rows = [plain[0]]
    for share in (0.5, 0.01):
        make = recipe_of(optax.sgd, 0.05, pseudo_labels=share)
        rows.append(rows_of(train(tmp_path, make, unlabelled=str(heap))))
    assert rows[0][0].pseudo_used is None
    assert 0 < rows[2][0].pseudo_used < rows[1][0].pseudo_used
    assert np.isnan(rows[1][0].pseudo_right)  # a heap: no label is known
    assert len({of[-1].val_loss for of in rows}) == 3


@pytest.mark.parametrize("finetune", [0, pytest.param(4, marks=pytest.mark.slow)])
def test_transfer_learns_from_them_too(heap, tmp_path, finetune):
    config = transfer.Config(
        **dataclasses.asdict(CONFIG)
        | {"image_size": 32, "epochs": 2, "unlabelled": str(heap), "out": str(tmp_path)},
        weights=str(WEIGHTS),
        finetune=finetune,
        finetune_epochs=1,
    )
    rows = rows_of(transfer.main(config))
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

    def make(config, data):
        paste = data.backgrounds(config.paste)
        return recipe_of(optax.sgd, 0.05, added=0.5, augment=paste)(config, data)

    path = train(tmp_path, make, epochs=1, labels=str(table), backgrounds=backgrounds)
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
    (row,) = rows_of(path)
    assert right / sum(count.values()) == pytest.approx(row.val_accuracy, abs=0.1)
    text = capsys.readouterr().out
    assert f"{count['added']} added by --labels" in text


@pytest.mark.slow
def test_pictures_without_gear_are_told_apart(heap, tmp_path, capsys):
    """Drawn backgrounds among the drawn gear; the evidence of gear knows other backgrounds."""
    source = tmp_path / "new"
    shutil.copytree(heap, source)
    for number, scene in enumerate(drawn_backgrounds(16, 48, seed=9)):
        Image.fromarray(scene).save(source / f"scene-{number}.png")
    config = scratch.Config(
        **dataclasses.asdict(CONFIG)
        | {"image_size": 32, "epochs": 12, "out": str(tmp_path), "unlabelled": str(source)}
        | {"backgrounds": "drawn", "width": 1 / 4},
    )
    path = scratch.main(config)
    rows = json.loads((path / "splits.json").read_text())["unlabelled"]
    gear = {kind: [row["gear"] for row in rows if row["path"].startswith("scene") == kind]
            for kind in (True, False)}  # fmt: skip
    assert len(gear[True]) == 16
    assert np.mean(gear[True]) < 0.3
    assert np.mean(gear[False]) > 0.6
    assert not any(row["used"] and not row["gear"] for row in rows)
    left_out = sum(not row["gear"] for row in rows)
    assert f"{left_out} of 40 pictures without labels show no gear" in capsys.readouterr().out
