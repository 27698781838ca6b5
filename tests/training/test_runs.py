"""Run folders: named by time, complete, and opened again only on the same pictures."""

import contextlib
import json
import os
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from test_checkpoints import data_file, flip_a_byte, leaves, make_state, row

from jaxgear import files
from jaxgear.data.dataset import open_dataset
from jaxgear.data.folder.read import fingerprint
from jaxgear.data.recorded import Recorded, describe, without_trained
from jaxgear.errors import CheckpointError, UsageError
from jaxgear.training import history
from jaxgear.training.runs import checkpoints
from jaxgear.training.runs.folder import check_made_of
from jaxgear.training.runs.run import Run

Space = namedtuple("Space", "free")
SOURCE = __file__
CONFIG = {"epochs": 3}


@pytest.fixture
def dataset():
    return open_dataset("drawn:60", size=16, seed=0, say=lambda line: None)


def reopen(run, dataset, **options):
    config = json.loads((run.path / "config.json").read_text())
    return Run.reopen(
        run.path, dataset, source=SOURCE, config=config | options.pop("flags", {}), **options
    )


def test_two_runs_of_one_second_have_two_folders(tmp_path, dataset, monkeypatch):
    names = []
    for _ in range(3):
        with Run.create(tmp_path, "scratch", {"seed": 0}, dataset, SOURCE) as run:
            names.append(run.path.name)
    assert len(set(names)) == 3
    config = json.loads((run.path / "config.json").read_text())
    assert config == {"seed": 0}
    environment = json.loads((run.path / "environment.json").read_text())
    assert {"jax", "flax", "optax"} <= environment["versions"].keys()
    assert environment["devices"][0].startswith("cpu")
    assert environment["argv"]


def test_an_unwritable_place_is_named(tmp_path, dataset):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"--out .*file"):
        Run.create(tmp_path / "file", "scratch", {}, dataset, SOURCE)


def test_goes_on_from_the_newest_and_ends_with_the_best(tmp_path, dataset):
    states = {epoch: make_state(seed=epoch) for epoch in (1, 2, 3)}
    with Run.create(tmp_path, "scratch", CONFIG, dataset, SOURCE) as run:
        assert run.latest(states[1]) is states[1]
        for epoch, loss in ((1, 0.5), (2, 0.9), (3, 0.7)):
            run.record(states[epoch], row(epoch, loss))
    # As if the machine had stopped between a row and its checkpoint.
    rows = (run.path / "history.csv").read_text()
    (run.path / "history.csv").write_text(rows + rows.splitlines()[-1].replace("3", "4", 1) + "\n")
    with reopen(run, dataset) as again:
        assert len(again.rows) == 4
        kernel = again.latest(make_state(seed=9)).params["head"]["kernel"]
        assert (kernel == states[3].params["head"]["kernel"]).all()
        assert [r.epoch for r in again.rows] == [1, 2, 3]
        best, best_row = again.best(make_state(seed=9))
        assert best_row.epoch == 1
        assert (best["params"]["head"]["kernel"] == states[1].params["head"]["kernel"]).all()


def edited(dataset, index, sha256="0" * 64):
    """The set after one picture was saved anew."""
    records = list(dataset.folder.records)
    records[index] = replace(records[index], sha256=sha256)
    folder = replace(dataset.folder, records=tuple(records))
    folder = replace(folder, fingerprint=fingerprint(folder.classes, folder.records))
    return replace(dataset, folder=folder)


def test_other_pictures_are_refused_by_name_or_recorded(tmp_path, dataset):
    with Run.create(tmp_path, "scratch", CONFIG, dataset, SOURCE) as run:
        run.record(make_state(), row(1, 1.0))
    changed = edited(dataset, 7)
    name = dataset.folder.records[7].path
    with pytest.raises(CheckpointError, match=rf"1 pictures .*{name} \(edited\)"):
        reopen(run, changed)
    assert not (run.path / "lock").exists()
    with reopen(run, changed, allow_data_change=True) as again:
        assert again.checkpoints.epochs == [1]
    assert json.loads((run.path / "resumed.json").read_text())[0]["pictures"] == [
        f"{name} (edited)"
    ]
    splits = json.loads((run.path / "splits.json").read_text())
    assert splits["fingerprint"] == changed.folder.fingerprint
    with reopen(run, changed):  # it is now the set of this run
        pass


def test_an_edited_training_picture_is_never_tested_on(dataset):
    described = Recorded.of(describe(dataset), Path())
    index = dataset.splits.index("train")
    moved = list(dataset.splits)
    moved[index] = "test"  # what another hash may decide
    changed = replace(edited(dataset, index), splits=tuple(moved))
    kept = without_trained(described, changed)
    assert kept.splits[index] == "left_out"
    assert [a for a, b in zip(kept.splits, dataset.splits, strict=True) if a != b] == ["left_out"]


def test_an_interrupted_epoch_goes_on_where_it_was(tmp_path, dataset):
    within = make_state(seed=5).replace(step=jnp.asarray(13, jnp.int32))
    with Run.create(tmp_path, "scratch", CONFIG, dataset, SOURCE) as run:
        run.record(make_state(seed=1), row(1, 1.0))
        run.pause(make_state(seed=4))
        run.pause(within)
    with reopen(run, dataset) as again:
        found = again.latest(make_state(seed=9))
        assert int(found.step) == 13
        for a, b in zip(leaves(found), leaves(within), strict=True):
            np.testing.assert_array_equal(a, b)
        again.record(make_state(seed=2), row(2, 0.5))
    assert not (run.path / "interrupted").exists()
    with reopen(run, dataset) as again:
        assert (
            again.latest(within).params["head"]["kernel"]
            == again.best(within)[0]["params"]["head"]["kernel"]
        ).all()


def test_a_run_without_a_checkpoint_starts_again_in_its_folder(tmp_path, dataset):
    with Run.create(tmp_path, "scratch", CONFIG, dataset, SOURCE) as run:
        pass
    (run.path / "history.csv").write_text(history.to_csv([row(1, 1.0)]))
    state = make_state()
    with reopen(run, dataset) as again:
        assert again.latest(state) is state
        assert again.rows == []


def test_unfinished_checkpoints_are_no_checkpoints(tmp_path, dataset, capsys):
    """An empty folder, a temporary one of Orbax, one that was not finished: gone, with a note."""
    with Run.create(tmp_path, "scratch", CONFIG, dataset, SOURCE) as run:
        for epoch in (1, 2):
            run.record(make_state(seed=epoch), row(epoch, 1.0 / epoch))
    checkpoints = run.path / "checkpoints"
    (checkpoints / "000002" / "manifest.json").unlink()
    (checkpoints / "000099").mkdir()
    (checkpoints / "000098.orbax-checkpoint-tmp").mkdir()
    with reopen(run, dataset) as again:
        assert again.checkpoints.epochs == [1]
        again.latest(make_state())
        again.record(make_state(seed=2), row(2, 0.5))
        assert again.checkpoints.epochs == [1, 2]
    noted = capsys.readouterr().err
    for name in ("000002", "000098.orbax-checkpoint-tmp", "000099"):
        assert f"{checkpoints / name} was never finished" in noted


def test_a_damaged_checkpoint_is_passed_over_by_choice_alone(tmp_path, dataset):
    with Run.create(tmp_path, "scratch", CONFIG, dataset, SOURCE) as run:
        for epoch in (1, 2, 3):
            run.record(make_state(seed=epoch), row(epoch, 1.0 / epoch))
    damaged = data_file(run.path / "checkpoints" / "000003")
    flip_a_byte(damaged)
    with reopen(run, dataset) as again, pytest.raises(CheckpointError) as refused:
        again.latest(make_state())
    assert str(damaged) in str(refused.value)
    assert "use --from-epoch to continue from another epoch (1, 2)" in str(refused.value)
    with pytest.raises(CheckpointError, match=r"--from-epoch 7: .* has epochs 1, 2, 3"):
        reopen(run, dataset, from_epoch=7)
    with reopen(run, dataset, from_epoch=2) as again:
        kernel = again.latest(make_state()).params["head"]["kernel"]
        assert (kernel == make_state(seed=2).params["head"]["kernel"]).all()
        assert again.checkpoints.epochs == [1, 2]
        assert [r.epoch for r in again.rows] == [1, 2]


def test_two_processes_cannot_write_one_run(tmp_path, dataset, capsys):
    with Run.create(tmp_path, "scratch", CONFIG, dataset, SOURCE) as run:
        with pytest.raises(UsageError, match=rf"in use by process {os.getpid()} on "):
            reopen(run, dataset)
        (run.path / "lock").write_text('{"pid": 999999, "host": "elsewhere"}')
        left = (run.path / "lock").read_bytes()
    (run.path / "lock").write_bytes(left)  # as a process leaves it that is killed
    with reopen(run, dataset):
        pass
    assert "process 999999 on elsewhere ended without releasing its lock" in capsys.readouterr().err
    assert not (run.path / "lock").exists()


def test_without_flock_a_run_is_written_and_not_locked(tmp_path, dataset, monkeypatch):
    """Windows has no fcntl."""
    monkeypatch.setattr(files, "fcntl", None)
    with Run.create(tmp_path, "scratch", CONFIG, dataset, SOURCE) as run, reopen(run, dataset):
        assert not (run.path / "lock").exists()


def test_a_full_disk_is_named_at_the_first_save(tmp_path, dataset, monkeypatch):
    with Run.create(tmp_path, "scratch", CONFIG, dataset, SOURCE) as run:
        run.record(make_state(), row(1, 1.0))
        with monkeypatch.context() as patch, pytest.raises(CheckpointError) as refused:  # noqa: PT012
            patch.setattr(checkpoints.shutil, "disk_usage", lambda path: Space(free=100))
            run.record(make_state(), row(2, 0.5))
        assert "000002" in str(refused.value)
        assert "No space left on device" in str(refused.value)
    with reopen(run, dataset) as again:
        assert int(again.latest(make_state(seed=3)).step) == 0
        assert again.checkpoints.epochs == [1]


def test_a_vanished_folder_is_one_line(tmp_path, dataset):
    with (  # noqa: PT012
        pytest.raises(CheckpointError, match=r"history\.csv: cannot be written"),
        Run.create(tmp_path, "scratch", CONFIG, dataset, SOURCE) as run,
    ):
        shutil.rmtree(run.path)
        run.record(make_state(), row(1, 1.0))


def test_other_code_and_more_epochs_are_noted_and_recorded(tmp_path, dataset, capsys):
    with Run.create(tmp_path, "scratch", CONFIG, dataset, SOURCE) as run:
        pass
    (run.path / "test.json").touch()
    (run.path / "experiment.py").write_text("other")
    with reopen(run, dataset, flags={"epochs": 5}):
        pass
    noted = capsys.readouterr().err
    assert "an experiment file that differs from the run's experiment.py" in noted
    assert "5 epochs instead of 3: schedules stretch" in noted
    assert "second look" in noted
    (entry,) = json.loads((run.path / "resumed.json").read_text())
    assert entry["config"] == {"epochs": [3, 5]}
    assert json.loads((run.path / "config.json").read_text())["epochs"] == 5


def test_what_is_no_run_is_refused(tmp_path, dataset):
    with pytest.raises(CheckpointError, match="not a run folder"):
        Run.reopen(tmp_path, dataset, config=CONFIG, source=SOURCE)


def test_a_history_that_lacks_epochs_of_checkpoints_is_refused(tmp_path, dataset):
    """Deleted, or cut: what is resumed would be another run than its checkpoints."""
    with Run.create(tmp_path, "scratch", CONFIG, dataset, SOURCE) as run:
        for epoch in (1, 2):
            run.record(make_state(seed=epoch), row(epoch, 1.0 / epoch))
    table = run.path / "history.csv"
    lines = table.read_text().splitlines(keepends=True)
    for kept in ([], lines[:1], lines[:2]):
        table.write_text("".join(kept)) if kept else table.unlink()
        complaint = r"history.csv: has \d epochs, but checkpoints go up to epoch 2"
        with pytest.raises(CheckpointError, match=complaint):
            reopen(run, dataset)
    table.write_text("".join(lines))
    with reopen(run, dataset) as again:
        assert len(again.rows) == 2


@pytest.mark.parametrize("flag", ["backgrounds", "weights"])
def test_other_backgrounds_and_weights_are_refused_by_their_hash(tmp_path, dataset, flag):
    with Run.create(tmp_path, "scratch", CONFIG, dataset, SOURCE, {flag: "a" * 64}) as run:
        pass
    check_made_of(run.path, {flag: "a" * 64}, allow_data_change=False)
    for other in ("b" * 64, None):
        with pytest.raises(CheckpointError, match=f"other {flag}; name them with --{flag}"):
            check_made_of(run.path, {flag: other}, allow_data_change=False)
    allowed = pytest.raises(CheckpointError) if flag == "weights" else contextlib.nullcontext()
    with allowed:  # a head on another backbone is of no use
        check_made_of(run.path, {flag: "b" * 64}, allow_data_change=True)


def test_a_run_from_before_hashes_were_recorded_is_resumed(tmp_path, dataset):
    with Run.create(tmp_path, "scratch", CONFIG, dataset, SOURCE) as run:
        pass
    check_made_of(run.path, {"weights": "a" * 64}, allow_data_change=False)
