"""`jaxgear check`: what it says of near-duplicates, of an influx, and of names that are none."""

import json
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from made_runs import row, untrained
from pictures import encoded, scene, write_set

from jaxgear import cli
from jaxgear.data.dataset import open_dataset
from jaxgear.data.folder.read import read_folder
from jaxgear.data.prepare.prepared import prepare
from jaxgear.data.splits.groups import near_duplicate_groups
from jaxgear.evaluation.plots import contact_sheet
from jaxgear.evaluation.plots import figures as plots
from jaxgear.training import history
from jaxgear.training.runs.run import Run


def call(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code


def near_duplicate(seed: int) -> bytes:
    """Of `scene(seed)`: smaller and re-encoded."""
    pixels = np.asarray(PIL.Image.fromarray(scene(seed)).resize((48, 36)))
    return encoded(pixels, "JPEG", quality=80)


def test_a_table_is_checked_like_the_folder(tmp_path, capsys):
    root = write_set(tmp_path / "set", {"axes": 4, "boots": 4})
    rows = [f"{p.relative_to(root)},{p.parent.name}\n" for p in root.rglob("*.png")]
    for source in (root, root / "labels.csv"):
        assert call("check", source, "--json", tmp_path / f"{source.name}.json") == 0
        (root / "labels.csv").write_text("path,label\n" + "".join(rows))
    found = [json.loads((tmp_path / f"{n}.json").read_text()) for n in ("set", "labels.csv")]
    assert {key for key in found[0] if found[0][key] != found[1][key]} == {"folder"}
    capsys.readouterr()
    assert call("check", root) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "pictures and labels are those of labels.csv, not of class folders"


def test_a_prepared_set_is_checked_like_its_folder(tmp_path):
    root = write_set(tmp_path / "set", {"axes": 9, "boots": 9})
    (root / "axes/same.jpg").write_bytes(near_duplicate(0))
    (root / "axes/wrong.jpg").write_bytes(near_duplicate(10))
    # Smaller than the images that checking a folder leaves in the cache.
    prepare(root, tmp_path / "out", size=48, workers=1, say=lambda line: None)
    for name, source in (("set", root), ("out", f"tfds:gear@{tmp_path / 'out'}")):
        assert call("check", source, "--json", tmp_path / f"{name}.json") == 0
    ours, theirs = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("out", "set"))
    assert len(theirs["duplicate_groups"]) == 2
    differs = {key for key in theirs if theirs[key] != ours[key]}
    assert differs == {"folder", "missing"}  # the set has splits of its own


def test_near_duplicates_are_warned_of_and_drawn(tmp_path, capsys):
    """The same photograph twice in a class, in two classes, and in two splits."""
    root = write_set(tmp_path / "set", {"train/axes": 5, "train/boots": 5, "test/axes": 2})
    (root / "test/boots").mkdir()
    (root / "train/axes/same.jpg").write_bytes(near_duplicate(0))
    (root / "train/axes/wrong.jpg").write_bytes(near_duplicate(6))
    (root / "test/boots/late.jpg").write_bytes(near_duplicate(7))
    assert call("check", root, "--sheet", tmp_path / "a.png", "--json", tmp_path / "a.json") == 0
    printed = capsys.readouterr().out.splitlines()
    found = json.loads((tmp_path / "a.json").read_text())
    assert len(found["duplicate_groups"]) == 3
    assert found["alike_in_two_classes"] == [["train/boots/00006.png", "train/axes/wrong.jpg"]]
    assert found["alike_on_two_sides"] == [["train/boots/00007.png", "test/boots/late.jpg"]]
    assert [line for line in printed if line.startswith("warning")] == [
        "warning: near-duplicates in two classes: train/boots/00006.png and train/axes/wrong.jpg",
        "warning: near-duplicates in two splits: train/boots/00007.png and test/boots/late.jpg",
    ]
    with PIL.Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300


def test_the_sheet_shows_pairs_that_contradict_first(tmp_path):
    root = write_set(tmp_path, {"axes": 30, "boots": 3})
    for seed in range(30):
        (root / "axes" / f"{seed}.jpg").write_bytes(near_duplicate(seed))
    (root / "axes" / "wrong.jpg").write_bytes(near_duplicate(31))
    folder = read_folder(root)
    groups = near_duplicate_groups(folder.records)
    found = contact_sheet.pairs(folder, groups)
    assert len(found) == 31
    assert {record.path for record in found[0]} == {"axes/wrong.jpg", "boots/00031.png"}
    assert all(a.label == b.label for a, b in found[1:])
    figure = contact_sheet.contact_sheet(folder, groups)
    assert len(figure.axes) == 2 * contact_sheet.MOST
    assert figure.get_suptitle() == "The first 24 of 31 pairs that look alike"
    assert figure.axes[0].title.get_color() == plots.WRONG
    assert figure.axes[2].title.get_color() == plots.INK


def test_classes_without_training_pictures_are_named(tmp_path, capsys):
    root = write_set(tmp_path, {"train/axes": 3, "train/boots": 3, "TEST/axe": 2, "TEST/boots": 1})
    assert call("check", root, "--json", tmp_path / "a.json") == 4
    printed = capsys.readouterr().out
    assert "warning: no train pictures of axe\n" in printed
    assert "warning: no test pictures of axes\n" in printed
    assert json.loads((tmp_path / "a.json").read_text())["missing"] == {
        "train": ["axe"],
        "test": ["axes"],
    }


@pytest.mark.parametrize(
    ("group_by", "stops"),
    [("near-duplicates", True), ("folder", True), ("file", False), (r"frame_\d", False)],
)
def test_what_would_keep_a_run_from_splitting_is_said(tmp_path, capsys, group_by, stops):
    for label, name in enumerate(("axes", "boots")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(6):
            frame = encoded(scene(label), "JPEG", quality=60 + number)
            (tmp_path / "set" / name / f"frame_{number}.jpg").write_bytes(frame)
    flags = ["--group-by", group_by, "--json", tmp_path / "a.json"]
    assert call("check", tmp_path / "set", *flags) == 0
    assert ("training would stop" in capsys.readouterr().out) == stops
    reason = json.loads((tmp_path / "a.json").read_text())["cannot_be_split"]
    assert (reason is not None) == stops


def test_without_near_duplicates_there_is_no_sheet(tmp_path, capsys):
    root = write_set(tmp_path / "set", {"axes": 3, "boots": 3})
    assert call("check", root, "--sheet", tmp_path / "a.png") == 0
    assert "no near-duplicates" in capsys.readouterr().out
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("flags", "code", "word"),
    [
        (["--sheet", "a.jpg"], 2, "--sheet a.jpg"),
        (["--sheet", "no/such/a.png"], 2, "--sheet no/such/a.png"),
        (["--since", "no/run"], 5, "no/run"),
    ],
)
def test_mistakes_are_one_line(flags, code, word, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_set(Path("set"), {"axes": 2, "boots": 1})
    Path("set/boots/near-duplicate.jpg").write_bytes(near_duplicate(0))
    assert call("check", "set", *flags) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert word in line
    assert [path.name for path in Path().iterdir()] == ["set"]


def test_an_influx_of_300_keeps_every_old_split(tmp_path, capsys):
    """What was trained on, tested on and validated on stays so; the balance is told."""
    root = write_set(tmp_path / "set", {"axes": 60, "boots": 40})
    dataset = open_dataset(str(root), size=16, seed=5, say=lambda line: None)
    with Run.create(tmp_path, "scratch", {"seed": 5}, dataset, __file__) as run:
        (run.path / "history.csv").write_text(history.to_csv([row(1, 1.0)]))
    before = dict(zip((r.path for r in dataset.folder.records), dataset.splits, strict=True))
    write_set(root, {"axes": 50, "boots": 200, "gloves": 50}, start=1000)
    (root / "axes/near-duplicate.jpg").write_bytes(near_duplicate(3))
    (root / "axes/00009.png").unlink()
    assert call("check", root, "--since", run.path, "--json", tmp_path / "a.json") == 0
    found = json.loads((tmp_path / "a.json").read_text())["since"]
    assert found["pictures"] == {"before": 100, "now": 400, "added": 301, "removed": 1}
    assert found["classes"] == {
        "axes": {"before": 60, "now": 110, "added": 51},
        "boots": {"before": 40, "now": 240, "added": 200},
        "gloves": {"before": 0, "now": 50, "added": 50},
    }
    assert found["moved"] == []
    assert set(found["left_out"]) <= {"axes/00003.png"}
    grown = open_dataset(str(root), size=16, seed=5, say=lambda line: None)
    after = dict(zip((r.path for r in grown.folder.records), grown.splits, strict=True))
    for path in before.keys() & after.keys() - {"axes/00003.png"}:
        assert after[path] == before[path]
    for name, count in grown.counts().items():
        assert found["sides"][name]["now"] == count
    printed = capsys.readouterr().out
    assert "100 pictures then, 400 now (301 added, 1 removed" in printed
    assert "boots                        40  40.0%  ->   240  60.0%" in printed
    assert "0 old pictures are in another split now" in printed


@pytest.fixture
def trained(tmp_path):
    """A run on 20 pictures of axes and 10 of boots, and their folder."""
    root = write_set(tmp_path / "set", {"axes": 20, "boots": 10})
    dataset = open_dataset(str(root), size=16, seed=5, say=lambda line: None)
    with Run.create(tmp_path, "scratch", {"seed": 5}, dataset, __file__) as run:
        (run.path / "history.csv").write_text(history.to_csv([row(1, 1.0)]))
    return run.path, root


@pytest.mark.parametrize("counts", [{"boots": 1}, {"axes": 2, "gloves": 3}], ids=str)
def test_new_pictures_alone_come_to_the_old_ones(trained, tmp_path, counts, capsys):
    """Of classes too small to be split, in a folder of their own, one of them a copy."""
    root = write_set(tmp_path / "new", counts, start=1000)
    shutil.copy(trained[1] / "boots/00025.png", next(root.iterdir()) / "copy.png")
    assert call("check", root, "--since", trained[0], "--json", tmp_path / "a.json") == 0
    found = json.loads((tmp_path / "a.json").read_text())["since"]
    added = sum(counts.values())
    assert found["only_new"]
    assert found["pictures"] == {"before": 30, "now": 30 + added, "added": added, "removed": 0}
    for name, before in (("axes", 20), ("boots", 10)):
        more = counts.get(name, 0)
        assert found["classes"][name] == {"before": before, "now": before + more, "added": more}
    assert all(split["now"] is None for split in found["sides"].values())
    assert "assumed to stay where they are" in capsys.readouterr().out


def test_names_cannot_move_the_cursor(tmp_path, capsys):
    root = write_set(tmp_path / "set", {"axes": 2, "boots": 2})
    (root / "axes" / "a\x1b[2J\n.jpg").write_bytes(b"<html>")
    (root / "axes" / "b\x1b[2J.jpg").write_bytes(near_duplicate(0))
    assert call("check", root) == 4
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert "a\\x1b[2J\\n.jpg: a web page" in printed.out
    (root / "c\x1b[2J").mkdir()
    assert call("check", root) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    assert "rename it" in line


def test_new_pictures_are_compared_with_those_of_the_run(tmp_path, capsys):
    """A folder with classes, and a heap of other pictures: in the JSON, in print, and drawn."""
    root = write_set(tmp_path / "set", {"axes": 60, "boots": 60})
    run = untrained(tmp_path / "runs", str(root), size=16)
    new = write_set(tmp_path / "new", {"axes": 10, "boots": 10}, start=1000)
    capsys.readouterr()
    flags = ["--since", run, "--json", tmp_path / "a.json", "--foreign", tmp_path / "a.png"]
    assert call("check", new, *flags) == 0
    drift = json.loads((tmp_path / "a.json").read_text())["drift"]
    assert drift["p_value"] > 0.05
    assert (drift["n"], drift["known"], drift["classes_by"]) == (20, 0, "label")
    assert set(drift["by_class"]) == {"axes", "boots"}
    for found in drift["by_class"].values():
        assert found["n"] == 10
        assert 0 < found["uncorrected"] <= found["p_value"] <= 1
    assert {one["path"] for one in drift["most_foreign"]} == {
        str(path.relative_to(new)) for path in new.rglob("*.png")
    }
    assert "drift: 20 new pictures look like those of the run (p = " in capsys.readouterr().out
    with PIL.Image.open(tmp_path / "a.png") as picture:
        assert min(picture.size) > 300
    heap = tmp_path / "heap"
    heap.mkdir()
    for seed in range(30):
        pixels = np.repeat(scene(seed).mean(axis=2, keepdims=True) / 3, 3, axis=2)
        (heap / f"{seed}.png").write_bytes(encoded(pixels.astype(np.uint8)))
    assert call("check", heap, "--since", run, "--json", tmp_path / "a.json") == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["classes"] == found["since"]["classes"] == {}
    assert found["since"]["pictures"]["added"] == 30
    assert found["drift"]["p_value"] < 0.05
    assert found["drift"]["classes_by"] == "prediction"
    printed = capsys.readouterr().out
    assert "30 pictures in 0 classes" in printed
    assert "drift: 30 new pictures look different (p = 0.0" in printed
    assert call("check", heap) == 4  # without a run, classes are needed
    assert "0 class folders" in capsys.readouterr().err
    (heap / "page.jpg").write_bytes(b"<html>")
    assert call("check", heap, "--since", run) == 4
    assert "page.jpg: a web page" in capsys.readouterr().out
    shutil.rmtree(run / "model")
    assert call("check", new, "--since", run, "--foreign", tmp_path / "b.png") == 0
    assert "drift: not tested: " in capsys.readouterr().out
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--foreign", "a.png"], "--foreign: needs --since RUN"),
        (["--data", "set"], "--data: needs --since RUN"),
        (["--foreign", "a.jpg", "--since", "run"], "--foreign a.jpg"),
    ],
)
def test_flags_of_drift_need_a_run(flags, word, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_set(Path("set"), {"axes": 2, "boots": 2})
    assert call("check", "set", *flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert word in line


def test_where_the_pictures_of_a_run_are_can_be_said(tmp_path, capsys):
    root = write_set(tmp_path / "set", {"axes": 40, "boots": 40})
    run = untrained(tmp_path / "runs", str(root), size=16)
    new = write_set(tmp_path / "new", {"axes": 6, "boots": 6}, start=1000)
    root.rename(tmp_path / "moved")
    capsys.readouterr()
    assert call("check", new, "--since", run) == 0
    assert "name their folder with --data FOLDER" in capsys.readouterr().out
    assert call("check", new, "--since", run, "--data", tmp_path / "moved") == 0
    assert "drift: 12 new pictures look like those of the run" in capsys.readouterr().out
    assert call("check", new, "--since", run, "--data", tmp_path / "nowhere") == 4
    assert "nowhere" in capsys.readouterr().err


def test_a_heap_without_a_usable_picture_is_one_line(tmp_path, capsys, trained):
    (tmp_path / "heap").mkdir()
    (tmp_path / "heap/page.jpg").write_bytes(b"<html>")
    assert call("check", tmp_path / "heap", "--since", trained[0]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert "no usable picture (page.jpg: a web page" in line
