"""A prepared set opens as columns, and behaves as the tuple of records that its folder gives."""

import gc
import hashlib
import json
import pickle
import sys
import unicodedata
from argparse import Namespace
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from older_sets import as_before
from pictures import encoded, scene, write_set
from scipy.sparse.csgraph import connected_components

from jaxgear.data.dataset import Dataset, open_dataset
from jaxgear.data.folder import columns, strings
from jaxgear.data.folder.names import ALL
from jaxgear.data.folder.read import Folder, read_folder
from jaxgear.data.folder.records import Record, Records, Table
from jaxgear.data.folder.strings import Column, runs_of
from jaxgear.data.labels import with_corrections
from jaxgear.data.labels.corrections import Correction
from jaxgear.data.prepare import writing
from jaxgear.data.prepare.prepared import prepare
from jaxgear.data.recorded import describe, known_pictures
from jaxgear.data.splits import groups, near_duplicates
from jaxgear.data.splits.assign import missing_classes
from jaxgear.data.splits.clean import conflicts, require_clean
from jaxgear.data.splits.groups import (
    groups_of,
    near_duplicate_groups,
    near_duplicate_pairs,
    near_duplicates_across,
    near_duplicates_in_two_classes,
)
from jaxgear.data.tfds.read import read_tfds
from jaxgear.errors import DataError
from scripts.benchmarks import tables

NAMES = ("e\u0301 decomposed", 'quote"d', "back\\slash", "\U0001f9e4", "\u00e9 composed", "z")


@pytest.fixture(params=["now", "before"])
def pair(request, tmp_path: Path, monkeypatch) -> tuple[Dataset, Dataset]:
    """A folder with odd names, copies and near-duplicates, and the same set as prepared."""
    root = write_set(tmp_path / "data", {"axes": 18, "boots \u00e4": 18, "stoves": 5})
    for number, name in enumerate(NAMES):
        (root / "axes" / f"{name}.png").write_bytes(encoded(scene(900 + number)))
    for number in range(9):
        near = encoded(scene(number + 20), "JPEG", quality=80)
        (root / "boots \u00e4" / f"near{number}.jpg").write_bytes(near)
    for path in sorted(root.glob("*/*.png"))[:7]:
        path.with_name(f"copy of {path.name}").write_bytes(path.read_bytes())
    (root / "stoves" / "another axe.jpg").write_bytes(encoded(scene(3), "JPEG", quality=85))
    monkeypatch.setattr(writing, "SHARD_BYTES", 20_000)
    prepare(root, tmp_path / "out", size=16, seed=5, workers=1, say=lambda line: None)
    if request.param == "before":
        as_before(tmp_path / "out" / "gear" / "1.0.0")
    said: list[list[str]] = [[], []]
    ours = open_dataset(f"tfds:gear@{tmp_path / 'out'}", size=16, seed=5, say=said[0].append)
    folder = open_dataset(str(root), size=16, seed=5, say=said[1].append)
    assert said[0] == said[1]
    assert "stoves/another axe.jpg" in said[0][0]
    return ours, folder


def test_the_records_are_those_of_the_folder(pair):
    ours, folder = pair
    expected = tuple(
        replace(record, split=split, group=group)
        for record, group, split in zip(
            folder.folder.records, folder.groups, folder.splits, strict=True
        )
    )
    records = ours.folder.records
    assert isinstance(records, Records)
    assert len(records) == len(expected) == 64
    assert [*records] == [*expected]
    assert records == expected == records
    assert expected != records[:-1] != expected[1:]
    for row in (0, 40, -1, -64, np.int64(7)):
        assert records[row] == expected[row]
        assert hash(records[row]) == hash(expected[row])
        assert records[row].descriptor == expected[row].descriptor
    for part in (slice(3), slice(-5, None), slice(None, None, -7), slice(9, 2)):
        assert records[part] == expected[part]
    for row in (64, -65):
        with pytest.raises(IndexError):
            records[row]
    assert (*records[:2], *expected[2:]) == expected
    assert [records.place_of(record.path) for record in expected] == [*range(64)]
    assert records.place_of("stoves") is None
    assert (*records[:9], replace(records[9], width=1), *records[10:]) != records
    assert records.index(expected[17]) == 17
    assert pickle.loads(pickle.dumps(records[5])) == expected[5]
    assert replace(records[5], label=2) == replace(expected[5], label=2)
    with pytest.raises(AttributeError):
        records[5].nothing  # noqa: B018


def test_the_dataset_is_that_of_the_folder(pair):
    ours, folder = pair
    assert (ours.splits, ours.groups) == (folder.splits, folder.groups)
    assert ours.counts() == folder.counts()
    assert list(ours.counts()) == list(folder.counts())
    assert ours.training_counts() == folder.training_counts()
    assert describe(ours) == describe(folder)
    one, other = known_pictures(ours), known_pictures(folder)
    assert np.array_equal(one.digests, other.digests)
    assert np.array_equal(one.splits, other.splits)
    for name in ("train", "val"):
        one, other = ours.split(name), folder.split(name)
        assert one.names == other.names
        assert np.array_equal(one.labels, other.labels)
        assert one.labels.dtype == other.labels.dtype
        assert np.array_equal(one.images, other.images)
    assert groups_of(ours.folder.records, "file") == groups_of(folder.folder.records, "file")
    assert [ours.folder.cache_key(r) for r in ours.folder.records] == [
        hashlib.sha256(ours.folder.read(r)).hexdigest() for r in folder.folder.records
    ]


def test_the_fingerprint_is_that_of_sorted_names(pair):
    for dataset in pair:
        rows = sorted(
            (dataset.classes[r.label], unicodedata.normalize("NFC", r.path), r.sha256)
            for r in dataset.folder.records
        )
        expected = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
        assert dataset.folder.fingerprint == expected
        assert columns.fingerprint(dataset.classes, dataset.folder.records) == expected


def test_corrections_lie_over_a_prepared_set(pair, tmp_path: Path):
    ours, folder = pair
    first, second = folder.folder.records[11], folder.folder.records[30]
    rows = [
        Correction(first.path, "", "relabel", "stoves", "me", "today"),
        Correction(second.path, "", "remove", "", "me", "today"),
    ]
    one, other = (with_corrections(d.folder, rows, tmp_path, size=16)[0] for d in pair)
    assert one.fingerprint == other.fingerprint != folder.folder.fingerprint
    assert [r.path for r in one.records] == [r.path for r in other.records]
    relabelled = next(r for r in one.records if r.path == first.path)
    assert one.read(relabelled) == ours.folder.read(first)


def test_classes_of_another_name_have_another_fingerprint(tmp_path: Path):
    """The index has a fingerprint for the names that it was written with."""
    out = tmp_path / "out"
    root = write_set(tmp_path / "data", {"a": 5, "b": 5})
    prepare(root, out, size=16, workers=1, say=lambda line: None)
    before = read_tfds(f"gear@{out}", size=16).fingerprint
    (out / "gear" / "1.0.0" / "label.labels.txt").write_text("a\nc\n")
    after = read_tfds(f"gear@{out}", size=16)
    assert after.classes == ("a", "c")
    assert after.fingerprint == columns.fingerprint(("a", "c"), tuple(after.records)) != before


def test_groups_with_long_names(tmp_path: Path):
    """Of folders: beyond 12 letters, beyond ASCII, and like the digits of a hash."""
    names = ("012345abcdef", "a long name of one", "a long name of two", "h\u00f6her")
    root = write_set(tmp_path / "data", {f"{c}/{name}": 5 for name in names for c in "pq"})
    prepare(root, tmp_path / "out", size=16, group_by="/(.*)/", workers=1, say=lambda line: None)
    groups = near_duplicate_groups(read_tfds(f"gear@{tmp_path / 'out'}", size=16).records)
    assert groups == groups_of(read_folder(root, size=16).records, "/(.*)/")
    assert set(groups) == set(names)


# --- of any table, what is found in columns is what is found in records


def made_table(rng: np.random.Generator, rows: int) -> Records:
    """Rows in random order, many of equal hashes, groups and labels."""
    sha256 = rng.integers(0, 256, (rows, 32), np.uint8)[rng.integers(0, rows, rows)]
    paths = [f"{number:04d}" for number in range(rows)]
    order = rng.permutation(rows)
    text = [paths[row] for row in np.argsort(order)]
    table = Table(
        text=np.frombuffer("".join(f"{path}\0" for path in text).encode(), np.uint8),
        starts=np.arange(rows) * 5,
        sha256=Column(sha256.view("V32")[:, 0], bytes.hex),
        label=rng.integers(0, 4, rows, np.int32),
        split=Column(rng.integers(0, 4, rows, np.uint8), ALL.__getitem__),
        height=rng.integers(1, 99, rows, np.int32),
        width=rng.integers(1, 99, rows, np.int32),
        group=Column(rng.integers(0, rows, rows).astype(np.uint64), "{:012x}".format),
        describe=lambda row: b"%d" % row,
    )
    return Records(table, order)


def skipped(folder: Folder) -> Folder | str:
    """The folder without what conflicts, or the message if a class has nothing left."""
    try:
        return require_clean(folder, "skip")
    except DataError as error:
        return str(error)


@pytest.mark.parametrize("rows", [1, 2, 30, 300])
@pytest.mark.parametrize("seed", range(4))
def test_columns_find_what_records_do(rows: int, seed: int):
    rng = np.random.default_rng(seed)
    records = made_table(rng, rows)
    plain = tuple(records)
    assert [record.path for record in plain] == [f"{number:04d}" for number in range(rows)]
    for record, row in zip(plain, records.rows, strict=True):
        assert record.descriptor == b"%d" % row
        for same in (record, replace(record, label=0), replace(record, sha256="")):
            assert records.row_of(same) == row
    for path in ("", "0000x", "x"):
        assert records.row_of(replace(plain[0], path=path)) is None
    other = made_table(rng, rows)
    assert [other.row_of(record) for record in plain] == other.rows.tolist()
    groups, splits = records.groups, records.splits
    listed = [*groups], [*splits]
    assert near_duplicates_across(records, groups, splits) == near_duplicates_across(plain, *listed)
    assert near_duplicates_across(records, groups, listed[1]) == near_duplicates_across(
        plain, *listed
    )
    assert near_duplicates_in_two_classes(records, groups) == near_duplicates_in_two_classes(
        plain, listed[0]
    )
    assert strings.distinct(groups) == len(set(groups))
    assert columns.splits_and_labels(records) == columns.splits_and_labels(plain)
    assert np.array_equal(columns.labels_of(records), columns.labels_of(plain))
    assert np.array_equal(
        strings.first_eight(columns.hashes_of(records)),
        strings.first_eight(columns.hashes_of(plain)),
    )
    one, other = (
        Folder(Path("x"), ("a", "b", "c", "d"), own, (), (), "") for own in (records, plain)
    )
    assert conflicts(one) == conflicts(other)
    assert skipped(one) == skipped(other)
    assert isinstance(getattr(skipped(one), "records", records), Records)
    assert missing_classes(one) == missing_classes(other)
    assert columns.fingerprint(one.classes, records) == columns.fingerprint(one.classes, plain)
    wanted = [*columns.hashes_of(plain)[::-2], "ab" * 32]
    rows_of = strings.rows_of_hashes(columns.hashes_of(records), wanted)
    assert np.array_equal(rows_of, strings.rows_of_hashes(columns.hashes_of(plain), wanted))
    last = {record.sha256: row for row, record in enumerate(plain)}
    assert rows_of.tolist() == [last.get(sha256, -1) for sha256 in wanted]
    own = columns.hashes_of(records)
    assert strings.rows_of_hashes(own, own[:0]).tolist() == []
    assert strings.rows_of_hashes(columns.hashes_of(records[:0]), wanted[-1:]).tolist() == [-1]
    for name in ALL:
        rows_of = columns.rows_of_split(splits, name)
        assert np.array_equal(rows_of, columns.rows_of_split(listed[1], name))
        assert columns.taken(records, rows_of) == columns.taken(plain, rows_of)


@pytest.mark.parametrize("seed", range(4))
def test_facts_say_what_all_records_say(seed: int):
    """Those that were written with a set; other groups or splits are looked at as before."""
    records = made_table(np.random.default_rng(seed), 300)
    whole = Records(
        records.table,
        records.rows,
        columns.facts_of(records, 4, *near_duplicate_pairs(records)),
    )
    one, other = (Folder(Path("x"), tuple("abcd"), own, (), (), "") for own in (records, whole))
    assert conflicts(one) == conflicts(other)
    assert missing_classes(one) == missing_classes(other)
    ours, theirs = (Dataset(f, f.records.groups, f.records.splits, 16) for f in (one, other))
    assert list(ours.counts().items()) == list(theirs.counts().items())
    assert ours.training_counts() == theirs.training_counts()
    assert ours.training_records() == theirs.training_records()
    assert columns.distinct_groups(records, ours.groups) == len(set(ours.groups))
    assert columns.distinct_groups(whole, theirs.groups) == len(set(ours.groups))
    for a, b in zip(near_duplicate_pairs(records), near_duplicate_pairs(whole), strict=True):
        assert list(a) == list(b)
        assert b[:2] == a[:2]
    splits = Column((ours.splits.values + 1) % 4, ALL.__getitem__)
    moved = [replace(data, splits=splits) for data in (ours, theirs)]
    assert moved[0].counts() == moved[1].counts() != ours.counts()
    assert moved[0].training_records() == moved[1].training_records()
    assert near_duplicates_across(whole, theirs.groups, splits) == near_duplicates_across(
        records, ours.groups, splits
    )
    some = whole.take(np.arange(100))
    assert columns.counts_of_splits(some, some.splits) == dict(Counter(some.splits))


def test_runs_have_all_values_that_are_repeated():
    """And few others; values that differ in their high bits alone are not equal."""
    values = np.array([5, 5 + 2**40, 5 + 2**40, 7, 5 + 2**41, 9, 7], np.uint64)
    rows, starts = runs_of(values)
    runs = [sorted(run.tolist()) for run in np.split(rows, starts[1:])]
    assert sorted(runs) == [[0], [1, 2], [3, 6], [4]]
    column = Column(values, str)
    assert repr(column) == "<5, 1099511627781, 1099511627781, and 4 more>"
    assert strings.distinct(column) == 5
    kinds = np.arange(7)[rows]
    assert columns.mixed(column.runs, kinds, kinds).tolist() == [1, 2, 3, 6]
    assert columns.mixed(column.runs, kinds // 3, kinds // 3).tolist() == [3, 6]
    assert [*map(len, runs_of(values[[0, 3]]))] == [*map(len, runs_of(values[:0]))] == [0, 0]


# --- a large set


def test_opening_makes_no_object_an_image(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tables, "ROWS", 3000)
    out = tmp_path / "out"
    written = tables.write(Namespace(folder=out, count=40_000))
    open_dataset(f"tfds:gear@{out}", size=32, seed=0, say=lambda line: None)  # imports
    made: list[str] = []
    record = Table._record

    def counted(self, row, *values):
        made.append(values[0])
        return record(self, row, *values)

    monkeypatch.setattr(Table, "_record", counted)
    gc.collect()
    before = sys.getallocatedblocks()
    said: list[str] = []
    dataset = open_dataset(f"tfds:gear@{out}", size=32, seed=0, say=said.append)
    dataset.counts(), dataset.training_counts()
    train = replace(dataset, stored=True).split("train")
    assert (len(train.names), len(train.labels), len(train.images)) == (26_000,) * 3
    gc.collect()
    kept = sys.getallocatedblocks() - before
    assert len(dataset.folder.records) == written["pictures"] == 40_000
    assert dataset.folder.fingerprint == written["fingerprint"]
    assert said[-1].startswith("40000 pictures, 12 classes, 36000 groups: 26000 train, 6000 val")
    # Of three pairs in two classes, and those whose types the checks of signatures look at.
    assert 6 <= len(made) < 200
    assert kept < 10_000
    assert not any(isinstance(found, Record) for found in gc.get_objects())


# --- records that corrections add


def sharing(descriptors: list[bytes]) -> np.ndarray:
    """Stands for `near_duplicates.groups`: images that share a byte of their descriptors."""
    links = [[bool({*one} & {*other}) for other in descriptors] for one in descriptors]
    return connected_components(np.array(links), directed=False)[1]


@pytest.mark.parametrize("seed", range(6))
def test_added_records_are_in_the_groups_that_all_together_have(seed: int, monkeypatch):
    """Also where they connect groups of the set, a part of which is compared at a time."""
    monkeypatch.setattr(near_duplicates, "groups", sharing)
    monkeypatch.setattr(groups, "_KNOWN", 7)
    rng = np.random.default_rng(seed)
    plain = [
        Record(f"{k:03d}", rng.bytes(32).hex(), 0, "train", 1 + k, 2 + k, rng.bytes(3))
        for k in rng.permutation(300)[:45].tolist()
    ]
    known, new = plain[:30], plain[30:]
    nothing = np.zeros(0, np.int32)
    empty = Table(
        text=np.zeros(0, np.uint8),
        starts=nothing,
        sha256=Column(np.zeros(0, "V32"), bytes.hex),
        label=nothing,
        split=Column(np.zeros(0, np.uint8), ALL.__getitem__),
        height=nothing,
        width=nothing,
        group=Column(np.zeros(0, np.uint64), "{:012x}".format),
        describe=lambda row: b"",
    )
    own = near_duplicate_groups(known)
    table = empty.grown(known)
    numbers = np.array([int(group, 16) for group in own], np.uint64)
    order = np.array(sorted(range(30), key=lambda row: known[row].path))
    records = Records(replace(table, group=table.group.of(numbers), before=None), order)
    grown = records.grown(new)
    together = sorted(plain, key=lambda record: record.path)
    assert [replace(r, group=None, descriptor=r.descriptor) for r in grown] == together
    assert [records.row_of(record) is None for record in grown] == [r in new for r in together]
    assert near_duplicate_groups(records) is records.groups
    found, expected = near_duplicate_groups(grown), near_duplicate_groups(together)
    alike = [[a == b for b in expected] for a in expected]
    assert [[a == b for b in found] for a in found] == alike
    of_set = [group for group, r in zip(found, grown, strict=True) if records.row_of(r) is not None]
    assert {*of_set} <= {*own}
    assert len({*of_set}) < len({*own})  # some were connected
