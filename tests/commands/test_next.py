"""`jaxgear next`: what it chooses, writes and says, rounds of it, and mistakes in one line."""

import csv
import hashlib
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_runs import untrained
from pictures import encoded, scene, write_set
from small_bundle import make_bundle

from jaxgear import cli
from jaxgear.data.folder.read import read_heap
from jaxgear.data.labels import Correction, append
from jaxgear.data.splits import near_duplicates
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.serving.review.opening import open_session

pytestmark = pytest.mark.one_cache


def call(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a bundle that knows picture 2, and 20 new pictures with it."""
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path / "new", {"a": 12, "b/c": 8})
    known = hashlib.sha256(encoded(scene(2))).hexdigest()
    make_bundle(known={known: "test"}).save(tmp_path / "run" / "model")
    return tmp_path


@pytest.fixture(scope="module")
def trained(cache, tmp_path_factory):
    """A run of an untrained network with all files, and its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXGEAR_CACHE", str(cache))
        root = write_set(tmp_path_factory.mktemp("set"), {"axes": 30, "boots": 30}, start=500)
        return untrained(tmp_path_factory.mktemp("runs"), str(root), size=16), root


def rows_of(path="a.csv"):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def paths_of(path="a.csv"):
    return [row["path"] for row in rows_of(path)]


def test_a_row_for_each_chosen_picture_the_best_first(here, capsys):
    assert call("next", "run", "new", "--count", 7, "--csv", "a.csv") == 0
    assert Path("a.csv").read_text().startswith("path,score\n")
    scores = [float(row["score"]) for row in rows_of()]
    assert len(scores) == 7
    assert scores == sorted(scores, reverse=True)
    assert all(Path(path).is_file() for path in paths_of())
    assert len(set(paths_of())) == 7
    printed = capsys.readouterr()
    assert printed.out == ""
    assert (
        "note: 19 of 20 pictures to choose from; 1 are in the data of the run, or like"
        in printed.err
    )
    assert sorted(os.listdir()) == ["a.csv", "new", "run"]  # noqa: PTH208


def test_without_a_file_the_paths_are_printed(here, capfd):
    assert call("next", "run", "new", "--count", 5, "--csv", "a.csv") == 0
    capfd.readouterr()
    assert call("next", "run", "new", "--count", 5) == 0
    assert capfd.readouterr().out.splitlines() == paths_of()
    assert call("next", "run", "new", "--count", 5, "--csv", "-") == 0
    assert capfd.readouterr().out == Path("a.csv").read_text()


def test_files_folders_and_patterns_in_any_order_give_the_same(here):
    assert call("next", "run", "new", "--csv", "a.csv", "--count", 9) == 0
    files = sorted(map(str, Path("new").rglob("*.png")))
    for seed in range(3):
        shuffled = [files[n] for n in np.random.default_rng(seed).permutation(len(files))]
        assert call("next", "run", *shuffled, "--csv", "b.csv", "--count", 9) == 0
        assert Path("b.csv").read_text() == Path("a.csv").read_text()
    assert call("next", "run", "new/b/c", "new/a/*.png", "--csv", "b.csv", "--count", 9) == 0
    assert Path("b.csv").read_text() == Path("a.csv").read_text()


def test_never_two_near_duplicates_nor_any_of_the_run_s_pictures(trained, tmp_path, capsys):
    """The folder holds the run's pictures, other versions of them, and each new one twice."""
    run, data = trained
    new = write_set(tmp_path, {"new": 12}, start=800) / "new"
    for seed in range(800, 812):
        (new / f"{seed}-paler.png").write_bytes(encoded(scene(seed) // 2 + 60))
    held_out = *FinishedRun.read(run).split("test"), *FinishedRun.read(run).split("train")[:5]
    for picture in held_out:
        shutil.copy(data / picture.path, new / f"copy-{picture.sha256[:8]}.png")
        pale = encoded(scene(int(Path(picture.path).stem)) // 2 + 60)
        (new / f"pale-{picture.sha256[:8]}.png").write_bytes(pale)
    assert call("next", run, new, "--csv", tmp_path / "a.csv") == 0
    chosen = [Path(path).name for path in paths_of(tmp_path / "a.csv")]
    assert len(chosen) == 12
    seeds = sorted(int(re.match("0*([0-9]+)", name)[1]) for name in chosen)
    assert seeds == list(range(800, 812))
    descriptors = {Path(r.path).name: r.descriptor for r in read_heap(new).records}
    groups = near_duplicates.groups([descriptors[name] for name in chosen])
    assert len(set(groups.tolist())) == 12
    printed = capsys.readouterr().err
    assert f"{2 * len(held_out)} are in the data of the run" in printed
    assert "note: 12 pictures are left, fewer than --count 50" in printed
    assert "not found" not in printed


def test_where_the_run_s_pictures_are_not_found_copies_are_left_out(here, capsys):
    Path("new/pale.png").write_bytes(encoded(scene(2) // 2 + 60))
    assert call("next", "run", "new", "--csv", "a.csv") == 0
    assert "new/pale.png" not in paths_of()  # it is like the copy of one
    Path("new/a/00002.png").unlink()
    capsys.readouterr()
    assert call("next", "run", "new", "--csv", "a.csv") == 0
    assert "only exact copies of those are left out" in capsys.readouterr().err
    assert "new/pale.png" in paths_of()
    write_set(here, {"set/axes": 1, "set/boots": 1}, start=2)
    assert call("next", "run", "new", "--csv", "a.csv", "--data", "set") == 0
    assert "not found" not in capsys.readouterr().err
    assert "new/pale.png" not in paths_of()


def test_unreadable_files_are_named_and_end_in_exit_code_4(here, capsys):
    Path("new/a/00001.png").write_text("hello")
    Path("new/a/page\x1b[2J.jpg").write_bytes(b"<html>")
    assert call("next", "run", "new", "gone.png", "--csv", "a.csv", "--count", 30) == 4
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert errors[:2] == [
        "error: gone.png: no such file",
        "error: new/a/00001.png: text, not a picture",
    ]
    assert errors[2].startswith("error: new/a/page\\x1b[2J.jpg: ")
    assert len(rows_of()) == 18


def test_nothing_to_choose_from_is_a_table_without_rows(here, capsys):
    assert call("next", "run", "new/a/00002.png", "--csv", "a.csv") == 0
    assert Path("a.csv").read_text() == "path,score\n"
    assert "note: 0 pictures are left, fewer than --count 50" in capsys.readouterr().err


def test_rounds_go_on_with_a_corrections_file(here):
    """Each round chooses others, until none is left; both spellings of a decision count."""
    seen = []
    Path("labels.csv").write_text("path,sha256,action,label,by,when\n")
    for _ in range(5):
        assert (
            call("next", "run", "new", "--count", 4, "--labels", "labels.csv", "--csv", "a.csv")
            == 0
        )
        for number, path in enumerate(paths_of()):
            sha256 = hashlib.sha256(Path(path).read_bytes()).hexdigest() if number else ""
            place, action = str(Path(path).absolute()), ("add", "remove")[number % 2]
            append(Path("labels.csv"), [Correction(place, sha256, action, "axes", "ana", "2026")])
        seen += paths_of()
    assert len(seen) == len(set(seen)) == 19


def test_review_takes_the_table_as_it_is(here):
    Path('new/a/übung, "1".png').write_bytes(encoded(scene(99)))
    assert call("next", "run", "new", "--csv", "a.csv", "--count", 20) == 0
    session, notes = open_session(
        Path("run/model"), ["new"], queue=Path("a.csv"), labels=Path("labels.csv"), by="ana"
    )
    try:
        shown = [session.describe(n) for n in range(len(session.pictures))]
        files = [session.pictures.file(n) for n in range(len(session.pictures))]
    finally:
        session.close()
    assert notes == []
    assert files == [str(Path(path).absolute()) for path in paths_of()]
    assert len(files) == 20
    assert [one["reason"]["score"] for one in shown] == [row["score"] for row in rows_of()]


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["run"], 2, "no pictures"),
        (["run", "empty"], 4, "empty: no pictures"),
        (["run", "new/*.tiff"], 4, "new/*.tiff: matches no file"),
        (["nothing", "new"], 5, "nothing"),
        (["run", "new", "--count", "0"], 2, "--count 0"),
        (["run", "new", "--csv", "no/such/a.csv"], 2, "--csv no/such/a.csv"),
        (["run", "new", "--csv", "new"], 2, "--csv new: cannot be written"),
        (["run", "new", "--labels", "no.csv"], 4, "no.csv"),
        (["run", "new", "--labels", "new/a/00000.png"], 4, "new/a/00000.png"),
        (["run", "new", "--data", "no/such"], 4, "no/such"),
        (["run", "new", "--data", "other"], 4, "--data other: holds none of the pictures"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_are_one_line_before_the_work_and_leave_nothing(
    here, capsys, monkeypatch, arguments, code, word
):
    Path("empty").mkdir()
    write_set(here / "other", {"axes": 1, "boots": 1}, start=300)
    monkeypatch.setattr("jaxgear.evaluation.acquisition.find_candidates", None)  # no work
    assert call("next", *arguments) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert word in line
    assert sorted(os.listdir()) == ["empty", "new", "other", "run"]  # noqa: PTH208


def test_a_table_that_cannot_be_finished_leaves_the_old_one(here, monkeypatch, capsys):
    Path("a.csv").write_text("old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jaxgear.files.os.fsync", full)
    assert call("next", "run", "new", "--csv", "a.csv") == 2
    assert "--csv a.csv: cannot be written (No space left" in capsys.readouterr().err
    assert Path("a.csv").read_text() == "old"
