"""Run folders: named by time, complete, and opened again only on the same pictures."""

import json
from dataclasses import replace

import pytest
from test_checkpoints import make_state, row

from jaxgear.data.dataset import open_dataset
from jaxgear.errors import CheckpointError, UsageError
from jaxgear.training.runs import Run

SOURCE = __file__


@pytest.fixture
def dataset():
    return open_dataset("drawn:60", size=16, seed=0, say=lambda line: None)


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
    with Run.create(tmp_path, "scratch", {}, dataset, SOURCE) as run:
        assert run.latest(states[1]) is states[1]
        for epoch, loss in ((1, 0.5), (2, 0.9), (3, 0.7)):
            run.record(states[epoch], row(epoch, loss))
    # As if the machine had stopped between a row and its checkpoint.
    rows = (run.path / "history.csv").read_text()
    (run.path / "history.csv").write_text(rows + rows.splitlines()[-1].replace("3", "4", 1) + "\n")
    with Run.reopen(run.path, dataset) as again:
        assert len(again.rows) == 4
        kernel = again.latest(make_state(seed=9)).params["head"]["kernel"]
        assert (kernel == states[3].params["head"]["kernel"]).all()
        assert [r.epoch for r in again.rows] == [1, 2, 3]
        best, best_row = again.best(make_state(seed=9))
        assert best_row.epoch == 1
        assert (best.params["head"]["kernel"] == states[1].params["head"]["kernel"]).all()


def test_other_pictures_are_refused(tmp_path, dataset):
    with Run.create(tmp_path, "scratch", {}, dataset, SOURCE) as run:
        run.record(make_state(), row(1, 1.0))
    other = replace(dataset, folder=replace(dataset.folder, fingerprint="0" * 64))
    with pytest.raises(CheckpointError, match="pictures have changed"):
        Run.reopen(run.path, other)


def test_what_is_no_run_is_refused(tmp_path, dataset):
    with pytest.raises(CheckpointError, match="not a run folder"):
        Run.reopen(tmp_path, dataset)
    with Run.create(tmp_path, "scratch", {}, dataset, SOURCE) as run:
        pass
    with pytest.raises(CheckpointError, match="start a new run"):
        Run.reopen(run.path, dataset)
