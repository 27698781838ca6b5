"""Around an experiment's own expressions: what is kept when training ends badly or early."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from made_runs import SOURCE, row, untrained
from pictures import write_set

from jaxgear import experiment, notebook
from jaxgear.data.dataset import Split, open_dataset
from jaxgear.data.folder import LazyPictures, Record
from jaxgear.data.prepare import writing
from jaxgear.data.prepare.prepared import prepare
from jaxgear.errors import DivergedError, UsageError
from jaxgear.evaluation.finished import FinishedRun
from jaxgear.evaluation.plots import figures as plots
from jaxgear.evaluation.plots import learning_curves
from jaxgear.experiment.conclusion import HandedOn, conclude, shared
from jaxgear.experiment.inputs import Inputs
from jaxgear.experiment.recipe import Recipe
from jaxgear.machine import devices
from jaxgear.models.convnet import Conv, ConvNet, GlobalPool
from jaxgear.training import history
from jaxgear.training.runs.environment import environment
from jaxgear.training.runs.run import Run

CONFIG = experiment.Config(data="drawn:60", image_size=16, batch_size=8, epochs=5)


@pytest.fixture
def dataset():
    return open_dataset(CONFIG.data, size=16, seed=0, say=lambda line: None)


def recipe_of(optimizer, rate=0.1, **fields):
    """A tiny network with that optimizer."""

    def recipe(config, data):
        return Recipe(
            model=ConvNet([Conv(4), GlobalPool()], classes=data.classes),
            optimizer=optimizer,
            rate=rate,
            epochs=config.epochs,
            **fields,
        )

    return recipe


def train(out, make, **changes):
    """Trains in a new run folder, up to its end: the experiment, its epochs saved, and the best."""
    config = dataclasses.replace(CONFIG, out=str(out), **changes)
    with experiment.start(config, make) as run:
        for _ in run.epochs():
            if run.patience_exhausted:
                break
        return run, run.run.checkpoints.epochs, history.best(run.rows)


def test_divergence_names_files_and_leaves_what_was_good(dataset, tmp_path):
    """The rate explodes in the third epoch: two are on disk, whole and finite, and no third."""
    steps_an_epoch = -(-dataset.counts()["train"] // 8)
    rate = lambda step: jnp.where(step < 2 * steps_an_epoch + 2, 0.01, 1e30)  # noqa: E731
    with pytest.raises(DivergedError) as diverged:
        train(tmp_path, recipe_of(optax.sgd, rate))
    (folder,) = tmp_path.iterdir()
    message = str(diverged.value)
    assert f"step {2 * steps_an_epoch + 4} (epoch 3)" in message
    named = message.rpartition("of that batch: ")[2].split(", ")
    assert set(named) <= set(dataset.split("train").names)
    assert len(named) == 8
    rows = history.from_csv((folder / "history.csv").read_text())
    assert [row.epoch for row in rows] == [1, 2]
    assert np.isfinite([(row.train_loss, row.val_loss) for row in rows]).all()
    saved = sorted(path.parent.name for path in folder.glob("checkpoints/*/manifest.json"))
    assert saved == ["000001", "000002"]
    assert not (folder / "interrupted").exists()


def test_patience_ends_training_with_the_best_epoch(tmp_path, capsys):
    """A rate of 0 changes nothing: no epoch is better than the first, but for its statistics."""
    config = dataclasses.replace(CONFIG, out=str(tmp_path), patience=1, epochs=30)
    with experiment.start(config, recipe_of(optax.sgd, 0.0)) as run:
        for _ in run.epochs():
            if run.patience_exhausted:
                break
        best, saved = history.best(run.rows), run.run.checkpoints.epochs
        run.finish()
    assert len(run.rows) < 30
    assert "stopped early: no lower validation loss for 1 epochs" in capsys.readouterr().out
    assert best.val_loss == min(row.val_loss for row in run.rows)
    assert {best.epoch, run.rows[-1].epoch} <= set(saved)
    assert json.loads((run.path / "test.json").read_text())["epoch"] == best.epoch
    resumed = dataclasses.replace(config, resume=str(run.path))
    with experiment.start(resumed, recipe_of(optax.sgd, 0.0)) as again:
        assert list(again.epochs()) == []  # it had ended


def test_growing_images_end_whole_whatever_the_patience_and_go_on_where_they_stopped(tmp_path):
    """A rate of 0 exhausts the patience at once, but not before images are whole."""
    make = recipe_of(optax.sgd, 0.0, resize=[(0.4, 0.5), (0.2, 0.75)])
    config = dataclasses.replace(CONFIG, out=str(tmp_path), patience=1, epochs=10)
    with experiment.start(config, make) as run:
        for row in run.epochs():
            assert not run.patience_exhausted
            if row.epoch == 5:
                break
    with experiment.start(dataclasses.replace(config, resume=str(run.path)), make) as run:
        for _ in run.epochs():
            if run.patience_exhausted:
                break
        run.finish()
    assert [row.size for row in run.rows][:7] == [8, 8, 8, 8, 12, 12, 16]
    assert 8 <= len(run.rows) < 10
    assert json.loads((run.path / "test.json").read_text())["epoch"] >= 7
    assert history.from_csv((run.path / "history.csv").read_text()) == run.rows
    work = json.loads((run.path / "environment.json").read_text())["flops_per_step"]
    assert work[0] == work[3] < work[4] == work[5] < work[6] == work[9]
    assert FinishedRun.read(run.path).flops == history.flops(work, run.rows)


def test_shuffling_within_windows_keeps_the_order_of_the_run_and_needs_shards(
    dataset, tmp_path, monkeypatch
):
    """Also under code that reads another number of shards at a time."""
    monkeypatch.setattr(writing, "SHARD_BYTES", 10_000)
    root = write_set(tmp_path / "data", {"a": 40, "b": 40})
    prepare(root, tmp_path / "out", size=16, workers=1, say=lambda line: None)
    config = dataclasses.replace(
        CONFIG, data=f"tfds:gear@{tmp_path / 'out'}", shuffle_window=16, resume=str(tmp_path)
    )
    prepared = open_dataset(config.data, size=16, seed=0, say=lambda line: None)
    recipe = recipe_of(optax.sgd)(config, experiment.Data((1, 1), 8))

    def order(lanes, data=prepared, config=config):
        (tmp_path / "environment.json").write_text(json.dumps({"shards_at_a_time": lanes}))
        train, val = Inputs(config, data, bank=None).batches(recipe)
        images = sorted(np.concatenate([batch.index for batch in val.ordered()])[: val.examples])
        assert images == list(range(val.examples))
        return np.concatenate([batch.index for batch in train.shuffled(1)]).tolist()

    now = environment()["shards_at_a_time"]
    assert order(now) == order(now, dataclasses.replace(prepared, stored=True)) != order(2)
    assert order(now) == order(0, config=dataclasses.replace(config, resume=""))
    assert order(now, config=dataclasses.replace(config, shuffle_window=0)) != order(now)
    with pytest.raises(UsageError, match=r"--shuffle-window 16: needs a prepared set"):
        order(now, dataset)


def test_curves_end_with_all_epochs_and_are_not_drawn_for_each(tmp_path, monkeypatch):
    """Epochs take a moment here: the first is drawn, the others when training ends. A notebook
    shows what is drawn, and more often.
    """
    drawn, shown = [], []
    monkeypatch.setattr(learning_curves, "curves", lambda rows, title: drawn.append(len(rows)))
    monkeypatch.setattr(plots, "png", lambda figure: b"%d" % drawn[-1])
    monkeypatch.setattr(notebook.Live, "show", lambda self, png: shown.append(png._repr_png_()))
    run, _, _ = train(tmp_path / "quick", recipe_of(optax.sgd, 0.01))
    assert drawn == [1, 5]
    assert (run.path / "curves.png").read_bytes() == b"5"
    assert run.path.name.startswith("test_experiment-")  # where the recipe is from
    drawn.clear()
    shown.clear()
    monkeypatch.setattr("jaxgear.experiment.run.in_notebook", lambda: True)
    monkeypatch.setattr("jaxgear.experiment.run.REDRAW_LIVE", 0)
    train(tmp_path / "slow", recipe_of(optax.sgd, 0.01))
    assert drawn == [1, 2, 3, 4, 5]
    assert shown == [b"1", b"2", b"3", b"4", b"5"]


def test_the_history_has_the_rate_that_the_optimizer_used(tmp_path, capsys):
    """Every second step an update, of a rate that is the number of the update."""
    rate = lambda update: 1e-6 * (1 + update)  # noqa: E731
    make = recipe_of(lambda rate: optax.MultiSteps(optax.sgd(rate), 2), rate)
    run, _, _ = train(tmp_path / "gathered", make, epochs=2)
    updates = [row.step // 2 for row in run.rows]
    assert [row.learning_rate for row in run.rows] == pytest.approx([1e-6 * n for n in updates])
    assert "recipe's rate" not in capsys.readouterr().out
    make = recipe_of(lambda rate: optax.sgd(0.01), rate)
    run, _, _ = train(tmp_path / "own", make, epochs=1)
    assert np.isnan(run.rows[0].learning_rate)
    assert "does not use the recipe's rate" in capsys.readouterr().out


def test_the_result_is_there_when_figures_fail_and_they_are_drawn_when_it_is_resumed(
    tmp_path, monkeypatch
):
    config = dataclasses.replace(CONFIG, out=str(tmp_path), epochs=1)
    make = recipe_of(optax.sgd)

    def run_to_the_end(config):
        with experiment.start(config, make) as run:
            list(run.epochs())
            return run.finish()

    def fail(*arguments):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(plots, "confusion", fail)
        with pytest.raises(MemoryError):
            run_to_the_end(config)
    (folder,) = tmp_path.iterdir()
    before = (folder / "test.json").read_bytes()
    assert not (folder / "predictions.png").exists()
    run_to_the_end(dataclasses.replace(config, resume=str(folder)))
    assert (folder / "predictions.png").exists()
    assert (folder / "test.json").read_bytes() == before


def test_a_result_is_kept_for_its_own_epoch_alone(dataset, tmp_path, monkeypatch):
    """A finished run went on to a better epoch and was cut short before its test: that is made up
    for when it is resumed, and is not made again when it is resumed once more.
    """
    folder = untrained(tmp_path, CONFIG.data, size=16, epochs=3)
    first = json.loads((folder / "test.json").read_text())
    assert first["epoch"] == 2
    looks = []
    real = type(dataset).test_split
    monkeypatch.setattr(type(dataset), "test_split", lambda *a: looks.append(1) or real(*a))
    model = ConvNet([Conv(4), GlobalPool()], classes=len(dataset.classes))
    images = dataset.split("val").images[:1]
    variables = jax.jit(lambda key: model.init(key, images, train=False))(jax.random.key(1))

    def resume():
        config = json.loads((folder / "config.json").read_text())
        with Run.reopen(folder, dataset, config=config | {"epochs": 4}, source=SOURCE) as run:
            handed_on = HandedOn(model, variables, 16, len(dataset.classes))
            conclude(run, history.best(run.rows), dataset, handed_on, variables)
        return json.loads((folder / "test.json").read_text())

    assert resume() == first
    assert looks == []
    rows = [row(epoch, loss) for epoch, loss in enumerate((2.5, 2.4, 2.6, 2.3), 1)]
    (folder / "history.csv").write_text(history.to_csv(rows))
    second = resume()
    assert second["epoch"] == 4
    assert second["loss"] != first["loss"]
    assert resume() == second
    assert looks == [1]


@pytest.mark.parametrize("count", [1, 65, 200])
@pytest.mark.parametrize("hosts", [2, 3])
def test_each_host_evaluates_its_own_images_and_all_have_the_rows_of_one(hosts, count, monkeypatch):
    """Each image is decoded once, on one host, but one for a host that has none."""
    decoded = []
    images = LazyPictures((count, 2, 2, 3), lambda row: decoded.append(row) or pixels[row])
    pixels = np.random.default_rng(0).integers(0, 256, (count, 2, 2, 3), np.uint8)
    records = [Record(f"{i}", "", 0, None, 2, 2, b"") for i in range(count)]
    split = Split(images, np.zeros(count, np.int32), tuple(records))
    rows_of = lambda split: split.images[:].mean(axis=(1, 2), dtype=np.float32)  # noqa: E731
    expected, parts = rows_of(dataclasses.replace(split, images=pixels)), []
    monkeypatch.setattr(jax, "process_count", lambda: hosts)
    monkeypatch.setattr(devices, "from_all", lambda rows: parts.append(rows) or [rows] * hosts)
    for host in range(hosts):
        monkeypatch.setattr(jax, "process_index", lambda host=host: host)
        shared(rows_of)(split)
    assert set(decoded) == set(range(count))
    assert len(decoded) == count + max(0, hosts - -(-count // 64))
    monkeypatch.setattr(devices, "from_all", lambda rows: np.stack(parts))
    np.testing.assert_array_equal(shared(rows_of)(split), expected)
