"""`jaxgear clean`: its table, its page, and mistakes in one line."""

import csv
import hashlib
import io
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from pictures import digests, encoded, scene, write_set

from jaxgear import cli
from jaxgear.data.labels.corrections import read_corrections

WEIGHTS = Path(__file__).parents[1] / "models" / "golden" / "resnet18_width2.pth"
FLAGS = ["--weights", WEIGHTS, "--image-size", "32"]

pytestmark = pytest.mark.one_cache


def call(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code


@pytest.fixture
def root(tmp_path):
    """Two classes, a copy in the other class, a tiny picture, and two unusable files."""
    root = write_set(tmp_path / "set", {"axes": 12, "boots": 12})
    shutil.copy(root / "axes/00003.png", root / "boots/copy, of an axe.png")
    (root / "boots/tiny.png").write_bytes(encoded(scene(99, 24, 32)))
    (root / "axes/page\x1b[2J.jpg").write_bytes(b"<html>")
    (root / "axes/half.jpg").write_bytes(encoded(scene(98), "JPEG")[:600])
    return root


def test_the_table_and_the_summary(root, tmp_path, capsys):
    before = digests(root)
    flags = [*FLAGS, "--csv", tmp_path / "a.csv", "--page", tmp_path / "a.html"]
    assert call("clean", root, *flags) == 0
    printed = capsys.readouterr()
    text = (tmp_path / "a.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert text.splitlines()[0] == "path,label,suggested,score,kind"
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    for row in rows:
        assert (root / row["path"]).is_file()
        assert row["label"] == row["path"].split("/")[0]
        assert row["kind"] in ("label", "duplicate", "outlier", "quality")
        if row["kind"] in ("label", "duplicate"):
            assert row["suggested"] in ("axes", "boots")
            assert row["kind"] == "duplicate" or row["suggested"] != row["label"]
        else:
            assert row["suggested"] == ""
            assert float(row["score"]) <= 0.5
    found = {(row["path"], row["kind"]) for row in rows}
    copies = {"axes/00003.png", "boots/copy, of an axe.png"}
    assert {path for path, kind in found if kind == "duplicate"} == copies
    assert ("boots/tiny.png", "quality") in found
    assert "26 pictures in 2 classes, 25 groups; 2 unusable" in printed.out
    assert "suspicious: " in printed.out
    listed = [line for line in printed.out.splitlines() if line.startswith("  0.")]
    assert len(listed) == min(10, len(rows))
    assert "unusable: axes/half.jpg: " in printed.err
    assert "unusable: axes/page\\x1b[2J.jpg: " in printed.err
    assert "\x1b" not in printed.out + printed.err
    assert (tmp_path / "a.html").read_text().startswith("<!DOCTYPE html>")
    assert digests(root) == before
    assert call("clean", root, *FLAGS, "--csv", tmp_path / "b.csv") == 0
    assert (tmp_path / "b.csv").read_text() == text


def test_the_table_on_standard_output(root, capfd):
    assert call("clean", root, *FLAGS, "--csv", "-") == 0
    printed = capfd.readouterr()
    rows = list(csv.reader(io.StringIO(printed.out)))
    assert rows[0] == ["path", "label", "suggested", "score", "kind"]
    assert all(len(row) == 5 for row in rows)
    assert "suspicious: " in printed.err


def test_drawn_pictures_are_a_folder_too(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GOLDEN", str(WEIGHTS.parent))
    flags = ["--weights", "$GOLDEN/resnet18_width2.pth", "--image-size", "32"]
    assert call("clean", "drawn:24", *flags, "--csv", tmp_path / "a.csv") == 0
    assert "24 pictures in 12 classes" in capsys.readouterr().out
    for row in csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())):
        assert row["label"] == row["path"].split("/")[0]


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["no/such", *FLAGS], 4, "no/such"),
        (["set", "--weights", "no/such", "--image-size", "32"], 5, "no/such"),
        (["set", "--weights", "set/axes/00000.png"], 5, "set/axes/00000.png"),
        (["set", *FLAGS[:2], "--image-size", "5"], 2, "--image-size 5"),
        (["set", *FLAGS, "--csv", "no/such/a.csv"], 2, "--csv no/such/a.csv"),
        (["set", *FLAGS, "--page", "set"], 2, "--page set"),
        (["set", *FLAGS, "--corrections", "no/such/a.csv"], 2, "--corrections no/such/a.csv"),
        (["set", *FLAGS, "--csv", "a", "--page", "a"], 2, "--page a"),
        (["set/axes", *FLAGS], 4, "0 class folders"),
        (["drawn:x", *FLAGS], 4, "drawn:x"),
        (["tfds:gear@no/such", *FLAGS], 4, "no/such"),
    ],
)
def test_mistakes_are_one_line(arguments, code, word, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_set(Path("set"), {"axes": 2, "boots": 2})
    assert call("clean", *arguments) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert word in line
    assert [path.name for path in Path().iterdir()] == ["set"]


def test_a_folder_without_a_usable_picture_is_one_line(tmp_path, capsys):
    for name in ("axes", "boots"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "a.jpg").write_bytes(b"<html>")
    assert call("clean", tmp_path / "set", *FLAGS, "--csv", tmp_path / "a.csv") == 4
    assert "no usable picture" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "a.csv").exists()


def test_four_pictures_are_enough_to_run(tmp_path, capsys):
    """Too few to judge anything much, and no crash: two classes, one picture of one of them."""
    root = write_set(tmp_path / "set", {"axes": 3, "boots": 1})
    assert call("clean", root, *FLAGS) == 0
    assert "too few pictures to judge each label of: boots" in capsys.readouterr().out


def test_suggested_labels_are_added_to_a_corrections_file(root, tmp_path, capsys):
    """One for each picture that is to get another label; the file can be read back."""
    flags = [*FLAGS, "--csv", tmp_path / "a.csv", "--corrections", tmp_path / "c.csv"]
    assert call("clean", root, *flags) == 0
    added = read_corrections(tmp_path / "c.csv")
    rows = csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text()))
    first = {}
    for row in rows:
        if row["suggested"] not in ("", row["label"]):
            sha256 = hashlib.sha256((root / row["path"]).read_bytes()).hexdigest()
            first.setdefault(sha256, (row["path"], row["suggested"]))
    assert {c.sha256: (c.path, c.label) for c in added} == first
    assert {(c.action, c.by) for c in added} == {("relabel", "jaxgear clean")}
    assert all(datetime.fromisoformat(c.when).utcoffset() == timedelta(0) for c in added)
    assert f"{len(added)} suggested labels added to" in capsys.readouterr().out
    assert call("clean", root, *FLAGS, "--corrections", tmp_path / "c.csv") == 0
    assert len(read_corrections(tmp_path / "c.csv")) == 2 * len(added)
