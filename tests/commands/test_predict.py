"""`jaxgear predict`: what it prints and writes, and what it does about files that are not there."""

import csv
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import PIL.Image
import pytest
from pictures import encoded, scene, write_set
from small_bundle import CLASSES, make_bundle

from jaxgear import cli
from jaxgear.bundle.bundle import Bundle
from jaxgear.prediction import predictor as prediction

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory other than the repository's: a run, and five new pictures."""
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path, {"new": 5})
    known = hashlib.sha256(encoded(scene(2))).hexdigest()
    make_bundle(known={known: "train"}).save(tmp_path / "run" / "model")
    return tmp_path


def call(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code


def test_lines_csv_json_and_grid_agree(here, capsys):
    outputs = ["--csv", "a.csv", "--json", "a.json", "--grid", "a.png"]
    assert call("predict", "run", "new", *outputs) == 0
    printed = capsys.readouterr()
    lines = [line.split("\t") for line in printed.out.splitlines()]
    with Path("a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "class", "probability", *CLASSES, "score", "refused"]
    found = json.loads(Path("a.json").read_text())
    assert found["unreadable"] == []
    bundle = Bundle.load("run")
    expected = list(prediction.predict(bundle, ["new"]))
    for one, line, row, entry in zip(expected, lines, rows, found["predictions"], strict=True):
        name = CLASSES[one.probs.argmax()]
        assert line == [one.path, name, f"{one.probs.max():.4f}"]
        assert (row["path"], row["class"]) == (entry["path"], entry["class"]) == (one.path, name)
        assert float(row["probability"]) == entry["probability"] == pytest.approx(one.probs.max())
        np.testing.assert_allclose([float(row[c]) for c in CLASSES], one.probs, atol=1e-6)
        np.testing.assert_allclose(list(entry["probabilities"].values()), one.probs, atol=1e-6)
    assert [entry["side"] for entry in found["predictions"]] == [None, None, "train", None, None]
    assert printed.err.splitlines() == ["note: 1 of 5 are in the data of this model (1 train)"]
    with PIL.Image.open("a.png") as picture:
        assert picture.format == "PNG"
    assert sorted(os.listdir()) == ["a.csv", "a.json", "a.png", "new", "run"]  # noqa: PTH208


def test_a_missing_file_and_a_text_file_among_five(here, capsys):
    Path("new/00001.png").write_text("hello")
    sources = [f"new/{i:05d}.png" for i in range(4)]
    outputs = ["--csv", "a.csv", "--json", "a.json", "--grid", "a.png"]
    assert call("predict", "run", *sources, "new/gone.png", *outputs) == 4
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 3
    errors = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert errors == [
        "error: new/00001.png: text, not a picture",
        "error: new/gone.png: no such file",
    ]
    assert "note: --grid shows 3 new pictures" in printed.err
    assert [line.split(",")[0] for line in Path("a.csv").read_text().splitlines()[1:]] == [
        f"new/{i:05d}.png" for i in (0, 2, 3)
    ]
    assert json.loads(Path("a.json").read_text())["unreadable"] == [
        {"path": "new/00001.png", "reason": "text, not a picture"},
        {"path": "new/gone.png", "reason": "no such file"},
    ]
    assert Path("a.png").stat().st_size > 10_000


def test_one_picture_on_a_grid_is_one_picture(here, capsys):
    assert call("predict", "run", "new/00001.png", "--grid", "a.png") == 0
    (note,) = capsys.readouterr().err.splitlines()
    assert note == "note: --grid shows 1 new picture; 5 or more say more of a model"


def test_nothing_readable_is_still_whole_files(here, capsys):
    Path("new/00001.png").write_text("hello")
    assert call("predict", "run", "new/00001.png", "--json", "a.json", "--csv", "a.csv") == 4
    assert json.loads(Path("a.json").read_text())["predictions"] == []
    assert len(Path("a.csv").read_text().splitlines()) == 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["run"], 2, "no pictures"),
        (["run", "empty"], 4, "empty: no pictures"),
        (["run", "new/*.tiff"], 4, "new/*.tiff: matches no file"),
        (["nothing", "new"], 5, "nothing"),
        (["run", "new", "--batch-size", "0"], 2, "--batch-size 0"),
        (["run", "new", "--csv", "no/such/folder/a.csv"], 2, "--csv no/such/folder/a.csv"),
        (["run", "new", "--json", "new"], 2, "--json new: cannot be written"),
        (["run", "new", "--grid", "no/a.png"], 2, "--grid no/a.png"),
        (["run", "new", "--grid", "a.jpg"], 2, "--grid a.jpg"),
        (["run", "new", "--csv", "a", "--json", "./a"], 2, "--json a"),
        (
            ["run", "new", "--csv", "memory://b/a", "--json", "memory://b/a"],
            2,
            "--json memory://b/a",
        ),
        (
            ["run", "new", "--csv", "file:///no/such/a.csv"],
            2,
            "--csv file:///no/such/a.csv: cannot",
        ),
        (["run", "new", "--csv", "s4://bucket/a.csv"], 2, "s4://bucket/a.csv: "),
        (["run", "memory://nobody/here"], 4, "memory://nobody/here: no such folder"),
        (["run", "memory://b/new", "--sort", "out"], 2, "--sort: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_are_one_line_before_the_work_and_leave_nothing(
    here, capsys, arguments, code, word
):
    Path("empty").mkdir()
    assert call("predict", *arguments) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert word in line
    assert sorted(os.listdir()) == ["empty", "new", "run"]  # noqa: PTH208


def test_pictures_and_tables_at_an_address_are_those_of_this_machine(here, tmp_path, capsys):
    """And nothing but the whole table is left there, also after an error."""
    memory = fsspec.filesystem("memory")
    bucket = f"/{tmp_path.name}"
    memory.put("new", f"{bucket}/new", recursive=True)
    there = f"memory:/{bucket}"
    first = f"{there}/new/00000.png"
    for source, name in (("new", "new"), (f"{there}/new", f"{there}/new"), (first, first)):
        assert call("predict", "run", source, "--csv", "a.csv", "--json", f"{there}/a.json") == 0
        assert call("predict", "run", source, "--csv", f"{there}/a.csv") == 0
        here_csv = Path("a.csv").read_bytes()
        assert memory.cat(f"{bucket}/a.csv") == here_csv
        assert here_csv.splitlines()[1].startswith(name.encode())
        assert len(json.loads(memory.cat(f"{bucket}/a.json"))["predictions"]) in (1, 5)
        assert sorted(memory.ls(bucket, detail=False)) == [
            f"{bucket}/{name}" for name in ("a.csv", "a.json", "new")
        ]
    Path("new/text.png").write_text("hello")
    assert call("predict", "nothing", "new", "--csv", f"{there}/a.csv") == 5
    assert memory.cat(f"{bucket}/a.csv") == here_csv


def test_an_output_that_cannot_be_finished_leaves_the_old_one(here, monkeypatch, capsys):
    Path("a.csv").write_text("old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jaxgear.files.os.fsync", full)
    assert call("predict", "run", "new", "--csv", "a.csv") == 2
    assert "--csv a.csv: cannot be written (No space left on device)" in capsys.readouterr().err
    assert Path("a.csv").read_text() == "old"
    assert not Path(".new-a.csv").exists()


def test_a_folder_gives_what_evaluate_gives_at_any_batch_size(tmp_path, capsys):
    """The same accuracy to the last picture, the same loss, the same class of every file."""
    folder = write_set(tmp_path / "set", dict.fromkeys(CLASSES, 7))
    make_bundle().save(tmp_path / "model")
    bundle = Bundle.load(tmp_path / "model")
    assert call("evaluate", tmp_path / "model", folder, "--json", tmp_path / "e.json") == 0
    expected = json.loads((tmp_path / "e.json").read_text())
    files = {}
    for batch_size in (1, 7, 64, 1000):
        size = ["--batch-size", batch_size]
        assert call("predict", tmp_path / "model", folder, "--csv", tmp_path / "p.csv", *size) == 0
        with (tmp_path / "p.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == expected["n"] == 21
        right = sum(Path(row["path"]).parent.name == row["class"] for row in rows)
        assert right / len(rows) == expected["accuracy"]
        found = list(prediction.predict(bundle, [folder], batch_size))
        assert [one.path for one in found] == [row["path"] for row in rows]
        logits = bundle.temperature * np.log([one.probs for one in found])
        labels = [CLASSES.index(Path(one.path).parent.name) for one in found]
        log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        loss = -log_probs[range(21), labels].mean()
        assert loss == pytest.approx(expected["loss"], rel=1e-5)
        assert (
            call("evaluate", tmp_path / "model", folder, "--json", tmp_path / "e.json", *size) == 0
        )
        again = json.loads((tmp_path / "e.json").read_text())
        assert again["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert again["confusion"] == expected["confusion"]
        files[batch_size] = [(row["path"], row["class"]) for row in rows]
    assert all(rows == files[1] for rows in files.values())


def test_imports_only_what_it_needs(here):
    """A quick start: nothing of training and, without --grid, of drawing."""
    code = (
        "import sys\nfrom jaxgear import cli\n"
        "try: cli.main(['predict', 'run', 'new'])\n"
        "except SystemExit as stop: assert not stop.code\n"
        "unwanted = {'optax', 'orbax', 'matplotlib', 'tensorflow', 'tensorflow_datasets', 'tyro'}\n"
        "print(sorted(unwanted & set(sys.modules)), file=sys.stderr)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LANG": "C", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.stderr.splitlines()[-1] == "[]", done.stderr
    assert len(done.stdout.splitlines()) == 5
    assert "\x1b" not in done.stdout + done.stderr


@pytest.fixture
def strict(here):
    """The run, which now takes half of the five pictures for no gear; their scores."""
    bundle = Bundle.load("run")
    scores = [one.score for one in prediction.predict(bundle, ["new"])]
    dataclasses.replace(bundle, accept_from=sorted(scores)[2]).save(Path("run/model"))
    return scores


def test_what_is_no_gear_is_none(strict, capsys):
    assert (
        call("predict", "run", "new", "--csv", "a.csv", "--json", "a.json", "--grid", "a.png") == 0
    )
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    with Path("a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    entries = json.loads(Path("a.json").read_text())["predictions"]
    least = sorted(strict)[2]
    for score, line, row, entry in zip(strict, lines, rows, entries, strict=True):
        assert (line[1] == "none") == (row["class"] == "none") == (score < least)
        assert entry["class"] == row["class"] == line[1]
        assert entry["refused"] == (row["refused"] == "true") == (score < least)
        assert entry["score"] == float(row["score"]) == pytest.approx(score, abs=1e-5)
        shown = score if score < least else float(row["probability"])
        assert float(line[2]) == pytest.approx(shown, abs=1e-4)
    assert [line[1] for line in lines].count("none") == 2


@pytest.mark.parametrize(
    "classes",
    [
        ("path", "class", "probability"),
        ("score", "refused", "Path"),
        ("path", "class:path", "class:class:path"),
        ("CLASS", "axes", "class:"),
    ],
)
def test_a_class_that_is_called_as_a_column_has_a_column_of_its_own(here, classes):
    make_bundle(classes=classes).save(Path("run/model"))
    assert call("predict", "run", "new", "--csv", "a.csv", "--json", "a.json") == 0
    with Path("a.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert len({name.casefold() for name in header}) == len(header) == 8
    entries = json.loads(Path("a.json").read_text())["predictions"]
    for row, entry in zip(rows, entries, strict=True):
        assert row[0] == entry["path"]
        assert row[1] == entry["class"]
        assert list(map(float, row[3:6])) == [entry["probabilities"][name] for name in classes]
        assert row[6:] == [f"{entry['score']:.6f}", "false"]


def test_a_class_called_none_is_told_from_a_refusal(here):
    """All five are of class none or refused, so are called none; which, `refused` says."""
    bundle = make_bundle(classes=("none", "None", "NONE"))
    scores = [one.score for one in prediction.predict(bundle, ["new"])]
    dataclasses.replace(bundle, accept_from=sorted(scores)[2]).save(Path("run/model"))
    assert call("predict", "run", "new", "--csv", "a.csv", "--json", "a.json") == 0
    with Path("a.csv").open(newline="") as file:
        found = [row["refused"] for row in csv.DictReader(file)]
    entries = json.loads(Path("a.json").read_text())["predictions"]
    assert {entry["class"].lower() for entry in entries} == {"none"}
    assert found == [str(score < sorted(scores)[2]).lower() for score in scores]
    assert [str(entry["refused"]).lower() for entry in entries] == found


def test_evaluate_counts_what_is_refused(strict, capsys):
    write_set(Path(), {"gear/axes": 3, "gear/boots": 2})
    assert call("evaluate", "run", "gear", "--not-gear", "new", "--json", "a.json") == 0
    found = json.loads(Path("a.json").read_text())
    assert found["not_gear"] == {"n": 5, "refused": 2, "known": 1}
    assert found["accepted"] == 0.6  # the same five pictures
    assert found["accept_from"] == sorted(strict)[2]
    assert found["n"] == 5
    assert found["macro_f1"] == pytest.approx(
        np.mean([row["f1"] for row in found["per_class"].values() if row["n"]])
    )
    printed = capsys.readouterr().out
    assert "gear accepted 0.6000 (scores from" in printed
    assert "not gear refused 2 of 5" in printed


def test_evaluate_says_which_pictures_the_model_knows(here, capsys):
    """Figures of each split add up to those of all; FOLDER has splits of its own or not."""
    root = write_set(here / "set", {"axes": 4, "boots": 3})
    paths = sorted(root.rglob("*.png"))
    splits = ["train", "train", "train", "val", "test", None, None]
    known = {
        hashlib.sha256(p.read_bytes()).hexdigest(): s for p, s in zip(paths, splits, strict=True)
    }
    make_bundle(known={k: s for k, s in known.items() if s}).save(here / "run/model")
    assert call("evaluate", "run", "set", "--json", "a.json") == 0
    printed = capsys.readouterr()
    note = next(line for line in printed.err.splitlines() if line.startswith("note: set: "))
    assert note.startswith("note: set: 5 of 7 are in the data of this model; accuracy by split: 3 ")
    found = json.loads(Path("a.json").read_text())
    assert {name: one["n"] for name, one in found["by_side"].items()} == {
        "train": 3, "val": 1, "test": 1, "new": 2
    }  # fmt: skip
    mean = sum(one["n"] * one["accuracy"] for one in found["by_side"].values()) / 7
    assert mean == pytest.approx(found["accuracy"])
    for name in ("train", "test"):
        root.joinpath(name).mkdir()
        for kind in ("axes", "boots"):
            shutil.copytree(root / kind, root / name / kind)
    for kind in ("axes", "boots"):
        shutil.rmtree(root / kind)
        shutil.rmtree(root / "test" / kind)
    write_set(root, {"test/axes": 1, "test/boots": 1}, start=900)
    assert call("evaluate", "run", "set") == 0
    assert "note: set: 5 of 9 are in the data" in capsys.readouterr().err


def test_evaluate_on_new_pictures_has_nothing_to_say(here, capsys):
    write_set(here, {"set/axes": 2, "set/boots": 2}, start=500)
    assert call("evaluate", "run", "set", "--json", "a.json") == 0
    assert "note" not in capsys.readouterr().err
    assert list(json.loads(Path("a.json").read_text())["by_side"]) == ["new"]


def test_a_class_without_pictures_has_no_figures(here, capsys):
    """One line for all that are absent; what is taken for one of them is said."""
    classes = tuple(f"class{i}" for i in range(30))
    make_bundle(classes=classes).save(here / "run/model")
    write_set(here, {"set/class3": 2, "set/class4": 2}, start=500)
    assert call("evaluate", "run", "set", "--json", "a.json") == 0
    printed = capsys.readouterr()
    (warning,) = printed.err.splitlines()
    assert warning.endswith("no pictures of class class0, class1, class2 and 25 more")
    rows = [line.split() for line in printed.out.splitlines() if line.startswith("  class")]
    found = json.loads(Path("a.json").read_text())
    taken = np.sum(found["confusion"], axis=0)
    expected = [name for i, name in enumerate(classes) if i in (3, 4) or taken[i]]
    assert [row[0] for row in rows] == expected
    assert all(("precision" in row) == (row[0] in ("class3", "class4")) for row in rows)
    assert len(found["per_class"]) == 30


def test_accept_chooses_how_much_gear_is_kept(here, capsys):
    """All, none, and what cannot be."""
    bundle = dataclasses.replace(
        make_bundle(), gear_scores={"pasted": tuple(np.linspace(-1e4, 1e4, 101).tolist())}
    )
    bundle.save(Path("run/model"))
    for share, refused in ((1.0, False), (0.0, True)):
        code = call("predict", "run", "new", "--accept", share)
        assert code == 0
        printed = capsys.readouterr()
        assert ("taken for no gear" in printed.err) == refused
        assert all((line.split("\t")[1] == "none") == refused for line in printed.out.splitlines())
    assert "0% of pasted validation pictures" in printed.err
    assert call("predict", "run", "new", "--accept", 1.5) == 2
    make_bundle().save(Path("run/model"))
    assert call("predict", "run", "new", "--accept", 0.9) == 2


def test_a_model_that_accepts_everything_says_so(here, capsys):
    write_set(Path(), {"gear/axes": 3, "gear/boots": 2})
    assert call("evaluate", "run", "gear", "--not-gear", "new", "--json", "a.json") == 0
    found = json.loads(Path("a.json").read_text())
    assert (found["accepted"], found["accept_from"]) == (1.0, None)
    assert found["not_gear"] == {"n": 5, "refused": 0, "known": 1}
    printed = capsys.readouterr()
    assert "trained without --backgrounds" in printed.err
    assert "gear accepted" not in printed.out
