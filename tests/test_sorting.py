"""`predict --sort`: every readable picture lands once, and a killed run is finished."""

import csv
import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_runs import untrained
from pictures import encoded, placed, scene, write_set
from small_bundle import CLASSES, make_bundle

from jaxgear import cli
from jaxgear.data.folder import kept_descriptors, read_folder
from jaxgear.data.images import descriptor
from jaxgear.prediction import sorted_folder, sorting
from jaxgear.prediction.sorting import folder_of

COUNT = 30


def call(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code


def rows_of(out="out"):
    with (Path(out) / "sorted.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a bundle, 30 new pictures in folders, and two faulty files."""
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path / "new", {"a": COUNT - 10, "b/c": 10})
    (tmp_path / "new/b/bad.jpg").write_bytes(b"no picture")
    known = hashlib.sha256(encoded(scene(3))).hexdigest()
    make_bundle(known={known: "train"}).save(tmp_path / "run" / "model")
    return tmp_path


def test_every_readable_picture_lands_once(here, capsys):
    shutil.copy("new/a/00001.png", "new/b/copy.png")
    again = scene(2) // 2 + 60
    Path("new/b/paler.png").write_bytes(encoded(again))
    assert call("predict", "run", "new", "--sort", "out", "--review-below", 0.45) == 4
    rows = {os.path.relpath(row["path"], "new"): row for row in rows_of()}
    sources = {
        path.relative_to("new").as_posix(): path.read_bytes() for path in Path("new").rglob("*.png")
    }
    assert rows.keys() == sources.keys()
    assert {row["file"]: sources[name] for name, row in rows.items()} == placed()
    for name, row in rows.items():
        assert row["sha256"] == hashlib.sha256(sources[name]).hexdigest()
        folder = row["file"].split("/")[0]
        if name in ("a/00003.png", "b/copy.png", "b/paler.png"):
            assert folder == "duplicates"
        elif float(row["probability"]) < 0.45:
            assert folder == "review"
        else:
            assert folder == row["class"]
    folders = {row["file"].split("/")[0] for row in rows.values()}
    assert folders >= {"duplicates", "review"}
    assert folders & set(CLASSES)
    assert Path("out/unreadable.csv").read_text().splitlines() == [
        "path,reason",
        f'{here}/new/b/bad.jpg,"text, not a picture"',
    ]
    assert all(Path("out", row["file"]).samefile(row["path"]) for row in rows.values())
    assert "sorted into out: 5 axes" in capsys.readouterr().err


def test_a_second_time_changes_nothing_and_predicts_nothing(here, capsys, monkeypatch):
    call("predict", "run", "new", "--sort", "out")
    before, table = placed(), rows_of()
    moved = Path("out", table[0]["file"])
    Path("out/axes").mkdir(exist_ok=True)
    moved.rename("out/axes/by-hand.png")
    capsys.readouterr()
    assert call("predict", "run", "new", "--sort", "out") == 4  # the unreadable one is still there
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"{COUNT} of {COUNT + 1} are sorted already" in printed.err
    assert rows_of() == table
    assert table[0]["file"] not in placed()  # what a person moved stays moved
    assert len(placed()) == len(before)


def test_with_a_table_all_are_predicted_but_none_placed_again(here):
    call("predict", "run", "new", "--sort", "out")
    before = placed()
    call("predict", "run", "new", "--sort", "out", "--csv", "all.csv")
    assert len(Path("all.csv").read_text().splitlines()) == COUNT + 1
    assert placed() == before
    assert len(rows_of()) == COUNT


def test_new_and_edited_pictures_are_added(here):
    call("predict", "run", "new", "--sort", "out")
    Path("new/a/more.png").write_bytes(encoded(scene(500)))
    Path("new/a/00000.png").write_bytes(encoded(scene(501)))
    Path("new/b/bad.jpg").unlink()
    assert call("predict", "run", "new", "--sort", "out") == 0
    assert len(rows_of()) == COUNT + 2
    files = [row["file"] for row in rows_of()]
    assert len(set(files)) == len(files)
    assert Path("out/unreadable.csv").read_text() == "path,reason\n"
    # A near-duplicate of one that an earlier run sorted.
    Path("new/a/pale.png").write_bytes(encoded(scene(4) // 2 + 60))
    call("predict", "run", "new", "--sort", "out")
    assert rows_of()[-1]["file"] == "duplicates/pale.png"


def test_equal_names_get_a_hash(here):
    Path("new/d").mkdir()
    Path("new/d/00000.png").write_bytes(encoded(scene(900)))
    call("predict", "run", "new", "--sort", "out", "--review-below", 1)
    sha256 = hashlib.sha256(encoded(scene(900))).hexdigest()
    files = {row["file"] for row in rows_of() if row["path"].endswith("00000.png")}
    assert files == {"review/00000.png", f"review/00000-{sha256[:8]}.png"}


@pytest.mark.parametrize("die_at", [0, 1, 7, 20])
@pytest.mark.parametrize("copy", [(), ("--copy",)])
def test_a_run_that_dies_half_way_is_finished_by_the_next(here, monkeypatch, die_at, copy):
    left = [die_at]
    place = sorted_folder.SortedFolder._place

    def dying(self, row):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        place(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(sorted_folder.SortedFolder, "_place", dying)
        assert call("predict", "run", "new", "--sort", "out", *copy) == 130
    assert len(placed()) == die_at
    call("predict", "run", "new", "--sort", "out", *copy)
    call("predict", "run", "new", "--sort", "whole", *copy)
    assert placed() == placed("whole")
    assert [row["file"] for row in rows_of()] == [row["file"] for row in rows_of("whole")]


def test_what_a_person_moved_after_a_finished_kill_stays_moved(here, monkeypatch):
    def dying(self, row):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sorted_folder.SortedFolder, "_place", dying)
        assert call("predict", "run", "new", "--sort", "out") == 130
    call("predict", "run", "new", "--sort", "out")  # places what was written down, predicts nothing
    before = placed()
    Path("out", rows_of()[0]["file"]).rename("out/by-hand.png")
    call("predict", "run", "new", "--sort", "out")
    assert len(placed()) == len(before) == COUNT
    assert "by-hand.png" in placed()


def test_a_signal_places_what_was_predicted(here, monkeypatch):
    add = sorting.Sorter.add

    def interrupted(self, prediction):
        add(self, prediction)
        if len(self._pending) == 9:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sorting.Sorter, "add", interrupted)
        assert call("predict", "run", "new", "--sort", "out") == 130
    assert len(placed()) == len(rows_of()) == 9


def test_a_kill_loses_nothing_that_was_written_down(here, monkeypatch):
    """The rest is predicted, and all lands where it would have landed without the kill."""
    add, left = sorting.Sorter.add, [9]

    def dying(self, prediction):
        add(self, prediction)
        left[0] -= 1
        if not left[0]:
            raise ZeroDivisionError  # nothing is placed, as after SIGKILL

    with monkeypatch.context() as patch:
        patch.setattr(sorting, "_SECONDS", 0)
        patch.setattr(sorting.Sorter, "add", dying)
        with pytest.raises(ZeroDivisionError):
            cli.main(["predict", "run", "new", "--sort", "out"])
    assert not placed()
    noted = Path("out/.sorted/predicted.csv").read_text().splitlines()
    assert len(noted) == 1 + 9
    (descriptors,) = Path("out/.sorted").glob("descriptors-*")
    with descriptors.open("ab") as file:
        file.write(b"cut off by the kill")
    Path("new/a/00001.png").write_bytes(encoded(scene(700)))  # edited since: predicted again
    predicted = []
    with monkeypatch.context() as patch:
        patch.setattr(
            sorting.Sorter, "add", lambda self, p: (predicted.append(p.path), add(self, p))
        )
        call("predict", "run", "new", "--sort", "out")
    assert len(predicted) == COUNT - 9 + 1 + 1  # the edited one, and the unreadable one
    call("predict", "run", "new", "--sort", "whole")
    assert {(row["path"], row["file"], row["probability"]) for row in rows_of()} == {
        (row["path"], row["file"], row["probability"]) for row in rows_of("whole")
    }
    Path("new/b/pale.png").write_bytes(encoded(scene(4) // 2 + 60))  # its descriptor is read back
    call("predict", "run", "new", "--sort", "out")
    assert rows_of()[-1]["file"] == "duplicates/pale.png"


def test_lost_descriptors_cost_near_duplicates_and_nothing_else(here, monkeypatch):
    """As after a cleared state folder, or another version of the descriptor."""
    add = sorting.Sorter.add

    def dying(self, prediction):
        add(self, prediction)
        if len(self._pending) == 5:
            raise ZeroDivisionError

    def lose():
        for file in Path("out/.sorted").glob("descriptors-*"):
            file.unlink()

    for number in range(2):  # noted, lost, and noted again
        with monkeypatch.context() as patch:
            patch.setattr(sorting, "_SECONDS", 0)
            patch.setattr(sorting.Sorter, "add", dying)
            with pytest.raises(ZeroDivisionError):
                cli.main(["predict", "run", "new", "--sort", "out"])
        if number == 0:
            lose()
    call("predict", "run", "new", "--sort", "out")
    assert len(rows_of()) == len(placed()) == COUNT
    lose()
    Path("new/a/more.png").write_bytes(encoded(scene(500)))
    call("predict", "run", "new", "--sort", "out")
    assert len(rows_of()) == len(placed()) == COUNT + 1


def test_a_row_that_a_kill_cut_off_is_sorted_again(here):
    call("predict", "run", "new", "--sort", "out")
    table = Path("out/sorted.csv")
    whole = rows_of()
    table.write_bytes(table.read_bytes()[:-40])
    Path("out", whole[-1]["file"]).unlink()
    call("predict", "run", "new", "--sort", "out")
    assert [row["file"] for row in rows_of()] == [row["file"] for row in whole]
    assert len(placed()) == COUNT


def test_names_that_are_not_utf8_are_listed_and_the_others_sorted(here, capsys):
    """A pattern finds them, where a folder leaves them out."""
    name = os.fsdecode(b"new/a/\xff.png")
    Path(name).write_bytes(encoded(scene(700)))
    assert call("predict", "run", "new/a/*.png", "--sort", "out") == 4
    assert len(rows_of()) == COUNT - 10
    (line,) = (Path("out") / "unreadable.csv").read_text().splitlines()[1:]
    assert line.endswith("name that is not UTF-8")


def test_a_picture_that_became_unreadable_before_it_was_copied_stops_nothing(here):
    files = [f"new/a/{number:05d}.png" for number in range(3)]
    folder = sorted_folder.SortedFolder(Path("out"), copy=True)
    rows = [folder.row(file, "0" * 64, "boots", "boots", (0.9, 0.5)) for file in files]
    Path(files[1]).unlink()
    Path(files[1]).mkdir()  # is there, and cannot be read
    folder.place(rows)
    folder.release()
    sorted_folder.SortedFolder(Path("out"), copy=True).release()  # opens, with all rows placed
    assert sorted(placed()) == ["boots/00000.png", "boots/00002.png"]


def test_copies_are_files_of_their_own(here):
    call("predict", "run", "new", "--sort", "out", "--copy")
    row = rows_of()[0]
    copy = Path("out", row["file"])
    assert not copy.samefile(row["path"])
    assert copy.stat().st_mtime_ns == Path(row["path"]).stat().st_mtime_ns


def test_another_file_system_is_found_before_time_is_spent(here, capsys, monkeypatch):
    def link(source, target):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", link)
    assert call("predict", "run", "new", "--sort", "out") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "--copy copies the files" in printed.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("new", "--sort", "new/out"), "choose a place outside"),
        (("new", "--sort", "new"), "choose a place outside"),
        (("out/boots/x.png", "--sort", "out"), "choose a place outside"),
        (("new", "--copy"), "go with --sort OUT"),
        (("new", "--review-below", "0"), "go with --sort OUT"),
        (("new", "--sort", "out", "--review-below", "50"), "a probability, 0 to 1"),
        (("new", "--sort", "a-file"), "cannot be written"),
    ],
)
def test_flags_that_cannot_work_are_one_line(here, capsys, arguments, words):
    Path("out/boots").mkdir(parents=True)
    Path("out/boots/x.png").write_bytes(encoded(scene(7)))
    Path("a-file").write_text("")
    assert call("predict", "run", *arguments) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_a_table_of_something_else_is_left_alone(here, capsys):
    Path("out").mkdir()
    Path("out/sorted.csv").write_text("my,own\n1,2\n")
    assert call("predict", "run", "new", "--sort", "out") == 2
    assert "something else" in capsys.readouterr().err
    assert Path("out/sorted.csv").read_text() == "my,own\n1,2\n"


def test_two_sorts_into_one_folder_do_not_mix(here, capsys):
    folder = sorted_folder.SortedFolder(Path("out"), copy=False)
    assert call("predict", "run", "new", "--sort", "out") == 2
    assert "in use by process" in capsys.readouterr().err
    folder.release()


def test_near_duplicates_of_the_model_s_pictures_are_found_by_data(here, capsys):
    write_set(here / "set", {"boots": 4, "axes": 4}, start=100)
    known = {hashlib.sha256(encoded(scene(100 + n))).hexdigest(): "train" for n in range(8)}
    make_bundle(known=known).save(here / "other" / "model")
    Path("new/a/pale.png").write_bytes(encoded(scene(103) // 2 + 60))
    call("predict", "other", "new", "--sort", "out")
    assert "only exact copies of them" in capsys.readouterr().err
    call("predict", "other", "new", "--sort", "with", "--data", "set")
    for out, folder in (("out", False), ("with", True)):
        row = next(row for row in rows_of(out) if row["path"].endswith("pale.png"))
        assert row["file"].startswith("duplicates") is folder


def test_descriptors_of_a_run_come_from_the_cache_where_its_data_are_gone(here):
    write_set(here / "set", {"boots": 4, "axes": 4}, start=100)
    folder = read_folder(here / "set", size=32)
    wanted = {record.sha256: record.descriptor for record in folder.records}
    shutil.rmtree(here / "set")
    assert kept_descriptors(list(wanted), 32) == list(wanted.values())
    assert kept_descriptors([*wanted, "0" * 64], 32) is None
    assert kept_descriptors(list(wanted), 33) is None


def test_near_duplicates_of_a_run_are_found_where_its_data_are_gone(here, capsys):
    write_set(here / "set", dict.fromkeys(CLASSES, 6), start=100)
    run = untrained(here / "trained", str(here / "set"))
    shutil.copytree(here / "set", here / "elsewhere")
    shutil.rmtree(here / "set")
    Path("new/a/pale.png").write_bytes(encoded(scene(103) // 2 + 60))
    call("predict", run, "new", "--sort", "out")
    assert "not found" not in capsys.readouterr().err
    row = next(row for row in rows_of() if row["path"].endswith("pale.png"))
    assert row["file"].startswith("duplicates/")


def test_pictures_without_gear_go_to_none(here):
    import dataclasses

    from jaxgear.bundle import Bundle

    bundle = Bundle.load("run")
    dataclasses.replace(bundle, accept_from=1e9).save(here / "strict" / "model")
    call("predict", "strict", "new", "--sort", "out")
    assert {row["file"].split("/")[0] for row in rows_of()} == {"none", "duplicates"}


def test_classes_that_are_named_like_other_folders():
    names = ["none", "Review", "duplicates", "class_none", "boots", "sorted.csv"]
    folders = [folder_of(name) for name in names]
    assert folders[4] == "boots"
    assert len({folder.casefold() for folder in folders}) == len(names)
    assert not {folder.casefold() for folder in folders} & {"none", "review", "duplicates"}


def test_a_descriptor_has_the_size_that_is_stored():
    assert len(descriptor.describe(np.zeros((9, 5, 3), np.uint8))) == descriptor.BYTES
