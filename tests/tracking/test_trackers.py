"""Trackers: what is shown is the history to the bit, once, whatever happened between."""

import dataclasses
import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from events import as_shown, events, of_history, scalars
from made_runs import row, write_run

from jaxgear.errors import UsageError
from jaxgear.machine import devices
from jaxgear.tracking import Trackers
from jaxgear.tracking.figures import figures
from jaxgear.training import history

# Figures as those of a real epoch: float32, but for the seconds.
ROWS = [
    dataclasses.replace(
        row(epoch, float(np.float32(1 / 3 / epoch)), float(np.float32(0.1 * epoch))),
        train_loss=float(np.float32(np.pi / epoch)),
        train_accuracy=float(np.float32(0.6)),
        learning_rate=float(np.float32(0.1)),
        seconds=0.1 + 1e-9 * epoch,
    )
    for epoch in range(1, 6)
]


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", accuracy=None)


def shown(track, run, rows, **options):
    """Shows a history as the next process of a run does."""
    (run / "history.csv").write_text(history.to_csv(rows))
    Trackers(track).show(run, rows, **options)


def finish(run, epoch):
    test = {"accuracy": 1 / 3, "loss": 0.5, "macro_f1": 0.25, "epoch": epoch}
    (run / "test.json").write_text(json.dumps(test))
    for name in ("curves", "confusion", "predictions"):
        Path(run / f"{name}.png").write_bytes(
            b"\x89PNG\r\n\x1a\n....IHDR" + struct.pack(">II", 3, 2)
        )


def test_tensorboard_has_the_history_to_the_bit_but_for_the_seconds(run):
    pytest.importorskip("tensorboardX")
    track = Trackers("tensorboard")
    for count in range(len(ROWS) + 1):
        (run / "history.csv").write_text(history.to_csv(ROWS[:count]))
        track.show(run, ROWS[:count])
        assert scalars(run) == (as_shown(of_history(run)) if count else {})
    finish(run, 3)
    track.show(run, ROWS, tested=True)
    test = {("test_accuracy", 3): 1 / 3, ("test_loss", 3): 0.5, ("test_macro_f1", 3): 0.25}
    assert scalars(run) == as_shown(of_history(run) | test)
    images = [
        (value.tag, event.step, value.image.width, value.image.height)
        for event in events(run)
        for value in event.summary.value
        if value.HasField("image")
    ]
    assert images == [(name, 5, 3, 2) for name in ("curves", "confusion", "predictions")]
    times = [event.wall_time for event in events(run)][2:]
    assert times[:5] == sorted(times[:5])


def test_tensorboard_forgets_what_a_killed_run_lost(run):
    """Five epochs were shown, and the newest checkpoint is of the third; others follow."""
    pytest.importorskip("tensorboardX")
    shown("tensorboard", run, ROWS)
    (old,) = (run / "tensorboard").iterdir()
    with old.open("ab") as file:
        file.write(b"torn")  # killed while it wrote
    again = [*ROWS[:3], dataclasses.replace(ROWS[3], seconds=9.7, val_loss=7.0)]
    shown("tensorboard", run, ROWS[:3])
    assert scalars(run) == as_shown(of_history(run))
    shown("tensorboard", run, again)
    assert scalars(run) == as_shown(of_history(run))
    (new,) = (run / "tensorboard").iterdir()
    assert new.name > old.name  # in the order that TensorBoard reads
    assert [event.session_log.status for event in events(run)][1] == 1  # it forgets older files


def test_tensorboard_begins_anew_after_a_full_disk(run, monkeypatch):
    pytest.importorskip("tensorboardX")
    track = Trackers("tensorboard")
    track.show(run, ROWS[:2])
    with monkeypatch.context() as full:

        def write_half(path, mode):
            with open(path, mode) as file:  # noqa: PTH123
                file.write(b"torn")
            raise OSError(28, "No space left on device")

        full.setattr(Path, "open", write_half)
        track.show(run, ROWS[:3])
    (run / "history.csv").write_text(history.to_csv(ROWS[:4]))
    track.show(run, ROWS[:4])
    assert scalars(run) == as_shown(of_history(run))


def of_mlflow(run):
    """Each metric by name and step, of the one run that is not deleted; fails on a step twice."""
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient()
    number = json.loads((run / "mlflow.json").read_text())["run"]
    experiment = client.get_run(number).info.experiment_id
    assert [found.info.run_id for found in client.search_runs([experiment])] == [number]
    logged = [
        ((metric.key, metric.step), metric.value)
        for name in client.get_run(number).data.metrics
        for metric in client.get_metric_history(number, name)
    ]
    assert len(dict(logged)) == len(logged), "a step twice"
    return dict(logged)


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    """MLflow with a store of files, which `mlflow-skinny` can use too."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())


def test_mlflow_has_the_history_to_the_bit(run, mlflow):
    from mlflow import MlflowClient

    track = Trackers("mlflow")
    for count in range(len(ROWS) + 1):
        (run / "history.csv").write_text(history.to_csv(ROWS[:count]))
        track.show(run, ROWS[:count])
        assert of_mlflow(run) == (of_history(run) if count else {})
    finish(run, 3)
    track.show(run, ROWS, tested=True)
    again = Trackers("mlflow")  # resumed although it was finished
    again.show(run, ROWS)
    again.show(run, ROWS, tested=True)
    test = {("test_accuracy", 3): 1 / 3, ("test_loss", 3): 0.5, ("test_macro_f1", 3): 0.25}
    assert of_mlflow(run) == of_history(run) | test
    client, number = MlflowClient(), json.loads((run / "mlflow.json").read_text())["run"]
    names = {artifact.path for artifact in client.list_artifacts(number)}
    assert names == {"curves.png", "confusion.png", "predictions.png"}
    data = client.get_run(number).data
    assert (data.params["seed"], data.tags["run"]) == ("0", str(run))


def test_mlflow_goes_on_with_its_run_and_begins_anew_where_epochs_were_lost(run, mlflow):
    shown("mlflow", run, ROWS[:3])
    first = (run / "mlflow.json").read_text()
    shown("mlflow", run, ROWS[:4])
    assert (run / "mlflow.json").read_text() == first
    assert of_mlflow(run) == of_history(run)
    shown("mlflow", run, [*ROWS[:3], dataclasses.replace(ROWS[3], seconds=9.7)])
    assert (run / "mlflow.json").read_text() != first
    assert of_mlflow(run) == of_history(run)
    (run / "mlflow.json").write_text('{"run": "0123"}')  # of another server
    shown("mlflow", run, ROWS[:2])
    assert json.loads((run / "mlflow.json").read_text())["run"] != "0123"


def test_a_rate_that_is_unknown_is_left_out():
    unknown = [dataclasses.replace(ROWS[0], learning_rate=float("nan"))]
    assert ("learning_rate", 1) not in figures(unknown, None)
    assert len(figures(unknown, None)) == len(history.FIELDS) - 2


OWN = """
calls = []
def track(run, rows, test):
    calls.append((run, len(rows), test and test["accuracy"]))
def broken(run, rows, test):
    if calls[-1][1] % 2 == FAILS:
        raise OSError("no server\\nmore")
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes a module of a user's trackers to the current folder; `broken` fails as asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(name, fails):
        Path(f"{name}.py").write_text(OWN.replace("FAILS", str(fails)))
        return name

    return write


def test_a_tracker_of_ones_own_sees_every_epoch_and_its_faults_end_no_run(own, run, capsys):
    name = own("own_one", 1)
    tracks = Trackers(f"{name}:track,{name}:broken")
    for count in range(4):
        tracks.show(run, ROWS[:count])
    finish(run, 2)
    tracks.show(run, ROWS[:4], tested=True)
    assert sys.modules[name].calls == [(run, n, None) for n in range(4)] + [(run, 4, 1 / 3)]
    note = f"note: --track {name}:broken: OSError: no server; the run goes on"
    assert capsys.readouterr().err.splitlines() == [note, note]


def test_a_tracker_that_fails_at_the_start_ends_the_run(own, run):
    name = own("own_two", 0)
    with pytest.raises(UsageError, match=f"^--track {name}:broken: OSError: no server$"):
        Trackers(f"{name}:track,{name}:broken").show(run, [])


def test_other_hosts_show_nothing(own, run, monkeypatch):
    name = own("own_three", 0)
    monkeypatch.setattr(devices, "first_host", lambda: False)
    Trackers(f"{name}:track").show(run, ROWS)
    assert sys.modules[name].calls == []


@pytest.mark.parametrize(
    ("track", "reason"),
    [
        ("wandb", "neither one of tensorboard, mlflow nor MODULE:FUNCTION"),
        ("no_such:track", "not found (No module named 'no_such')"),
        ("json:track", "not found (module 'json' has no attribute 'track')"),
        ("json:__name__", "not a function"),
        (":track", "not found (Empty module name)"),
    ],
)
def test_a_tracker_that_is_none_is_one_line(track, reason):
    with pytest.raises(UsageError) as error:
        Trackers(track)
    assert str(error.value) == f"--track {track}: {reason}"


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name, package in (("tensorboard", "tensorboardX"), ("mlflow", "mlflow")):
        with pytest.raises(UsageError) as error:
            Trackers(name)
        how = f"pip install 'jaxgear[{name}]'"
        assert str(error.value) == f"--track {name} needs {package}: {how}"
