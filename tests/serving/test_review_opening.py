"""What a review opens: runs, new pictures, queues; and the one line that says what is wrong."""

import csv
import getpass
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest
from made_runs import untrained
from reviews import Client, reviewing, run_of, run_with_pictures, write_picture
from small_bundle import CLASSES, make_bundle

from jaxgear import cli
from jaxgear.data import crops
from jaxgear.data.dataset import open_dataset
from jaxgear.data.folder import pixels, read_folder
from jaxgear.data.images import load_letterboxed, load_rgb
from jaxgear.data.labels import Correction, append, read_corrections
from jaxgear.data.labels.apply import with_corrections
from jaxgear.data.sources import drawn_set
from jaxgear.errors import DataError, UsageError
from jaxgear.files import read_json
from jaxgear.outputs import Output
from jaxgear.prediction import predict
from jaxgear.prediction.tables import CsvTable
from jaxgear.serving.review.decisions import Decision
from jaxgear.serving.review.opening import open_session
from jaxgear.serving.review.pictures import read_queue

AXES, BOOTS, JACKETS = CLASSES
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """FOLDER/run with its model, FOLDER/data, FOLDER/new with five pictures in two folders."""
    folder = tmp_path_factory.mktemp("opening")
    run_with_pictures(folder, model=True)
    for number in range(5):
        write_picture(folder / "new" / f"{'ab'[number % 2]}" / f"{number}.png", 70 + number)
    return folder


def opened(folder, *new, **more):
    session, notes = open_session(folder / "run", [str(n) for n in new], by="ana", **more)
    session.close()
    return session, notes


def names(session):
    return [session.describe(i)["name"] for i in range(len(session.pictures))]


def queue_of(folder, text):
    (folder / "queue.csv").write_text(text, encoding="utf-8")
    return folder / "queue.csv"


def test_a_queue_of_clean_gives_the_order_and_the_reasons(folder, tmp_path):
    text = (
        "path,label,suggested,score,kind\n"
        f"{BOOTS}/001.png,{BOOTS},{AXES},0.99,wrong label\n"
        f"{AXES}/003.png,{AXES},,0.51,outlier\n"
        f"{BOOTS}/001.png,{BOOTS},,0.2,twice\n"
        f"{JACKETS}/000.png,{JACKETS},remove,0.1,blurred\n"
    )
    session, notes = opened(folder, queue=queue_of(tmp_path, text))
    assert names(session) == [f"{BOOTS}/001.png", f"{AXES}/003.png", f"{JACKETS}/000.png"]
    first, second, third = (session.describe(i) for i in range(3))
    assert first["reason"] == {"kind": "wrong label", "score": "0.99", "suggested": AXES}
    assert (first["label"], first["accept"]) == (BOOTS, {"action": "label", "label": AXES})
    assert second["accept"] == {"action": "label", "label": AXES}  # no suggestion: its own
    assert third["accept"]["action"] == "remove"
    assert notes == []


def test_a_queue_with_scores_alone_and_paths_that_are_gone(folder, tmp_path):
    text = f"path,score\ngone.png,0.9\n{AXES}/001.png,0.8\n"
    session, (note,) = opened(folder, queue=queue_of(tmp_path, text))
    assert names(session) == [f"{AXES}/001.png"]
    assert session.describe(0)["reason"]["score"] == "0.8"
    assert "1 of its 2 paths are not among the pictures, for example gone.png" in note


@pytest.mark.parametrize("place", ["absolute", "here"])
def test_a_queue_as_predict_writes_it(folder, tmp_path, monkeypatch, place):
    monkeypatch.chdir(folder)
    source = str(folder / "new") if place == "absolute" else "new"
    path = tmp_path / "queue.csv"
    with Output("--csv", path) as output:
        table = CsvTable(output, CLASSES)
        for prediction in reversed(list(predict(make_bundle(), [source]))):
            table.add(prediction)
    rows = list(csv.DictReader(path.read_text().splitlines()))
    session, notes = opened(folder, source, queue=path)
    assert names(session) == ["b/3.png", "b/1.png", "a/4.png", "a/2.png", "a/0.png"]
    first = session.describe(0)
    assert (first["predicted"], first["probability"]) == (rows[0]["class"], rows[0]["probability"])
    assert session.groups()[0] == CLASSES.index(rows[0]["class"])  # before any prediction
    assert notes == []


def test_a_queue_counts_from_the_folder_of_new_pictures(folder, tmp_path):
    session, _ = opened(folder, folder / "new", queue=queue_of(tmp_path, "path\nb/1.png\n"))
    assert names(session) == ["b/1.png"]
    # The only pictures named lie deeper than the folder.
    session, _ = opened(
        folder, folder / "new/b/1.png", queue=queue_of(tmp_path, f"path\n{folder}/new/b/1.png\n")
    )
    assert session.pictures.name(0) == f"{folder}/new/b/1.png"


def test_a_queue_opens_no_file_that_is_not_listed(folder, tmp_path):
    outside = folder / "secret.png"
    write_picture(outside, 5)
    for path in (outside, "../secret.png", "/etc/passwd"):
        with pytest.raises(DataError, match="none of its 1 paths is one of the run's pictures"):
            opened(folder, queue=queue_of(tmp_path, f"path\n{path}\n"))


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "column `path`"),
        (b"name,score\na,1\n", "column `path`"),
        (b"path,score\n", "no rows"),
        (b"path,score\n,1\n", "line 2: no path"),
        (b"\xff\xfep\0a\0t\0h\0", "not a CSV in UTF-8"),
        (b"\x89PNG\r\n\x1a\n", "not a CSV in UTF-8"),
        (b"path\n" + b"x" * 200_000, "line 1: field larger"),
        (b"path\nyaks/1.png\n", "none of its 1 paths"),
    ],
)
def test_a_damaged_queue_is_one_line_and_exit_code_4(folder, tmp_path, capsys, content, word):
    (tmp_path / "queue.csv").write_bytes(content)
    command = ["review", str(folder / "run"), "--port", "0", "--queue", str(tmp_path / "queue.csv")]
    assert failed(command, capsys, 4, word).count("queue.csv") == 1


def failed(command, capsys, code, word):
    """The line that a command fails with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uvicorn.Server.run", lambda *arguments, **more: sys.exit("it serves"))
        with pytest.raises(SystemExit) as stop:
            cli.main(command)
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == code, line
    assert word in line
    return line


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["RUN", "--queue", "no.csv"], 2, "--queue no.csv: cannot be read"),
        (["RUN", "--queue", "."], 2, "--queue .: cannot be read"),
        (["RUN", "--labels", "no/such/file.csv"], 2, "no folder no/such"),
        (["RUN", "--labels", "DATA/corrections.csv"], 2, "where nothing is written"),
        (["RUN", "NEW", "--labels", "NEW/a/corrections.csv"], 2, "where nothing is written"),
        (["RUN", "--labels", "NOTES"], 4, "not a corrections file"),
        (["RUN", "--by", "jaxgear clean"], 2, "for programs"),
        (["RUN", "--by", " "], 2, "--by"),
        (["RUN", "--by", "two\nlines"], 2, "--by"),
        (["RUN", "--data", "no/folder"], 4, "name their folder with --data FOLDER"),
        (["RUN", "NEW", "--data", "DATA"], 2, "--data"),
        (["RUN", "no/such.png*"], 4, "matches no file"),
        (["RUN/model"], 2, "name new pictures after it"),
        (["RUN/model", "NEW"], 2, "--labels FILE"),
        (["no/run"], 5, "not a run folder"),
        (["no/run", "NEW"], 5, "neither a run nor a bundle"),
        (["RUN", "--port", "70000"], 2, "--port 70000"),
    ],
    ids=str,
)
def test_mistakes_are_one_line_and_a_code(folder, tmp_path, capsys, arguments, code, word):
    (tmp_path / "notes.txt").write_text("my notes\n")
    places = {
        "RUN": folder / "run",
        "DATA": folder / "data",
        "NEW": folder / "new",
        "NOTES": tmp_path / "notes.txt",
    }
    words = list(arguments)
    for name, place in places.items():
        words = [str(place) + w[len(name) :] if w.startswith(name) else w for w in words]
    failed(["review", *words, *([] if "--port" in words else ["--port", "0"])], capsys, code, word)


def test_a_missing_extra_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "starlette", None)
    failed(["review", "no/run"], capsys, 2, "review needs starlette: pip install 'jaxgear[serve]'")


def test_the_corrections_file_is_in_the_run_folder_unless_named(folder, tmp_path):
    assert opened(folder)[0].decisions.path == folder / "run/corrections.csv"
    session, _ = open_session(
        folder / "run/model", [str(folder / "new")], labels=tmp_path / "x.csv", by="ana"
    )
    session.close()
    assert session.decisions.path == tmp_path / "x.csv"
    assert not (folder / "run/corrections.csv").exists()  # looking writes nothing


def test_pictures_that_moved_are_found_with_data(folder, tmp_path):
    (folder / "data").rename(folder / "moved")
    try:
        with pytest.raises(DataError, match="as its config says"):
            opened(folder)
        session, _ = opened(folder, data=str(folder / "moved"))
        assert len(session.pictures) == 12
        assert session.files.sha256(0) == session.pictures.sha256[0]
    finally:
        (folder / "moved").rename(folder / "data")


def test_a_run_on_the_drawn_set_and_one_on_a_set_without_files(tmp_path, capsys):
    run = run_of(tmp_path / "run", drawn_set("drawn:12"))
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"data": "drawn:12"}))
    session, _ = opened(tmp_path)
    assert len(session.pictures) == 12
    assert session.files.sha256(5) == session.pictures.sha256[5]
    (run / "config.json").write_text(json.dumps(config | {"data": "tfds:gear@there"}))
    failed(["review", str(run), "--port", "0"], capsys, 2, "name their folder with --data FOLDER")


def test_a_run_that_names_files_outside_its_data_is_refused(tmp_path, capsys):
    run = run_with_pictures(tmp_path, each=1)
    splits = json.loads((run / "splits.json").read_text())
    for path in ("../secret.png", "/etc/passwd", "axes/../../x"):
        splits["pictures"][0]["path"] = path
        (run / "splits.json").write_text(json.dumps(splits))
        failed(["review", str(run), "--port", "0"], capsys, 5, "not below the data folder")


def test_a_run_without_a_model_is_reviewed_without_predictions(tmp_path):
    run_with_pictures(tmp_path, each=1)
    session, (note,) = opened(tmp_path)
    assert session.predictions is None
    assert "no predictions are shown" in note


@pytest.mark.parametrize(
    ("login", "by"), [("ana", "ana"), ("jaxgear", "user jaxgear"), ("jaxgear x", "user jaxgear x")]
)
def test_who_decides_is_the_login_name_and_never_a_program(folder, monkeypatch, login, by):
    monkeypatch.setattr(getpass, "getuser", lambda: login)
    session, _ = open_session(folder / "run")
    session.close()
    assert session.by == by
    assert not Correction("a", "", "remove", "", session.by, "now").by_program


def test_without_a_login_name_one_is_asked_for(folder, monkeypatch):
    def nobody():
        raise KeyError("uid 12345")

    monkeypatch.setattr(getpass, "getuser", nobody)
    with pytest.raises(UsageError, match="--by NAME is needed"):
        open_session(folder / "run")


def test_odd_names_of_files_are_shown_and_found_again(tmp_path):
    run_with_pictures(tmp_path, each=1, model=True)
    odd = ['a "b", c.png', "new\nline.png", "Ü雪.png", "<img src=x>.png"]
    for number, name in enumerate(odd):
        write_picture(tmp_path / "new" / name, number)
    file = tmp_path / "c.csv"
    session, _ = opened(tmp_path, tmp_path / "new", labels=file)
    rows = [
        Correction(session.pictures.name(i), session.files.sha256(i), "add", BOOTS, "ana", "2026")
        for i in range(4)
    ]
    append(file, rows)
    session, _ = opened(tmp_path, tmp_path / "new", labels=file)
    assert session.done.all()  # by path, before anything is hashed
    assert "new\\nline.png" in names(session)


def test_folders_whose_names_are_not_utf8(tmp_path):
    run_with_pictures(tmp_path, each=1, model=True)
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/new\xff"))
    write_picture(odd / "1.png", 1)
    with reviewing(tmp_path / "run", [odd], labels=odd.with_name("c\udcff.csv")) as client:
        (picture,) = client.pictures()
        assert client.ask("/thumbnail/0")[0] == 200
        wanted = {"index": 0, "version": 0, "action": "label", "label": BOOTS}
        assert client.decide(wanted)[0] == 200
    (row,) = read_corrections(odd.with_name("c\udcff.csv"))
    assert (picture["name"], row.path) == ("1.png", f"{tmp_path}/new\\udcff/1.png")


def test_read_queue_takes_what_spreadsheets_write(tmp_path):
    path = tmp_path / "q.csv"
    path.write_bytes("\ufeffpath,score,class:path\r\nÜ.png,1,0\r\n".encode())
    assert read_queue(path)["Ü.png"].score == "1"


def test_the_command_serves_until_it_is_stopped(folder, tmp_path):
    command = [sys.executable, "-m", "jaxgear", "review", str(folder / "run"), "--port", "0"]
    command += ["--labels", str(tmp_path / "c.csv"), "--by", "ana"]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            first = process.stdout.readline()
            address = process.stdout.readline().split()[0]
            assert len(Client(int(address.rpartition(":")[2])).pictures()) == 12
            process.terminate()
            complaint = process.communicate(timeout=20)[1]
        finally:
            process.kill()
    assert first == f"12 pictures, 0 decided; decisions go to {tmp_path / 'c.csv'}\n"
    assert (process.returncode, complaint) == (143, "")


def test_a_run_on_an_archive_and_with_added_pictures_shows_them_all(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXGEAR_CACHE", str(tmp_path / "cache"))
    for number in range(18):
        write_picture(tmp_path / f"set/{CLASSES[number % 3]}/{number}.png", number)
    shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path / "set")
    labels = tmp_path / "labels.csv"
    new = tmp_path / "new" / "x.png"
    sha256 = write_picture(new, 99)
    append(labels, [Correction(str(new), sha256, "add", "boots", "ana", "2026-11-28T12:00:00Z")])
    run = untrained(tmp_path / "runs", f"{tmp_path}/set.zip", size=16, labels=str(labels))
    session, _ = open_session(run, labels=labels, by="ana")
    try:
        files = [Path(session.pictures.file(index)) for index in range(len(session.pictures))]
        hashes = {hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
        assert hashes == {p["sha256"] for p in read_json(run / "splits.json")["pictures"]}
        (added,) = [index for index, file in enumerate(files) if file.samefile(new)]
        assert session.describe(added)["current"] == "boots"
        session.decide([Decision(added, session.describe(added)["version"], "label", "axes")])
    finally:
        session.close()
    dataset = open_dataset(f"{tmp_path}/set.zip", size=16, seed=0, labels=str(labels), say=print)
    label = next(r.label for r in dataset.folder.records if r.sha256 == sha256)
    assert dataset.classes[label] == "axes"


BOX, OTHER = (0.1, 0.2, 0.5, 0.6), (0.5, 0.5, 1.0, 1.0)


def queue_of_crops(folder):
    photograph = (folder / "new/b/1.png").absolute()
    sides, other = (",".join(f"{side:.4f}" for side in box) for box in (BOX, OTHER))
    return queue_of(
        folder,
        "path,left,top,right,bottom,class,probability\n"
        f"{photograph},{sides},boots,0.9\n{photograph},{other},axes,0.8\n"
        f"{folder / 'new/a/0.png'},0.0000,0.0000,1.0000,1.0000,none,0.3\n",
    )


def test_a_queue_of_crops_shows_each_as_a_picture_of_its_own(folder, tmp_path):
    labels = tmp_path / "labels.csv"
    session, notes = opened(folder, folder / "new", queue=queue_of_crops(folder), labels=labels)
    assert notes == []
    photograph = "b/1.png"
    addresses = [crops.address(photograph, box) for box in (BOX, OTHER)]
    assert names(session) == [*addresses, "a/0.png"]
    assert session.describe(0)["predicted"] == "boots"
    whole = load_rgb(folder / "new" / photograph)
    with PIL.Image.open(io.BytesIO(session.files.jpeg(0))) as shown:
        assert shown.size == PIL.Image.open(io.BytesIO(crops.crop(whole, BOX))).size
    written, changed = session.decide([Decision(0, 0, "label", BOOTS), Decision(2, 0, "remove")])
    assert (written, changed) == (True, [0, 2])
    assert session.done.tolist() == [True, False, True]
    row, _ = read_corrections(labels)
    path = crops.address(str((folder / "new" / photograph).absolute()), BOX)
    content = crops.crop(whole, BOX)
    assert (row.path, row.action, row.label) == (path, "add", BOOTS)
    assert row.sha256 == hashlib.sha256(content).hexdigest()
    again, _ = opened(folder, folder / "new", queue=queue_of_crops(folder), labels=labels)
    again.refresh()
    again.describe(0)
    assert again.done.tolist() == [True, False, True]


def test_crops_that_a_review_added_are_trained_on(folder, tmp_path):
    labels = tmp_path / "labels.csv"
    session, _ = opened(folder, folder / "new", queue=queue_of_crops(folder), labels=labels)
    session.decide([Decision(0, 0, "label", BOOTS)])
    (row,) = read_corrections(labels)
    found, unknown = with_corrections(
        read_folder(folder / "data", size=16), read_corrections(labels), tmp_path, size=16
    )
    assert unknown == []
    assert found.refused == ()
    (record,) = [record for record in found.records if record.path.startswith("added/")]
    assert (record.sha256, found.classes[record.label]) == (row.sha256, BOOTS)
    crop = load_letterboxed(crops.read_bytes(row.path, "it"), 16, "it")
    index = found.records.index(record)
    assert (pixels(found, 16)[index] == crop).all()


def test_crops_whose_hash_is_of_compressed_bytes_are_still_trained_on(folder, tmp_path):
    """Until 2026-11-30 the hash of a crop was that of bytes that another machine may not make."""
    address = crops.address(str((folder / "new/b/1.png").absolute()), BOX)
    older = crops.compressed_sha256(address)
    assert older not in ("", crops.sha256(address, "it"))
    assert crops.compressed_sha256(str(folder / "new/b/1.png")) == ""
    data = read_folder(folder / "data", size=16)
    rows = [Correction(address, sha256, "add", BOOTS, "me", "2026") for sha256 in (older, 64 * "0")]
    found, _ = with_corrections(data, rows[:1], tmp_path, size=16)
    assert len(found.records) == len(data.records) + 1
    found, _ = with_corrections(data, rows[1:], tmp_path, size=16)
    assert [file.reason for file in found.refused] == ["has other bytes than its correction says"]


@pytest.mark.parametrize("sides", ["0.5,0.1,0.4,0.9", "a,b,c,d", "0.1,0.1,1.2,0.9", ",,,"])
def test_a_queue_with_a_box_that_is_none(folder, sides):
    queue = queue_of(folder, f"path,left,top,right,bottom\nnew/b/1.png,{sides}\n")
    with pytest.raises(DataError, match=r"queue\.csv, line 2: no box"):
        read_queue(queue)


def test_a_corrected_box_is_kept_and_can_be_undone(folder, tmp_path):
    labels = tmp_path / "labels.csv"
    photograph = str((folder / "new/b/1.png").absolute())
    better = [0.1, 0.2, 0.75, 0.8]
    queue = queue_of_crops(folder)
    with reviewing(folder / "run", [folder / "new"], queue=queue, labels=labels) as client:
        first, second, whole = client.pictures()
        assert (first["box"], second["box"], whole["box"]) == ([*BOX], [*OTHER], [0, 0, 1, 1])
        status, content, headers = client.ask("/photograph/0")
        assert (status, headers["content-type"]) == (200, "image/jpeg")
        with PIL.Image.open(io.BytesIO(content)) as shown, PIL.Image.open(photograph) as file:
            assert shown.size == file.size
        decision = {"index": 0, "version": 0, "action": "label", "label": BOOTS, "box": better}
        status, answer = client.decide(decision)
        assert status == 200
        (state,) = answer["pictures"]
        assert (state["done"], state["version"]) == (True, 2)
        added, removed = read_corrections(labels)
        address = crops.address(photograph, tuple(better))
        assert (added.path, added.action, added.label) == (address, "add", BOOTS)
        assert added.sha256 == crops.sha256(address, "it")
        assert (removed.path, removed.action) == (crops.address(photograph, BOX), "remove")
        found, _ = with_corrections(
            read_folder(folder / "data", size=16), read_corrections(labels), tmp_path, size=16
        )
        assert [r.sha256 for r in found.records if r.path.startswith("added/")] == [added.sha256]
        status, answer = client.decide({"index": 0, "version": 2, "action": "undo", "row": 2})
        assert status == 200
        assert not answer["pictures"][0]["done"]
    found, _ = with_corrections(
        read_folder(folder / "data", size=16), read_corrections(labels), tmp_path, size=16
    )
    assert not [record for record in found.records if record.path.startswith("added/")]


def test_the_same_box_changes_nothing_but_the_label(folder, tmp_path):
    labels, queue = tmp_path / "labels.csv", queue_of_crops(folder)
    session, _ = opened(folder, folder / "new", queue=queue, labels=labels)
    session.decide([Decision(0, 0, "label", BOOTS, box=BOX)])
    (row,) = read_corrections(labels)
    assert (row.action, row.label) == ("add", BOOTS)


@pytest.mark.parametrize(
    "change",
    [
        {"box": [0, 0, 1]},
        {"box": [0.5, 0, 0.5, 1]},
        {"box": [0, 0, 1, 1.5]},
        {"box": ["0", "0", "1", "1"]},
        {"box": None},
        {"box": [0, 0, 1, float("nan")]},
        {"action": "remove"},
    ],
    ids=str,
)
def test_a_box_that_our_page_would_not_send_is_refused(folder, tmp_path, change):
    labels, queue = tmp_path / "labels.csv", queue_of_crops(folder)
    decision = {"index": 0, "version": 0, "action": "label", "label": BOOTS, "box": [0, 0, 1, 1]}
    with reviewing(folder / "run", [folder / "new"], queue=queue, labels=labels) as client:
        status, _ = client.decide(decision | change)
        assert status in (400, 422)
    assert not labels.exists()
