"""Studies: every trial once, whatever happens; validation chooses, and the test is opened once."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import made_experiment
import numpy as np
import PIL.Image
import pytest

from jaxgear import cli, experiment
from jaxgear.errors import DivergedError, UsageError
from jaxgear.files import Lock
from jaxgear.study import Command, Function, study
from jaxgear.study.trials import Trials

ROOT = Path(__file__).parents[2]
QUIET = {"say": lambda line: None}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """The path of an experiment that trains nothing, and a list of what its processes did."""
    monkeypatch.setenv("MADE_LOG", str(tmp_path / "log"))
    monkeypatch.delitem(sys.modules, "made", raising=False)
    path = made_experiment.write(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return path, lambda: (tmp_path / "log").read_text().splitlines()


def table(out):
    return list(csv.DictReader((out / "study.csv").read_text().splitlines()))


def call(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return stop.value.code


def test_a_study_trains_every_variant_with_every_seed_and_tests_the_chosen_one(
    made, tmp_path, capsys
):
    path, log = made
    out = tmp_path / "out"
    command = ["study", path, "--out", out, "--seeds", 3, "--vary", "peak_lr=1,2", "--pause", 0]
    assert call(*command) == 0
    rows = table(out)
    assert list(rows[0]) == [
        "trial", "seed", "peak_lr", "val_accuracy", "val_loss", "state", "run"
    ]  # fmt: skip
    assert [(row["peak_lr"], row["seed"]) for row in rows] == [
        (rate, seed) for seed in "012" for rate in ("1.0", "2.0")
    ]
    assert {row["state"] for row in rows} == {"complete"}
    assert float(rows[1]["val_accuracy"]) == pytest.approx(0.8)
    found = json.loads((out / "study.json").read_text())
    assert (found["tried"], found["chosen"], found["chosen_by"]) == (
        2,
        {"peak_lr": 2.0},
        "val_accuracy",
    )
    assert found["test_accuracy"]["mean"] == pytest.approx(0.51)
    assert found["variants"][1]["difference_to_chosen"]["mean"] == pytest.approx(-0.1)
    # The test split of a variant that was not chosen stays closed.
    tested = [Path(row["run"], "test.json").exists() for row in rows]
    assert tested == [row["peak_lr"] == "2.0" for row in rows]
    printed = capsys.readouterr().out
    assert "of 2 variants tried: peak_lr 2" in printed
    with PIL.Image.open(out / "study.png") as picture:
        assert min(picture.size) > 300
    done = log()
    assert call(*command) == 0
    assert log() == done  # neither trained nor tested again
    assert call(*command[:5], 4, *command[6:]) == 0  # one seed more
    assert len(table(out)) == 8
    assert len(log()) == len(done) + 5  # two trials, and the test of one of them


def test_trials_that_fail_are_recorded_and_the_study_goes_on(made, tmp_path, capsys):
    path, _ = made
    out = tmp_path / "out"
    found = study(Command(str(path)), out, {"peak_lr": [9.0, 8.0, 1.0]}, seeds=2, **QUIET)
    assert [row["state"] for row in table(out)] == 2 * ["diverged", "out of memory", "complete"]
    assert found.chosen.variant == {"peak_lr": 1.0}
    assert found.failed == {"peak_lr 9": {"diverged": 2}, "peak_lr 8": {"out of memory": 2}}
    assert found.tried == 3


def test_an_error_of_every_trial_stops_the_study_and_its_mending_goes_on(made, tmp_path, capsys):
    path, log = made
    command = ["study", path, "--out", tmp_path / "out", "--seeds", 1, "--vary", "peak_lr=1,7"]
    assert call(*command) == 4
    assert "--data x: not there" in capsys.readouterr().err
    assert [row.split()[-1] for row in log()] == ["begun", "finished", "begun"]
    assert call(*command) == 4
    assert [row.split()[-1] for row in log()][3:] == ["resumed"]  # the first is not repeated


def test_a_trial_that_a_dead_process_left_is_resumed_and_a_living_one_is_not(tmp_path):
    trials = Trials(tmp_path / "out", {})
    trials.plan([{"peak_lr": 1.0}], [0, 1])
    with trials.take() as (trial, folder, _):
        assert (trial.seed, trial.state) == (0, "waiting")
        with trials.take() as (other, _, _):
            assert other.seed == 1
            with trials.take() as nothing:
                assert nothing is None  # both are locked
    with trials.take() as (again, same, _):
        assert (again.seed, again.state, same) == (0, "running", folder)
    assert [one.state for one in trials.all()] == ["running", "running"]


def test_a_process_that_outlives_the_study_keeps_its_trial(tmp_path):
    """It inherited the lock, so another study waits for it and does not train the trial twice."""
    trials = Trials(tmp_path / "out", {})
    trials.plan([{}], [0])
    folder = trials.folder_of(0)
    folder.mkdir()
    lock = Lock(folder / "lock").descriptor
    process = subprocess.Popen(["cat"], pass_fds=[lock], stdin=subprocess.PIPE)
    os.close(lock)  # as a kill does
    with trials.take() as nothing:
        assert nothing is None
    process.communicate()
    with trials.take() as (trial, _, _):
        assert trial.number == 0


def test_pruned_trials_are_ended_early(made, tmp_path):
    import optuna

    path, _ = made
    pruner = optuna.pruners.ThresholdPruner(lower=0.45)
    out = tmp_path / "out"
    vary = {"peak_lr": [3.0, 0.5], "pause": [0.5]}
    found = study(Command(str(path)), out, vary, seeds=1, pruner=pruner, **QUIET)
    assert [row["state"] for row in table(out)] == ["complete", "pruned"]
    assert found.chosen.variant["peak_lr"] == 3.0


def test_a_search_tries_its_budget_once_and_trains_the_best_with_all_seeds(made, tmp_path):
    path, log = made
    out = tmp_path / "out"
    command = [
        *("study", path, "--out", out, "--seeds", 2, "--budget", 5),
        *("--vary", "peak_lr=0.1..5", "--vary", "wide=true,false"),
    ]
    assert call(*command) == 0
    rows = table(out)
    assert [row["seed"] for row in rows] == ["0"] * 5 + ["1"] * 3
    assert len({row["peak_lr"] for row in rows}) == 5
    assert all(0.1 <= float(row["peak_lr"]) <= 5 for row in rows)
    done = len(log())
    assert call(*command) == 0
    assert len(log()) == done


def test_many_hosts_may_share_a_journal(made, tmp_path):
    path, _ = made
    storage = str(tmp_path / "journal.log")
    found = study(
        [Command(str(path)), Command(str(path))], tmp_path / "out", {"peak_lr": [1.0, 2.0]},
        seeds=2, storage=storage, **QUIET,
    )  # fmt: skip
    assert [len(one.trials) for one in found.scored] == [2, 2]


def test_a_function_is_an_experiment_too(tmp_path):
    """As a notebook has one."""
    seen = []

    def main(config):
        seen.append((config.seed, config.batch_size, config.test, bool(config.resume)))
        if config.batch_size == 1:
            raise DivergedError("at step 3")
        run = Path(config.resume or Path(config.out) / "made")
        run.mkdir(exist_ok=True)
        stored = {"seed": config.seed, "out": config.out, "batch_size": config.batch_size}
        (run / "config.json").write_text(json.dumps(stored | {"test": False}))
        lines = ["epoch,step,train_loss,val_loss,train_accuracy,val_accuracy,learning_rate,seconds",
                 f"1,1,1.0,{1 / config.batch_size},0.5,0.5,0.1,2.0"]  # fmt: skip
        (run / "history.csv").write_text("\n".join(lines) + "\n")
        if config.test:
            (run / "test.json").write_text('{"accuracy": 0.75}')
        return run

    function = Function(main, experiment.Config())
    found = study(function, tmp_path / "out", {"batch_size": [1, 4, 8]}, seeds=1, **QUIET)
    assert found.chosen.variant == {"batch_size": 8}  # equal accuracy, lower loss
    assert found.test.mean == 0.75
    assert seen == [(0, 1, False, False), (0, 4, False, False), (0, 8, False, False),
                    (0, 8, True, True)]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--vary", "peak_lr"], "--vary peak_lr: give FIELD=VALUE"),
        (["--vary", "peak_lrs=1,2"], "perhaps you meant --peak-lr"),
        (["--vary", "peak_lr=1,fast"], "--vary peak_lr=1,fast"),
        (["--vary", "peak_lr=1,11"], "must be at least 0 and below 10"),
        (["--vary", "peak_lr=1", "--vary", "peak_lr=2"], "named twice"),
        (["--vary", "seed=1,2"], "the study itself chooses seed"),
        (["--vary", "peak_lr=2..1"], "two numbers, the lower one first"),
        (["--vary", "peak_lr=1..2"], "--budget N"),
        (["--vary", "peak_lr=1", "--budget", "3"], "--budget N"),
        (["--seeds", "0"], "--seeds 0: must be at least 1"),
        (["--peaks", "1"], "--peaks"),
        (["--seed", "1"], "the study itself chooses seed"),
        (["--storage", "nosuch://x"], "--storage nosuch://x: cannot be opened"),
        (["--workers", "-1"], "--workers -1: must be at least 0"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_trained(
    made, tmp_path, capsys, flags, message
):
    path, _ = made
    assert call("study", path, "--out", tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "log").exists()


def test_experiments_that_are_none_are_named(tmp_path, capsys):
    (tmp_path / "plain.py").write_text("x = 1\n")
    (tmp_path / "broken.py").write_text("import nosuchmodule\n")
    for name, reason in (
        ("no.py", "no such file"),
        ("nosuchmodule", "no such file or module"),
        ("plain.py", "has no Config"),
        ("broken.py", "cannot be imported (No module named 'nosuchmodule')"),
    ):
        path = tmp_path / name if name.endswith(".py") else name
        assert call("study", path, "--out", tmp_path / "out") == 2
        assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_one_line(made, tmp_path, capsys):
    path, _ = made
    (tmp_path / "file").touch()
    out = tmp_path / "file/out"
    assert call("study", path, "--seeds", 1, "--out", out) == 2
    assert f"--out {out}: " in capsys.readouterr().err
    assert call("study", ROOT / "experiments/scratch.py", "--find-rate", "--out", out) == 2
    assert f"--out {out}: cannot be written (" in capsys.readouterr().err


def test_a_folder_of_other_things_or_of_another_study_is_refused(made, tmp_path):
    path, _ = made
    (tmp_path / "other").mkdir()
    (tmp_path / "other/picture.jpg").touch()
    with pytest.raises(UsageError, match="holds other files"):
        study(Command(str(path)), tmp_path / "other", seeds=1, **QUIET)
    out = tmp_path / "out"
    found = study(Command(str(path)), out, seeds=1, **QUIET)
    assert found.tried == 1  # the experiment as it is
    with pytest.raises(UsageError, match="has another flags"):
        study(Command(str(path), ["--batch-size", "8"]), out, seeds=1, **QUIET)
    path.write_text(path.read_text() + "\n# edited\n")
    with pytest.raises(UsageError, match="has another experiment file"):
        study(Command(str(path)), out, seeds=1, **QUIET)


def test_variants_of_the_experiment_file_are_the_default(made, tmp_path):
    path, _ = made
    assert call("study", path, "--out", tmp_path / "out", "--seeds", 1) == 0
    assert [(row["peak_lr"], row["wide"]) for row in table(tmp_path / "out")] == [
        ("1.0", ""), ("", "True")
    ]  # fmt: skip


@pytest.mark.slow
def test_a_study_that_is_killed_five_times_repeats_and_loses_no_trial(made, tmp_path):
    path, log = made
    out = tmp_path / "out"
    command = [
        *(sys.executable, "-m", "jaxgear", "study", path, "--out", out, "--seeds", "5"),
        *("--vary", "peak_lr=1,2,3", "--pause", "0.3"),
    ]
    rng = np.random.default_rng(0)
    for kill in range(5):
        process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        time.sleep(4 + 4 * rng.random())
        (os.kill if kill % 2 else os.killpg)(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, cwd=ROOT, check=True)
    rows = table(out)
    assert len(rows) == 15
    assert {row["state"] for row in rows} == {"complete"}
    finished = [line.split()[0] for line in log() if line.endswith("finished")]
    begun = [line.split()[0] for line in log() if line.endswith("begun")]
    assert sorted(set(finished)) == sorted({row["run"] for row in rows})
    assert len(begun) == len(set(begun)) == 15
    assert any(line.endswith("resumed") for line in log())
