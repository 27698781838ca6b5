"""What a run records of its set: rows of JSON, or columns of a large set, read as the same."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_runs import write_run
from pictures import encoded, write_set

from jaxgear.data.dataset import Dataset, open_dataset
from jaxgear.data.folder import Column, Record, Records, fingerprint
from jaxgear.data.folder.records import Table
from jaxgear.data.images import load_rgb
from jaxgear.data.labels import Correction
from jaxgear.data.labels.corrections import append
from jaxgear.data.prepare.prepared import prepare
from jaxgear.data.recorded import (
    Recorded,
    changed_pictures,
    describe,
    without_trained,
    write,
    write_splits,
)
from jaxgear.errors import CheckpointError
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.evaluation.own_pictures import trained_on_test
from jaxgear.evaluation.report.near_duplicates import find_near_duplicates

WHEN = "2026-11-30T06:00:00+00:00"


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A folder with near-duplicates, copies, and a name that sorts by its composed form."""
    root = write_set(tmp_path_factory.mktemp("recorded") / "data", {"a": 30, "b": 30})
    first = sorted((root / "a").iterdir())[0]
    (root / "a" / "e\u0301.png").write_bytes(first.read_bytes())
    return root


@pytest.fixture(scope="module")
def prepared(root, tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("prepared")
    prepare(root, out, size=16, workers=1, say=quiet)
    return f"tfds:gear@{out}"


@pytest.fixture(params=["folder", "prepared"])
def dataset(request, root, prepared) -> Dataset:
    source = str(root) if request.param == "folder" else prepared
    return open_dataset(source, size=16, seed=0, say=quiet)


def recorded(run: Path, dataset: Dataset, monkeypatch, listed: int) -> Recorded:
    run.mkdir(exist_ok=True)
    monkeypatch.setattr(write, "LISTED", listed)
    write_splits(run, dataset)
    return Recorded.read(run)


@pytest.fixture
def both(dataset, tmp_path, monkeypatch) -> list[Recorded]:
    """The set as it is recorded as JSON, and as columns."""
    return [
        recorded(tmp_path / f"run-{listed}", dataset, monkeypatch, listed) for listed in (1000, 1)
    ]


def test_columns_say_what_rows_say(both, dataset):
    rows, columns = both
    assert list(columns.pictures) == list(rows.pictures) == list(columns.pictures[:])
    assert (rows.fingerprint, rows.classes) == (columns.fingerprint, columns.classes)
    assert columns.pictures == rows.pictures
    assert columns.pictures[7] == rows.pictures[7]
    assert rows.pictures.counts() == columns.pictures.counts()
    for split in ("train", "val", "test", "left_out"):
        own = [row for row in rows.pictures if row.split == split]
        for pictures in (rows.pictures, columns.pictures):
            assert list(pictures.of_splits(split)) == own
            assert list(pictures.of_splits("test", split)) == [*pictures.of_splits("test"), *own]
    groups = [row.group for row in rows.pictures]
    together = {row for row in rows.pictures if groups.count(row.group) > 1}
    assert together
    assert together <= set(columns.pictures.in_groups()) < set(rows.pictures)


def test_columns_of_a_corrected_set_say_what_rows_say(root, prepared, tmp_path, monkeypatch):
    """Pictures with other labels, kept out, and added, one of them to a group of the set."""
    before = open_dataset(prepared, size=16, seed=0, say=quiet)
    first, second, third = before.folder.records[1:4]  # the first has a copy
    for name, pixels in (
        ("again", load_rgb(root / third.path) // 2 + 60),
        ("other", np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)),
    ):
        (tmp_path / f"{name}.png").write_bytes(encoded(pixels))
    rows = [
        Correction(first.path, "", "relabel", "c", "ana", WHEN),
        Correction(second.path, "", "remove", "double", "ana", WHEN),
        *(Correction(f"{name}.png", "", "add", "a", "ana", WHEN) for name in ("again", "other")),
    ]
    labels = tmp_path / "corrections.csv"
    for shown in (rows[:2], rows):
        append(labels, shown)
        dataset = open_dataset(prepared, size=16, seed=0, labels=str(labels), say=quiet)
        assert isinstance(dataset.folder.records, Records)
        as_rows, columns = (
            recorded(tmp_path / f"{len(shown)}-{listed}", dataset, monkeypatch, listed)
            for listed in (1000, 1)
        )
        assert list(columns.pictures) == list(as_rows.pictures)
        assert columns.classes == as_rows.classes == ("a", "b", "c")
    assert len(columns.pictures) == len(before.groups) + 1
    again = next(row for row in columns.pictures if "again" in row.path)
    assert again.group == third.group


def test_groups_for_the_report_are_those_of_all_rows(both, dataset):
    """Evaluated ones first, then those in more splits, then larger ones."""
    members: dict[str, list] = {}
    for row in both[0].pictures:
        members.setdefault(row.group, []).append(row)
    groups = [group for group in members.values() if len(group) > 1]
    splits = [{row.split for row in group} for group in groups]
    order = sorted(
        range(len(groups)),
        key=lambda i: (not splits[i] & {"val", "test"}, -len(splits[i]), -len(groups[i])),
    )
    for told in both:
        found = find_near_duplicates(told.pictures, dataset.folder)
        assert found.groups == len(groups)
        assert found.straddling == sum(len(own - {"left_out"}) > 1 for own in splits)
        assert sum(found.pictures.values()) == sum(map(len, groups))
        assert found.pictures["val"] == sum(r.split == "val" for own in groups for r in own)
        shown = [[picture for picture, _ in group] for group in found.examples]
        assert shown == [groups[i][:6] for i in order[:8]]


def test_json_lists_each_image_of_a_small_set(dataset, tmp_path):
    write_splits(tmp_path, dataset)
    assert json.loads((tmp_path / "splits.json").read_text()) == describe(dataset)
    assert len(describe(dataset)["pictures"]) == len(dataset.groups)
    assert [path.name for path in tmp_path.iterdir()] == ["splits.json"]


def test_json_of_a_large_set_has_its_numbers_and_no_image(dataset, tmp_path, monkeypatch):
    recorded(tmp_path, dataset, monkeypatch, listed=1)
    told = json.loads((tmp_path / "splits.json").read_text())["pictures"]
    assert (told["number"], told["columns"]) == (61, "splits-1")
    assert {name: told[name] for name in dataset.counts()} == dataset.counts()
    assert {f"{name}.npy" for name in told["sha256"]} == {
        path.name for path in (tmp_path / "splits-1").iterdir()
    }


def test_a_prepared_set_is_recorded_and_resumed_without_an_object_an_image(
    prepared, tmp_path, monkeypatch
):
    monkeypatch.setattr(Table, "records", None)  # what walks over all of them
    dataset = open_dataset(prepared, size=16, seed=0, say=quiet)
    found = recorded(tmp_path, dataset, monkeypatch, listed=1)
    assert not changed_pictures(found, dataset)
    assert without_trained(found, dataset) is dataset
    theirs, ours = dataset.folder.root / "columns", tmp_path / "splits-1"
    assert all(path.samefile(theirs / path.name) for path in ours.iterdir())


def test_splits_of_its_own_and_left_out_records_are_kept(prepared, tmp_path, monkeypatch):
    """As after `--on-bad skip`, `--group-by file`, and images that an earlier run trained on."""
    dataset = open_dataset(prepared, size=16, seed=0, say=quiet)
    kept = np.delete(np.arange(61), [3, 40])
    numbers = dataset.splits.values[kept].copy()
    numbers[:5] = 3
    changed = replace(
        dataset,
        folder=replace(dataset.folder, records=dataset.folder.records.take(kept)),
        splits=Column(numbers, dataset.splits._text),
        groups=tuple(f"group {row % 9}" for row in range(59)),
    )
    columns = recorded(tmp_path / "columns", changed, monkeypatch, listed=1)
    rows = recorded(tmp_path / "rows", changed, monkeypatch, listed=1000)
    assert list(columns.pictures) == list(rows.pictures)
    own = {p.name for p in (tmp_path / "columns/splits-1").iterdir() if p.stat().st_nlink == 1}
    assert own == {"order.npy", "split.npy", "group.npy", "names.npy"}


def edited(dataset: Dataset) -> Dataset:
    """One image edited, one renamed, one with another label; two that were trained on moved."""
    records = list(dataset.folder.records)
    records[4] = replace(records[4], sha256="0" * 64)
    records[9] = replace(records[9], path="b/renamed.png")
    records[11] = replace(records[11], label=1 - records[11].label)
    splits = list(dataset.splits)
    trained = [row for row, split in enumerate(splits) if split == "train"]
    splits[trained[0]], splits[trained[-1]] = "test", "val"
    order = sorted(range(len(records)), key=lambda row: records[row].path)
    records, splits = ([own[row] for row in order] for own in (records, splits))
    folder = replace(dataset.folder, records=tuple(records))
    folder = replace(folder, fingerprint=fingerprint(folder.classes, records))
    return replace(
        dataset, folder=folder, splits=tuple(splits), groups=tuple(r.sha256[:12] for r in records)
    )


def test_changes_are_the_same_by_rows_and_by_columns(both, dataset):
    rows, columns = both
    changed = edited(dataset)
    named = changed_pictures(rows, changed)
    assert named == changed_pictures(columns, changed)
    paths = [record.path for record in dataset.folder.records]
    assert sorted(named) == sorted(
        [
            f"{paths[4]} (edited)",
            f"{paths[9]} (removed)",
            "b/renamed.png (added)",
            f"{paths[11]} (edited)",
        ]
    )
    kept = without_trained(rows, changed)
    assert kept.splits == without_trained(columns, changed).splits
    assert sum(a != b for a, b in zip(kept.splits, changed.splits, strict=True)) == 2


def test_an_image_that_moved_in_an_equal_set_is_left_out(both, dataset):
    trained = [row for row, split in enumerate(dataset.splits) if split == "train"]
    splits = list(dataset.splits)
    splits[trained[3]] = "test"
    for old in both:
        kept = without_trained(old, replace(dataset, splits=tuple(splits)))
        assert [row for row in trained if kept.splits[row] == "left_out"] == [trained[3]]


def test_recording_again_replaces_the_columns(both, dataset, tmp_path, monkeypatch):
    run = tmp_path / "run-1"
    changed = edited(dataset)
    again = recorded(run, changed, monkeypatch, listed=1)
    assert [path.name for path in run.glob("splits-*")] == ["splits-2"]
    assert not changed_pictures(again, changed)
    recorded(run, changed, monkeypatch, listed=1000)
    assert [path.name for path in run.iterdir()] == ["splits.json"]


@pytest.mark.parametrize("content", [None, b"", b"\0" * 100])
def test_a_damaged_column_is_named(both, tmp_path, content):
    path = tmp_path / "run-1" / "splits-1" / "order.npy"
    path.unlink()  # it may be a second name of a file of the set
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"splits-1/order\.npy: missing or damaged"):
        Recorded.read(tmp_path / "run-1")


def test_a_finished_run_reads_both(both, tmp_path):
    for place in ("run-1", "run-1000"):
        made = write_run(tmp_path / f"{place}-made")
        for path in (tmp_path / place).iterdir():
            path.replace(made / path.name)
    listed, mapped = (FinishedRun.read(tmp_path / f"run-{n}-made") for n in (1000, 1))
    assert (listed.classes, listed.fingerprint) == (mapped.classes, mapped.fingerprint)
    assert listed.pictures == mapped.pictures
    assert listed.split("test") == mapped.split("test")
    assert list(trained_on_test(mapped).values()) == list(trained_on_test(listed).values())
    assert "61 of 2 classes" in str(mapped._facts())


def test_records_without_columns_beside_them_are_written(tmp_path, monkeypatch):
    """A large folder, or a prepared set with corrections, has an object an image."""
    monkeypatch.setattr(Record, "__reduce__", None)
    dataset = open_dataset("drawn:60", size=16, seed=0, say=quiet)
    found = recorded(tmp_path, dataset, monkeypatch, listed=59)
    assert len(found.pictures) == 60
    assert found.pictures.paths == [record.path for record in dataset.folder.records]
