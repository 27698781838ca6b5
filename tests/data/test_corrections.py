"""The corrections file: rows are only added, and a person's decision holds."""

import multiprocessing
from pathlib import Path

import pytest

from jaxgear.data.labels import Correction, append, read_corrections, standing
from jaxgear.errors import DataError, UsageError

SHA = "0123456789abcdef" * 4
HEADER = "path,sha256,action,label,by,when\n"


def row(action="relabel", label="boots", by="ana", sha256=SHA, path="a/1.jpg"):
    return Correction(path, sha256, action, label, by, "2026-11-28T12:00:00+00:00")


def test_rows_come_back_as_they_were_added(tmp_path):
    file = tmp_path / "corrections.csv"
    rows = (row(), row(path='a "b", c.jpg', label="Größe"), row("remove", "blurred, dark"))
    append(file, rows[:1])
    append(file, rows[1:])
    assert read_corrections(file) == rows
    assert file.read_text().startswith(HEADER)


@pytest.mark.parametrize("cut", [1, 2, 14, 26, 27, 28, 30, 40, 59, 90])
def test_a_row_cut_off_by_a_kill_is_dropped_and_the_next_one_is_whole(tmp_path, cut):
    file = tmp_path / "corrections.csv"
    append(file, [row(), row("remove", "")])
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    left = read_corrections(file)
    append(file, [row("add")])
    assert read_corrections(file) == (*left, row("add"))
    if cut > len(row().when) + 1:
        assert left == (row(),)
    else:  # only its time is cut short: what was decided is known
        assert [r.action for r in left] == ["relabel", "remove"]


def test_a_last_row_without_a_line_end_counts_if_it_is_whole(tmp_path):
    file = tmp_path / "corrections.csv"
    file.write_text(f"\ufeff{HEADER}a/1.jpg,{SHA},remove,,ana,2026", encoding="utf-8")
    assert len(read_corrections(file)) == 1
    append(file, [row()])
    assert [r.action for r in read_corrections(file)] == ["remove", "relabel"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "its columns are path,sha256,action,label,by,when"),
        ("path,label\na,b\n", "its columns are"),
        (f"{HEADER}a,{SHA},rename,boots,ana,now\n", "line 2: action 'rename'"),
        (f"{HEADER}a,abc,relabel,boots,ana,now\n", "line 2: sha256 'abc'"),
        (f"{HEADER},,relabel,boots,ana,now\n", "neither path nor sha256"),
        (f"{HEADER}a,{SHA},relabel,,ana,now\n", "no label"),
        (f"{HEADER}a,{SHA},add,../x,ana,now\n", "slash"),
        (f"{HEADER}a,{SHA},add,..,ana,now\n", "is no name"),
        (f"{HEADER}a,{SHA},add,\x1b[2J,ana,now\n", "control character"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_line(tmp_path, text, reason):
    file = tmp_path / "corrections.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=r"corrections\.csv") as error:
        read_corrections(file)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_bytes_and_nothing_are_no_corrections(tmp_path):
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00path\n\xff")
    for path in (tmp_path, tmp_path / "bytes.csv", tmp_path / "none.csv"):
        with pytest.raises(DataError, match="cannot be read as corrections"):
            read_corrections(path)


@pytest.mark.parametrize(
    "text", ["my notes\n", "path,label\n", "path,sha256,label,action,by,when\n"]
)
def test_nothing_is_added_to_a_file_that_is_something_else(tmp_path, text):
    file = tmp_path / "notes.csv"
    file.write_text(text)
    with pytest.raises(UsageError, match="nothing is added"):
        append(file, [row()])
    assert file.read_text() == text


def test_the_last_decision_holds_but_a_program_never_replaces_a_person():
    program = row(label="tents", by="jaxgear clean")
    person, later = row(label="boots"), row("remove", "double", by="ben")
    assert standing([program, person]) == [person]
    assert standing([person, program]) == [person]
    assert standing([person, program, later]) == [later]
    assert standing([program, row(label="rope", by="jaxgear")])[0].label == "rope"
    assert row(by="jaxgearina").by_program is False
    other = row(sha256="", path="b/2.jpg")
    assert standing([person, other, later]) == [other, later]


def test_nothing_is_added_to_a_file_that_has_grown_since_it_was_read(tmp_path):
    file = tmp_path / "corrections.csv"
    status = append(file, [row()], at=0)
    assert status.st_size == file.stat().st_size
    assert append(file, [row("remove", "")], at=0) is None
    assert append(file, [row("remove", "")], at=status.st_size - 1) is None
    assert read_corrections(file) == (row(),)
    assert append(file, [row("remove", "")], at=status.st_size) is not None
    assert len(read_corrections(file)) == 2


def add_many(path: Path, by: str) -> None:
    for number in range(50):
        append(path, [row(by=by, path=f"{number}.jpg")])


def test_two_processes_lose_no_row(tmp_path):
    file = tmp_path / "corrections.csv"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=add_many, args=(file, by)) for by in ("ana", "ben")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    rows = read_corrections(file)
    for by in ("ana", "ben"):
        assert [r.path for r in rows if r.by == by] == [f"{number}.jpg" for number in range(50)]
