"""What is measured of a run under corruptions and on other folders, kept, and shown."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from made_runs import untrained
from pictures import write_set

from jaxgear import cli
from jaxgear.bundle.bundle import Bundle
from jaxgear.data.images.decode import load_rgb
from jaxgear.data.images.letterboxing import letterbox
from jaxgear.errors import CheckpointError, UsageError
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.evaluation.report import robustness as report_robustness
from jaxgear.evaluation.robustness import measure as robustness
from jaxgear.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from jaxgear.prediction.predictor import Predictor
from scripts import robustness as script

pytestmark = pytest.mark.one_cache


@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory):
    """A run of a network that was never trained, and a folder of other pictures."""
    root = tmp_path_factory.mktemp("robust")
    write_set(root / "photos", {"axes": 14, "boots": 12, "tents": 12})
    write_set(root / "wild", {"axes": 2, "tents": 3}, start=500)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXGEAR_CACHE", str(cache))
        return untrained(root / "runs", str(root / "photos")), root / "wild"


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / "run")


def call(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code


def test_accuracies_are_those_of_the_pictures_one_by_one(run, whole):
    """Each corruption of each test picture, from its file, at three severities."""
    finished, bundle = FinishedRun.read(run), Bundle.load(run)
    measure = robustness.Measure(finished, bundle)
    found, n = measure.corruptions([1, 3, 5])
    pictures = sorted(finished.split("test"), key=lambda one: one.sha256)
    assert n == len(pictures) >= 4
    root = whole[0].parents[1] / "photos"
    images = np.stack([letterbox(load_rgb(root / one.path), bundle.size) for one in pictures])
    labels = np.array([bundle.classes.index(one.name) for one in pictures])
    predictor = Predictor(bundle)
    assert list(found) == list(CORRUPTIONS)
    for name, accuracies in found.items():
        for severity, accuracy in zip([1, 3, 5], accuracies, strict=True):
            predicted = predictor.logits(corrupt(images, name, severity)).argmax(axis=1)
            assert accuracy == (predicted == labels).mean()
    (clean, wild) = measure.sets({"wild": whole[1]}).values()
    test = json.loads((run / "test.json").read_text())
    for field in ("accuracy", "macro_f1", "accepted", "n"):
        assert clean[field] == pytest.approx(test[field])
    assert wild["n"] == 5
    assert clean["accepted"] == 1


def test_of_many_pictures_a_few_always_the_same(run):
    measure = robustness.Measure(FinishedRun.read(run), Bundle.load(run))
    said = []
    first, n = measure.corruptions([2], limit=2, say=said.append)
    assert n == 2
    assert {accuracy for each in first.values() for accuracy in each} <= {0, 0.5, 1}
    assert first == measure.corruptions([2], limit=2)[0]
    assert len(said) == len(CORRUPTIONS)


def test_a_report_keeps_what_it_measured(run, whole, tmp_path, capsys):
    assert call("report", run) == 0
    assert "Not measured." in (run / "report.html").read_text()
    assert not (run / "robustness.json").exists()
    assert call("report", run, "--robustness", "--limit", 3) == 0
    assert "blur: accuracy" in capsys.readouterr().err
    bundle = Bundle.load(run)
    first = robustness.Robustness.read(run, bundle)
    assert (first.n, first.severities, list(first.sets)) == (3, list(SEVERITIES), ["clean"])
    assert call("report", run, "--set", f"<i>wild={whole[1]}") == 0  # corruptions stay
    both = robustness.Robustness.read(run, bundle)
    assert both == dataclasses.replace(first, sets=both.sets)
    assert list(both.sets) == ["clean", "<i>wild"]
    html = (run / "report.html").read_text()
    assert "3 of the" in html
    assert "&lt;i&gt;wild" in html
    assert f"{both.mean('blur'):.3f}" in html
    assert f"{both.mean_of_all:.3f}" in html
    before = (run / "robustness.json").read_bytes()
    assert call("report", run) == 0  # nothing is measured anew
    assert (run / "robustness.json").read_bytes() == before
    assert "&lt;i&gt;wild" in (run / "report.html").read_text()


def test_a_folder_of_pictures_that_were_trained_on_is_said(run, whole, capsys):
    """In a line, in what is kept, and on the page."""
    assert call("report", run, "--set", f"same={whole[0].parents[1] / 'photos'}") == 0
    (line,) = (one for one in capsys.readouterr().err.splitlines() if one.startswith("note"))
    assert line.startswith("note: same: 38 of 38 are in the data of this model; accuracy by split")
    found = json.loads((run / "robustness.json").read_text())["sets"]
    counts = {name: one["n"] for name, one in found["same"]["by_side"].items()}
    assert sum(counts.values()) == 38
    assert counts["train"] > counts["test"] > 0
    assert found["clean"]["by_side"] == {}
    assert "Of same, 38 of 38 are in the data of this model" in (run / "report.html").read_text()


def kept(run, **changes):
    """The run with a made-up result."""
    bundle = Bundle.load(run)
    found = robustness.Robustness(
        **{
            "epoch": bundle.about["epoch"],
            "fingerprint": bundle.fingerprint,
            "sets": {
                "clean": {"accuracy": 0.9, "macro_f1": 0.8, "accepted": 1.0, "n": 5, "by_side": {}}
            },
            "corruptions": {name: [0.5, 0.4, 0.3, 0.2, 0.1] for name in CORRUPTIONS},
            "severities": list(SEVERITIES),
            "n": 5,
        }
        | changes
    )
    found.write(run)
    return run


def test_another_run_stands_beside_it(run, tmp_path):
    other = kept(shutil.copytree(run, tmp_path / "reference"))
    splits = json.loads((other / "splits.json").read_text())
    kept(run, corruptions={name: [0.875] * 5 for name in CORRUPTIONS})
    assert call("report", run, "--beside", other) == 0
    html = (run / "report.html").read_text()
    assert "reference, mean" in html
    row = html[html.index('<th scope="row">jpeg</th>') :].partition("</tr>")[0]
    assert [row.count(cell) for cell in (">0.875<", ">0.300<")] == [6, 1]
    assert "is other pictures" not in html
    for picture in splits["pictures"]:
        picture["sha256"] = picture["sha256"][::-1]
    (other / "splits.json").write_text(json.dumps(splits))
    assert call("report", run, "--beside", other) == 0
    assert "The test split of reference" in (run / "report.html").read_text()


def test_many_runs_beside_it_are_three_columns(run):
    """A page of 10 other runs and of 1000 has the same size, and all of them count."""
    kept(run, corruptions={name: [0.875] * 5 for name in CORRUPTIONS})
    found = robustness.Robustness.read(run, Bundle.load(run))
    one = lambda k, accuracy: robustness.Beside(  # noqa: E731
        f"other-{k}",
        dataclasses.replace(found, corruptions={name: [accuracy] * 5 for name in CORRUPTIONS}),
        same_test=k > 1,
    )
    some = [one(k, accuracy) for k, accuracy in enumerate(np.linspace(0.2, 0.4, 10))]
    lacking = robustness.Beside("bare", dataclasses.replace(found, corruptions={}), True)
    few, many = (report_robustness.section(found, each) for each in (some, some * 100 + [lacking]))
    row = many[many.index('<th scope="row">jpeg</th>') :].partition("</tr>")[0]
    assert [row.count(cell) for cell in (">0.200<", ">0.300<", ">0.400<")] == [1, 1, 1]
    assert row.count("<td") == 6 + 3
    assert "The test splits of 2 of them" in few
    assert "The test splits of 200 of them" in many
    assert "other-0" not in few
    assert abs(len(many) - len(few)) < 20


def test_what_is_of_another_model_or_damaged_is_not_shown(run):
    bundle = Bundle.load(run)
    for change in ({"epoch": 99}, {"fingerprint": "0" * 64}):
        assert robustness.Robustness.read(kept(run, **change), bundle) is None
    (run / "robustness.json").write_text('{"epoch": 1}')
    with pytest.raises(CheckpointError, match=r"robustness\.json: not readable"):
        robustness.Robustness.read(run, bundle)


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--limit", "3"], 2, "--limit 3"),
        (["--robustness", "--limit", "0"], 2, "--limit 0"),
        (["--set", "wild"], 2, "--set wild: expected NAME=FOLDER"),
        (["--set", "clean=x"], 2, "the name clean is taken"),
        (["--set", "blur=x"], 2, "the name blur is taken"),
        (["--set", "wild=no/such"], 4, "no/such"),
        (["--beside", "."], 5, "."),
    ],
)
def test_mistakes_are_one_line(run, capsys, arguments, code, word):
    assert call("report", run, *arguments) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert word in line
    assert not (run / "robustness.json").exists()


def test_nothing_measured_cannot_stand_beside(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    with pytest.raises(UsageError, match="nothing is measured of it yet"):
        robustness.Beside.read(other, FinishedRun.read(run))


def test_the_script_has_a_column_a_run(run, whole, tmp_path, monkeypatch, capsys):
    """The table and the CSV, against the library; one severity for speed."""
    words = [str(run), str(run), "--set", f"wild={whole[1]}", "--severity", "2"]
    words += ["--csv", str(tmp_path / "a.csv"), "--data", str(whole[0].parents[1] / "photos")]
    monkeypatch.setattr("sys.argv", ["robustness", *words])
    with pytest.raises(SystemExit) as stop:
        script.main()
    assert stop.value.code == 0
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    measure = robustness.Measure(FinishedRun.read(run), Bundle.load(run))
    sets, (corruptions, _) = measure.sets({"wild": whole[1]}), measure.corruptions([2])
    expected = {
        "clean": sets["clean"]["accuracy"],
        "wild": sets["wild"]["accuracy"],
        "wild, macro-F1": sets["wild"]["macro_f1"],
        **{name: each[0] for name, each in corruptions.items()},
        "mean of corruptions": np.mean(list(corruptions.values())),
    }
    assert lines[2:] == [[name, *2 * [f"{value:.3f}"]] for name, value in expected.items()]
    rows = (tmp_path / "a.csv").read_text().splitlines()
    assert rows[0] == "test,run,run"
    assert len(rows) == 1 + len(expected)
