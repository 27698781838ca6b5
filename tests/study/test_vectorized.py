"""Trials that are trained as one program: run folders as if each were trained alone."""

import csv
import dataclasses
import signal
import subprocess
import sys
import time
from pathlib import Path

import made_experiment
import pytest
import small_experiment
from small_experiment import Config, main, recipe

from jaxgear import Bundle, cli
from jaxgear.errors import UsageError
from jaxgear.study import Vectorized, study, vectorized
from jaxgear.study.executors import Executor, rows_of, run_of
from jaxgear.training import history

ROOT = Path(__file__).parents[2]
EXPERIMENT = Path(small_experiment.__file__)


def rows(folder):
    return rows_of(folder) if run_of(folder) else []


def assert_same_rows(ours, theirs):
    assert [(row.epoch, row.step) for row in ours] == [(row.epoch, row.step) for row in theirs]
    for our, their in zip(ours, theirs, strict=True):
        assert our.train_loss == pytest.approx(their.train_loss, rel=1e-3)
        assert our.val_loss == pytest.approx(their.val_loss, rel=1e-3)


def test_runs_of_one_program_have_folders_as_if_alone(tmp_path, capsys):
    """One diverges, one stops early, and one has another network and so its own program."""
    shared = {"data": "drawn:60", "image_size": 16, "batch_size": 20, "epochs": 3, "test": False}
    varied = [
        {"seed": 0}, {"seed": 1, "peak_lr": 0.02}, {"peak_lr": 1e38}, {"channels": 5},
        {"peak_lr": 1e-9, "patience": 1, "epochs": 3},
    ]  # fmt: skip
    configs = [
        Config(**shared | fields, out=str(tmp_path / str(i))) for i, fields in enumerate(varied)
    ]
    vectorized.train(configs, recipe)
    assert "5 runs, 2 programs" in capsys.readouterr().out
    for i, config in enumerate(configs):
        run = run_of(tmp_path / str(i))
        assert (run / "model").exists() == (i != 2)
        if i not in (1, 4):  # to save time
            continue
        folder = main(dataclasses.replace(config, out=str(tmp_path / "alone")))
        expected = history.from_csv((folder / "history.csv").read_text())
        assert_same_rows(rows_of(tmp_path / str(i)), expected)
        assert {path.name for path in run.iterdir()} == {path.name for path in folder.iterdir()}
        assert Bundle.load(run).about["epoch"] == Bundle.load(folder).about["epoch"]
    # Resumed: those that are complete are not trained again.
    before = [rows(tmp_path / str(i)) for i in (0, 1)]
    resumed = [
        dataclasses.replace(configs[i], resume=str(run_of(tmp_path / str(i)))) for i in (0, 1)
    ]
    vectorized.train(resumed, recipe)
    assert "2 runs, 0 programs" in capsys.readouterr().out
    assert [rows(tmp_path / str(i)) for i in (0, 1)] == before


class Made(Executor):
    """Writes histories; trains nothing."""

    config, name, source, flags, at_once = Config, "made", "", (), 3

    def __init__(self):
        self.calls = []

    def __call__(self, jobs):
        self.calls.append([job.folder.name for job in jobs])
        for job in jobs:
            run = job.folder / "run"
            run.mkdir(exist_ok=True)
            (run / "config.json").write_text("{}")
            (run / "test.json").write_text('{"accuracy": 0.5}')
            row = history.Row(1, 1, 1.0, 1.0, 0.5, job.values["peak_lr"], 0.1, 1.0)
            (run / "history.csv").write_text(history.to_csv([row]))
        return ["diverged" if job.values["peak_lr"] == 0.5 else "complete" for job in jobs]

    def stop(self):
        pass


def test_a_study_gives_an_executor_as_many_trials_as_it_takes(tmp_path):
    executor = Made()
    vary = {"peak_lr": [0.1, 0.5]}
    answer = study(executor, tmp_path / "out", vary, seeds=2, say=lambda line: None)
    assert executor.calls == [["00000", "00001", "00002"], ["00003"]]
    table = list(csv.DictReader((tmp_path / "out/study.csv").read_text().splitlines()))
    assert [row["state"] for row in table] == ["complete", "diverged"] * 2
    assert answer.chosen.variant == {"peak_lr": 0.1}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--vectorize", "-1"], "--vectorize -1: must be at least 0"),
        (["--vectorize", "2", "--workers", "2"], "--vectorize N: does not go with --workers"),
        (["--vectorize", "2", "--pruner", "median"], "--vectorize N: does not go with --workers"),
        (["--vectorize", "2"], "made: has no `recipe`, which --vectorize needs"),
    ],
)
def test_what_cannot_be_vectorized_is_said_first(tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.delitem(sys.modules, "made", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = made_experiment.write(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        cli.main(["study", str(path), "--out", str(tmp_path / "out"), *flags])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_several_runs_have_no_profile():
    with pytest.raises(UsageError, match="--profile: traces one run"):
        Vectorized(str(EXPERIMENT), ["--profile", "3"])


@pytest.mark.slow
def test_a_study_that_is_stopped_resumes_all_runs_of_a_program(tmp_path):
    def start(name):
        command = [
            *(sys.executable, "-m", "jaxgear", "study", EXPERIMENT, "--out", tmp_path / name),
            *("--vectorize", "4", "--seeds", "2", "--vary", "peak_lr=0.01,0.02"),
            *("--data", "drawn:90", "--image-size", "32", "--epochs", "8"),
        ]
        return subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.DEVNULL)

    process = start("out")
    folders = [tmp_path / "out/trials" / f"{i:05d}" for i in range(4)]
    while len(rows(folders[0])) < 2:
        time.sleep(0.05)
        assert process.poll() is None
    process.terminate()
    assert process.wait() == 128 + signal.SIGTERM
    assert all(2 <= len(rows(folder)) < 8 for folder in folders)
    assert start("out").wait() == 0
    assert start("whole").wait() == 0
    for folder in folders:
        assert_same_rows(rows(folder), rows(tmp_path / "whole/trials" / folder.name))
    log = (folders[0] / "log.txt").read_text()
    assert log.count("4 runs, 1 programs") == 2
    assert "interrupted; continue with" in log
