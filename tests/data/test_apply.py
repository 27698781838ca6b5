"""Corrections over a set: other labels, pictures kept out and added; the test split stays."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from pictures import empty_cache, encoded, scene, write_set

from jaxgear.data.dataset import open_dataset
from jaxgear.data.folder import Records, paths_of, pixels
from jaxgear.data.labels import Correction, append, read_corrections, with_corrections
from jaxgear.data.prepare.prepared import prepare
from jaxgear.data.recorded import Recorded, changed_pictures, describe
from jaxgear.data.sources import read_source
from jaxgear.errors import DataError

WHEN = "2026-11-28T12:00:00+00:00"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("corrected") / "set", {"boots": 30, "rope": 30})


@pytest.fixture
def folder(root):
    return read_source(str(root), 16)


def row(record_or_path, action, label="", by="ana"):
    if isinstance(record_or_path, str | Path):
        return Correction(str(record_or_path), "", action, label, by, WHEN)
    record = record_or_path
    return Correction(record.path, record.sha256, action, label, by, WHEN)


def named(folder, path):
    return next(record for record in folder.records if record.path == path)


def labels_of(folder):
    return {record.path: folder.classes[record.label] for record in folder.records}


def test_relabelled_removed_and_new_classes(folder, tmp_path):
    first, second, third = folder.records[:3]
    rows = [row(first, "relabel", "rope"), row(second, "remove", "blurred")]
    after, unknown = with_corrections(
        folder, [*rows, row(third, "relabel", "axes")], tmp_path, size=16
    )
    assert unknown == []
    assert after.classes == ("axes", "boots", "rope")
    expected = labels_of(folder) | {first.path: "rope", third.path: "axes"}
    del expected[second.path]
    assert labels_of(after) == expected
    assert after.fingerprint != folder.fingerprint
    assert [change["before"] for change in after.changes] == ["boots"] * 3
    assert after.changes[1]["label"] == "blurred"


@pytest.mark.parametrize("adds", [False, True])
def test_a_prepared_set_stays_columns(root, tmp_path, adds):
    """And is what records of their own would be."""
    prepare(root, tmp_path / "out", size=16, workers=1, say=lambda line: None)
    columns = read_source(f"tfds:gear@{tmp_path / 'out'}", 16)
    records = tuple(columns.records)
    new = tmp_path / "new.png"
    new.write_bytes(encoded(scene(1000), "PNG"))
    rows = [
        row(records[3], "relabel", "axes"),
        row(records[40], "remove", "blurred"),
        row(records[5].path, "relabel", "rope"),
        row(records[6], "relabel", "boots"),
        row("boots/none.png", "relabel", "rope"),
        Correction("boots/gone.png", 64 * "0", "relabel", "rope", "ana", WHEN),
        *([row(new, "add", "tents")] if adds else []),
    ]
    ours, unknown = with_corrections(columns, rows, tmp_path, size=16)
    theirs, same = with_corrections(replace(columns, records=records), rows, tmp_path, size=16)
    assert isinstance(columns.records, Records)
    assert isinstance(ours.records, Records)
    of_set = tuple(record for record in ours.records if record.path not in ours.added)
    assert of_set == tuple(record for record in theirs.records if record.path not in theirs.added)
    assert [replace(record, group=None) for record in ours.records] == [
        replace(record, group=None) for record in theirs.records
    ]
    assert len(ours.records) == len(records) - 1 + adds
    assert unknown == same == rows[4:6]
    for name in ("classes", "changes", "fingerprint", "added", "refused"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert (pixels(ours, 16) == pixels(theirs, 16)).all()
    expected = pixels(theirs, 16)
    with empty_cache():
        assert (pixels(ours, 16) == expected).all()
    assert columns.records == records  # as they were
    for number, record in enumerate(ours.records):
        known = columns.records.row_of(record)  # found by the row of its table
        assert known == (None if record.path in ours.added else ours.records.rows[number])


def test_no_corrections_change_nothing(folder, tmp_path):
    same, unknown = with_corrections(folder, [], tmp_path, size=16)
    confirmed, _ = with_corrections(
        folder, [row(folder.records[0], "relabel", "boots")], tmp_path, size=16
    )
    assert unknown == []
    assert same == folder
    assert confirmed == folder  # a person agreed


def test_a_picture_is_found_by_its_bytes_wherever_it_moved(folder, tmp_path):
    moved = Correction("old/place.png", folder.records[4].sha256, "relabel", "rope", "ana", WHEN)
    after, unknown = with_corrections(folder, [moved], tmp_path, size=16)
    assert unknown == []
    assert labels_of(after)[folder.records[4].path] == "rope"


def test_an_edited_picture_is_not_relabelled_but_reported(folder, tmp_path):
    edited = Correction(folder.records[4].path, "0" * 64, "relabel", "rope", "ana", WHEN)
    after, unknown = with_corrections(folder, [edited], tmp_path, size=16)
    assert unknown == [edited]
    assert after == folder
    gone = Correction("x.png", "0" * 64, "remove", "", "ana", WHEN)
    assert with_corrections(folder, [gone], tmp_path, size=16) == (folder, [])
    changed = replace(edited, action="remove", label="blurred")  # would be trained on again
    assert with_corrections(folder, [changed], tmp_path, size=16) == (folder, [changed])


def test_an_image_of_the_set_added_by_another_path_is_a_relabel(folder, root, tmp_path):
    """Without a hash only its bytes tell; every copy of them has the label."""
    record = folder.records[4]
    path = str((root / record.path).absolute())
    after, unknown = with_corrections(folder, [row(path, "add", "rope")], tmp_path, size=16)
    assert unknown == []
    assert labels_of(after) == labels_of(folder) | {record.path: "rope"}
    assert [change["action"] for change in after.changes] == ["relabel"]


@pytest.mark.parametrize(
    ("rows", "label"),
    [
        ([("hash", "ana", "axes"), ("path", "ben", "rope")], "rope"),
        ([("path", "ana", "axes"), ("hash", "ben", "rope")], "rope"),
        ([("hash", "jaxgear clean", "axes"), ("path", "ben", "rope")], "rope"),
        ([("path", "ana", "axes"), ("hash", "jaxgear clean", "rope")], "axes"),
        ([("path", "jaxgear clean", "axes"), ("hash", "jaxgear clean", "rope")], "rope"),
    ],
)
def test_of_rows_by_hash_and_by_path_the_last_person_s_holds(folder, tmp_path, rows, label):
    record = folder.records[4]
    about = {"hash": record, "path": record.path}
    corrections = [row(about[by], "relabel", name, person) for by, person, name in rows]
    after, unknown = with_corrections(folder, corrections, tmp_path, size=16)
    assert unknown == []
    assert labels_of(after)[record.path] == label


def test_a_relabel_by_hash_settles_copies_in_two_classes(root, tmp_path):
    shutil.copytree(root, tmp_path / "set")
    shutil.copy(tmp_path / "set/boots/00003.png", tmp_path / "set/rope/copy.png")
    folder = read_source(str(tmp_path / "set"), 16)
    after, _ = with_corrections(
        folder, [row(named(folder, "rope/copy.png"), "relabel", "boots")], tmp_path, size=16
    )
    assert labels_of(after)["rope/copy.png"] == labels_of(after)["boots/00003.png"] == "boots"
    with pytest.raises(DataError, match="same bytes"):
        open_dataset(str(tmp_path / "set"), size=16, seed=0, say=print)


@pytest.fixture
def new(tmp_path):
    """30 new pictures."""
    (tmp_path / "new").mkdir()
    for number in range(30):
        (tmp_path / f"new/{number}.png").write_bytes(encoded(scene(1000 + number)))
    return tmp_path / "new"


def test_added_pictures_leave_the_test_split_as_it_is(root, new, tmp_path):
    file = tmp_path / "corrections.csv"
    append(file, [row(path, "add", "boots") for path in sorted(new.iterdir())])
    # A near-duplicate of each test picture: none of them may be trained on.
    before = open_dataset(str(root), size=16, seed=1, say=lambda line: None)
    tested = [r for r, s in zip(before.folder.records, before.splits, strict=True) if s == "test"]
    for record in tested:
        pixels = before.folder.load(record)
        (new / f"again-{Path(record.path).stem}.png").write_bytes(encoded(pixels // 2 + 60))
    append(file, [row(path, "add", "rope") for path in sorted(new.glob("again*"))])
    said = []
    after = open_dataset(str(root), size=16, seed=1, labels=str(file), say=said.append)
    splits = dict(zip((r.path for r in after.folder.records), after.splits, strict=True))
    for record, split in zip(before.folder.records, before.splits, strict=True):
        assert splits.pop(record.path) == split
    assert {s for path, s in splits.items() if "again" in path} == {"left_out"}
    fresh = [s for path, s in splits.items() if "again" not in path]
    assert set(fresh) == {"train", "val"}
    assert fresh.count("train") > fresh.count("val")
    assert said[0] == f"{file}: 0 relabelled, 0 removed, {30 + len(tested)} added"
    assert after.split("train").images.shape[1:] == (16, 16, 3)  # they are read from their place
    record = next(r for r in after.folder.records if r.path.startswith("added/"))
    assert after.folder.load(record).shape == (48, 64, 3)


def test_pictures_of_a_class_that_the_set_lacked_are_drawn_over_all_splits(root, new, tmp_path):
    file = tmp_path / "corrections.csv"
    append(file, [row(path, "add", "skis") for path in sorted(new.iterdir())])
    after = open_dataset(str(root), size=16, seed=1, labels=str(file), say=lambda line: None)
    skis = after.classes.index("skis")
    splits = {
        split
        for record, split in zip(after.folder.records, after.splits, strict=True)
        if record.label == skis
    }
    assert splits == {"train", "val", "test"}


def test_added_pictures_join_a_folder_s_own_splits(tmp_path, new):
    root = write_set(
        tmp_path / "own", {"train/a": 6, "train/b": 6, "val/a": 3, "val/b": 3, "test/a": 3,
                           "test/b": 3}
    )  # fmt: skip
    file = tmp_path / "corrections.csv"
    append(file, [row(path, "add", "a") for path in sorted(new.iterdir())])
    after = open_dataset(str(root), size=16, seed=0, labels=str(file), say=lambda line: None)
    assert after.counts()["test"] == 6
    assert after.counts()["train"] + after.counts()["val"] == 18 + 30


def test_an_added_picture_of_the_set_is_a_relabel(folder, root, tmp_path):
    record = folder.records[0]
    path = root / record.path
    by_path = Correction(record.path, "", "add", "rope", "ana", WHEN)
    for correction in (
        Correction(str(path), record.sha256, "add", "rope", "ana", WHEN),
        by_path,
    ):
        after, _ = with_corrections(folder, [correction], tmp_path, size=16)
        assert len(after.records) == len(folder.records)
        assert labels_of(after)[record.path] == "rope"


def test_a_picture_that_was_added_and_then_relabelled_stays_added(folder, new, tmp_path):
    added = new / "0.png"
    sha256 = hashlib.sha256(added.read_bytes()).hexdigest()
    rows = [
        Correction(str(path), sha256, action, label, "ana", WHEN)
        for path, action, label in (
            (added, "add", "boots"),
            ("added/0.png", "remove", "double"),
            ("added/0.png", "relabel", "rope"),  # as a review of the run writes it
        )
    ]
    for count, label in ((1, "boots"), (2, None), (3, "rope")):
        after, unknown = with_corrections(folder, rows[:count], tmp_path, size=16)
        assert unknown == []
        labels = [name for path, name in labels_of(after).items() if path.startswith("added/")]
        assert labels == ([] if label is None else [label])


@pytest.mark.parametrize(
    ("content", "sha256", "reason"),
    [
        (None, "", "no such file"),
        (b"no picture", "", "not a picture"),
        (encoded(scene(5)), "0" * 64, "has other bytes than its correction says"),
    ],
)
def test_an_added_picture_that_cannot_be_used_is_refused(folder, tmp_path, content, sha256, reason):
    if content is not None:
        (tmp_path / "x.png").write_bytes(content)
    correction = Correction("x.png", sha256, "add", "rope", "ana", WHEN)
    after, _ = with_corrections(folder, [correction], tmp_path, size=16)
    assert [refused.path for refused in after.refused] == ["x.png"]
    assert reason in after.refused[0].reason
    assert len(after.records) == len(folder.records)


def test_a_new_correction_is_a_change_that_resume_names(root, tmp_path):
    file = tmp_path / "corrections.csv"
    before = open_dataset(str(root), size=16, seed=1, say=lambda line: None)
    append(file, [row(before.folder.records[0], "relabel", "rope")])
    after = open_dataset(str(root), size=16, seed=1, labels=str(file), say=lambda line: None)
    recorded = describe(after)
    assert changed_pictures(Recorded.of(describe(before), tmp_path), after) == [
        f"{before.folder.records[0].path} (edited)"
    ]
    assert changed_pictures(Recorded.of(recorded, tmp_path), after) == []
    assert recorded["corrections"] == [
        {
            "path": before.folder.records[0].path,
            **{"action": "relabel", "before": "boots", "label": "rope", "by": "ana"},
            "when": WHEN,
        }
    ]
    assert "corrections" not in describe(before)


def test_a_label_is_the_class_of_its_letters_not_of_their_bytes(folder, tmp_path):
    """Decomposed letters, as macOS writes them, and spaces make no class of their own."""
    file = tmp_path / "labels.csv"
    record = folder.records[0]
    append(file, [row(record, "relabel", " gro\u0308\u00dfe ")])
    after, _ = with_corrections(folder, read_corrections(file), tmp_path, size=16)
    assert "gr\u00f6\u00dfe" in after.classes
    with pytest.raises(DataError, match="boots differ only in case"):
        with_corrections(folder, [row(record, "relabel", "Boots")], tmp_path, size=16)


def test_a_class_that_loses_all_its_pictures_is_gone(folder, tmp_path):
    rows = [row(r, "remove") for r in folder.records if folder.classes[r.label] == "rope"]
    after, _ = with_corrections(folder, rows, tmp_path, size=16)
    assert after.classes == ("boots",)


def test_corrections_lie_over_a_prepared_set(root, new, tmp_path):
    from jaxgear.data.prepare.prepared import prepare

    prepare(root, tmp_path / "tfds", workers=1, say=lambda line: None)
    file = tmp_path / "corrections.csv"
    plain = read_source(str(root), 16)
    append(file, [row(plain.records[0], "relabel", "rope"), row(new / "0.png", "add", "boots")])
    source = f"tfds:gear@{tmp_path / 'tfds'}"
    before = open_dataset(source, size=16, seed=0, say=lambda line: None)
    tested = before.folder.records[list(before.splits).index("test")].path
    again = new / "again.png"
    again.write_bytes(encoded(plain.load(named(plain, tested)) // 2 + 60))
    append(file, [row(again, "add", "boots")])
    prepared = open_dataset(source, size=16, seed=0, labels=str(file), say=lambda line: None)
    direct = open_dataset(str(root), size=16, seed=0, labels=str(file), say=lambda line: None)
    assert prepared.folder.fingerprint == direct.folder.fingerprint
    assert list(prepared.splits) == list(direct.splits)
    pairs = set(zip(prepared.groups, direct.groups, strict=True))  # maybe of other names
    assert len(pairs) == len(set(prepared.groups)) == len(set(direct.groups))
    by_path = dict(zip(paths_of(prepared.folder.records), prepared.splits, strict=True))
    assert [split for path, split in by_path.items() if "again" in path] == ["left_out"]
    added = next(r for r in prepared.folder.records if r.path.startswith("added/"))
    assert prepared.folder.load(added).shape == (48, 64, 3)
